"""Kernel arguments: addresses as base plus named offset, scalars as literals or values of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from wrapgen import expression
from wrapgen.codegen import dtype as cpp_dtype
from wrapgen.codegen import interface
from wrapgen.codegen.bounds import Ranges
from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.memory import MemoryPlan, lifetimes, refs
from wrapgen.codegen.names import Namer, pascal
from wrapgen.codegen.values import Values
from wrapgen.dtype import INFO, DType
from wrapgen.program import (
    ALIGNMENT,
    Buffer,
    KernelParam,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    integer_range,
    walk,
)

WEIGHTS: Final = "weights"
CONSTANTS: Final = "constants"
ARENAS: Final = {"folding": "folding_arena", "main": "main_arena"}


@dataclasses.dataclass(frozen=True)
class Offset:
    """A named offset of model.cc: ``constexpr uint64_t name = value;  // note``. Where a slot of
    the arena begins is known only in a run: then ``value`` is the enumerator of that value."""

    name: str
    value: int | str
    note: str


class Blocks:
    """C++ names, offsets and indices of all memory a program addresses.

    Offsets are grouped in namespaces called ``constants``, ``folding_arena`` and ``main_arena``.
    Weights, which may lie anywhere, have indices in a namespace called ``weights``.
    """

    def __init__(self, program: Program, plan: MemoryPlan, values: Values) -> None:
        self._values = values
        self._offsets: dict[str, dict[str, Offset]] = {
            CONSTANTS: _named(plan.constants.offsets, _origins(program)),
            ARENAS["folding"]: _named(plan.folding_arena.offsets, _uses(program.folding, {})),
            ARENAS["main"]: _named(plan.main_arena.offsets, _uses(program.main, values.ranges)),
        }
        if plan.main_slots:
            slots = {
                member: f"{values.namespace}::{values.slot(i)}"
                for i, slot in enumerate(plan.main_slots)
                for member in slot.members
            }
            notes = _uses(program.main, values.ranges)  # in order of the first mention
            self._offsets[ARENAS["main"]] = _named({name: slots[name] for name in notes}, notes)
        self._indices = interface.index_names(program)
        namer = Namer()
        self._weights = {
            weight.name: namer.name(weight.name, "k" + (pascal(weight.name) or "Unnamed"))
            for weight in program.weights
        }
        self._used: set[tuple[str, str]] = set()

    def index(self, space: str, name: str) -> str:
        """Name of the index of an input or output."""
        return self._indices[space, name]

    def weights(self) -> list[tuple[str, str]]:
        """The names of the weights' indices, in the order of the program, and of the weights."""
        return [(constant, name) for name, constant in self._weights.items()]

    def offset(self, space: str, name: str) -> str:
        """The named offset of a block in one of the namespaces."""
        self._used.add((space, name))
        return f"{space}::{self._offsets[space][name].name}"

    def namespaces(self) -> list[tuple[str, list[Offset]]]:
        """The offsets asked for so far, by namespace, in the order of the plan."""
        used = [
            (space, [offset for name, offset in offsets.items() if (space, name) in self._used])
            for space, offsets in self._offsets.items()
        ]
        return [(space, offsets) for space, offsets in used if offsets]

    def address(self, ref: Ref, procedure: str) -> str:
        """The C++ expression of an address; ``at`` is the launcher's ``Addresses``."""
        match ref.space:
            case "input" | "output":
                base = f"at.{ref.space}s[{self.index(ref.space, ref.name)}]"
            case "weight":
                base = f"at.weights[{WEIGHTS}::{self._weights[ref.name]}]"
            case "constant":
                base = f"at.constants + {self.offset(CONSTANTS, ref.name)}"
            case "arena":
                offset = self.offset(ARENAS[procedure], ref.name)
                named = self._offsets[ARENAS[procedure]][ref.name]
                base = "at.arena + "
                base += offset if isinstance(named.value, int) else f"at.bytes({offset})"
        within = self._values.number(ref.offset)
        if within is None:
            return f"{base} + at.bytes({self._values.index(ref.offset)})"
        return f"{base} + {within}" if within else base


def _named(offsets: Mapping[str, int | str], notes: dict[str, str]) -> dict[str, Offset]:
    namer = Namer()
    named = {}
    for name, value in offsets.items():
        constant = namer.name(name, "k" + (pascal(name) or "Unnamed"))
        named[name] = Offset(constant, value, notes.get(name, name))
    return named


def _layouts(buffers: tuple[Buffer, ...]) -> dict[str, str]:
    return {buffer.name: layout(buffer) for buffer in buffers}


def layout(buffer: Buffer) -> str:
    """How a buffer is laid out, for a comment: dtype, shape and, if not row-major, strides."""
    text = f"{buffer.dtype} {interface.text_of(buffer.shape)}"
    if interface.is_row_major(buffer.shape, buffer.strides):
        return text
    return f"{text} strides {interface.text_of(buffer.strides)}"


def _origins(program: Program) -> dict[str, str]:
    """Notes of constants: the first step of folding that writes each, and its layout."""
    described = _layouts(program.constants)
    first: dict[str, int] = {}
    for i, step in enumerate(walk(program.folding.steps)):
        for ref in refs(step):
            if ref.space == "constant":
                first.setdefault(ref.name, i)
    return {name: f"folding [{i}]: {described[name]}" for name, i in first.items()}


def _uses(procedure: Procedure, ranges: Ranges) -> dict[str, str]:
    described = _layouts(procedure.buffers)
    notes = {}
    for lifetime in lifetimes(procedure, ranges):
        steps = f"[{lifetime.first}]"
        if lifetime.last != lifetime.first:
            steps += f" to [{lifetime.last}]"
        notes[lifetime.name] = f"{steps}: {described[lifetime.name]}"
    return notes


def scalar(at: str, arg: ScalarArg, param: KernelParam, values: Values, whose: str) -> str:
    """A C++ literal of the argument's type, or a value of the run, which is checked to fit for the
    step called ``whose``; ``at`` begins the message of a ``CodegenError``."""
    try:
        if "float" in arg.dtype:
            return cpp_dtype.float_literal(arg.dtype, str(arg.value))
    except CodegenError as error:
        raise CodegenError(f"{at}.value: {error}") from error
    value = values.number(arg.value)
    if value is None:
        multiple_of = ALIGNMENT if param.divisible_by_16 else 1
        what = f"{whose}: argument {param.name} of type {arg.dtype}"
        values.limit(arg.value, what, *integer_range(arg.dtype), multiple_of)
        code = values.at(arg.value)
        if arg.dtype == DType.BOOL:
            return f"{code} != 0"
        cpp = INFO[arg.dtype].cpp
        return code if cpp == "int64_t" else f"static_cast<{cpp}>({code})"
    if arg.dtype == DType.BOOL:
        return "true" if value else "false"
    return "INT64_MIN" if value == expression.INT64_MIN else str(value)


def parameter_type(kind: str, dtype: DType) -> str:
    """C++ type of a kernel parameter."""
    if kind == "tensor_map":
        return "const MappedTensor&"
    return "DeviceAddress" if kind == "pointer" else INFO[dtype].cpp
