"""Debug builds: what generated code does around each step besides (runtime/debug/debug.h).

Without a mode nothing of this is generated: the code is the same as if it did not exist.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from wrapgen.codegen import expr, text
from wrapgen.codegen.args import Blocks
from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.memory import lifetimes, refs
from wrapgen.codegen.names import pascal
from wrapgen.codegen.values import Values
from wrapgen.dtype import INFO, DType
from wrapgen.options import DEBUG_MODES
from wrapgen.program import (
    Copy,
    Dim,
    Fill,
    If,
    Kernel,
    Launch,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    SourceNode,
    Step,
    While,
    walk,
    weight_nbytes,
)

Space = Literal["input", "output", "weight", "constant", "arena"]

Around = Callable[[int, Step, Sequence[str]], list[str]]
"""What is written around the statements of a step, which has an index in its procedure."""


@dataclasses.dataclass(frozen=True)
class Debug:
    """What a debug build of a model does besides; ``modes`` is not empty."""

    model: str
    modes: frozenset[str]

    @property
    def looks(self) -> bool:
        """Whether it reads tensors."""
        return bool(self.modes & {"nan", "values"})


def parse(model: str, modes: Iterable[str]) -> Debug | None:
    """Checks names of modes; ``None`` where there is none.

    Raises ``CodegenError`` for an unknown one.
    """
    asked = frozenset(modes)
    unknown = sorted(asked - set(DEBUG_MODES))
    if unknown:
        raise CodegenError(
            f"unknown debug mode {unknown[0]!r}: expected some of {', '.join(DEBUG_MODES)}"
        )
    return Debug(model, asked) if asked else None


def constant(debug: Debug | None) -> list[str]:
    """Declares the modes for the steps and the description."""
    if debug is None:
        return []
    named = " | ".join(f"aoti::debug::k{pascal(mode)}" for mode in sorted(debug.modes))
    return [*text.statements(0, [f"constexpr uint32_t kDebug = {named};"]), ""]


def description_fields(debug: Debug | None, program: Program) -> list[str]:
    """The last fields of the ``ModelDescription``: those of symbols, where a program has none, and
    the modes."""
    if debug is None:
        return []
    without = [] if program.symbols else ["    {nullptr, 0},", "    {nullptr, 0},"]
    return [*without, *([] if program.symbols else ["    nullptr,", "    0,"]), "    kDebug,"]


def arguments(kernel: Kernel, names: Sequence[str], debug: Debug | None) -> list[str]:
    """Prints a launch, in the function of a kernel with parameters called ``names``."""
    if debug is None or "launches" not in debug.modes:
        return []
    rows = []
    for param, name in zip(kernel.params, names, strict=True):
        pointee = "" if param.kind == "scalar" else "*"
        value = f"{name}.address" if param.kind == "tensor_map" else name
        dtype = f"{pointee}{INFO[param.dtype].safetensors}"
        rows.append(f'      {{"{param.name}", "{dtype}", &{value}}},')
    return [
        "  // clang-format off",
        f"  aoti::debug::PrintLaunch({text.string(kernel.name)}, grid, {{",
        *rows,
        "  });",
        "  // clang-format on",
    ]


@dataclasses.dataclass(frozen=True)
class _Block:
    """How the value of a block of memory is laid out, in elements; and its bytes."""

    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    nbytes: Dim


@dataclasses.dataclass(frozen=True)
class _Use:
    """What a step does with memory; ``nbytes`` where it says how many."""

    ref: Ref
    dtype: DType | None
    read: bool
    written: bool
    nbytes: Dim | None = None


def unchanged(_i: int, _step: Step, code: Sequence[str]) -> list[str]:
    """What other builds do around a step: nothing."""
    return list(code)


class Steps:
    """Writes what is around the steps of one procedure of a program."""

    def __init__(
        self,
        debug: Debug,
        program: Program,
        name: str,
        procedure: Procedure,
        blocks: Blocks,
        values: Values,
    ) -> None:
        self._debug = debug
        self._procedure = name
        self._kernels = {kernel.name: kernel for kernel in program.kernels}
        self._blocks = blocks
        self._values = values
        self._layouts = dict(_layouts(program, procedure))
        self._cleared = _first_uses(name, procedure, values)

    def around(self, i: int, step: Step, code: Sequence[str]) -> list[str]:
        """The statements ``code`` of the step that ``walk`` counts as ``i``, with what a debug
        build does before and after."""
        if all(line.lstrip().startswith("//") for line in code):
            return list(code)
        modes = self._debug.modes
        named = f"{self._procedure} step {i}"
        if isinstance(step, Launch):
            named += f", kernel {step.kernel}"
        elif isinstance(step, If | While):
            named += f", {step.kind}"
        cells = [self._debug.model, named, _source(step.sources)]
        before = [f"const aoti::debug::Site site = {{{', '.join(map(text.string, cells))}}};"]
        if "nvtx" in modes:
            before.append("const aoti::debug::Range range(site);")
        before.append("aoti::debug::Step step(launcher, kDebug, site);")
        if self._debug.looks:
            before += [
                f"AOTI_RETURN_IF_ERROR(step.Clear({self._address(Ref(space=space, name=name))}, "
                f"{self._bytes(self._layouts[space, name].nbytes)}));"
                for space, name in self._cleared.get(i, ())
            ]
        if "launches" in modes and isinstance(step, Copy):
            operands = f"{self._address(step.dst)}, {self._address(step.src)}"
            before.append(f"aoti::debug::PrintCopy({operands}, {self._bytes(step.nbytes)});")
        if "launches" in modes and isinstance(step, Fill):
            operands = f"{self._address(step.dst)}, {step.byte}"
            before.append(f"aoti::debug::PrintFill({operands}, {self._bytes(step.nbytes)});")
        after = ["AOTI_RETURN_IF_ERROR(step.Finish({}));"]
        if self._debug.looks:
            tensors = [f"    {self._tensor(use)}," for use in self._uses(step)]
            after = ["AOTI_RETURN_IF_ERROR(step.Finish({", *tensors, "}));"]
        inner = [f"    {line}" for line in before]
        inner += [f"  {line}" for line in code if "clang-format" not in line]
        inner += [f"    {line}" for line in after]
        return ["  {", "    // clang-format off", *inner, "    // clang-format on", "  }"]

    def _uses(self, step: Step) -> list[_Use]:
        match step:
            case Launch():
                params = self._kernels[step.kernel].params
                uses = [
                    _Use(arg.ref, param.dtype, "read" in arg.access, "write" in arg.access)
                    for arg, param in zip(step.args, params, strict=True)
                    if not isinstance(arg, ScalarArg)
                ]
            case Copy():
                uses = [
                    _Use(step.dst, None, False, True, step.nbytes),
                    _Use(step.src, None, True, False, step.nbytes),
                ]
            case Fill():
                uses = [_Use(step.dst, None, False, True, step.nbytes)]
            case If() | While():
                uses = [_Use(step.predicate, step.dtype, True, False)]
        merged: dict[tuple[Ref, DType | None], _Use] = {}
        for use in uses:
            known = merged.get((use.ref, use.dtype), use)
            merged[use.ref, use.dtype] = dataclasses.replace(
                use, read=use.read or known.read, written=use.written or known.written
            )
        return list(merged.values())

    def _tensor(self, use: _Use) -> str:
        """An ``aoti::debug::Tensor``: the block's value where the step uses that, else the elements
        from the address to the end of what it may use."""
        block = self._layouts[use.ref.space, use.ref.name]
        dtype = use.dtype or block.dtype
        whole = use.nbytes is None or expr.parse(use.nbytes) == expr.parse(block.nbytes)
        if use.ref.offset == 0 and dtype == block.dtype and whole:
            shape, strides = block.shape, block.strides
        else:
            nbytes = use.nbytes
            if nbytes is None:
                nbytes = f"max(0, {block.nbytes} - ({use.ref.offset}))"
            shape, strides = (f"({nbytes}) // {INFO[dtype].itemsize}",), (1,)
        cells = [
            text.string(f"{use.ref.space} {use.ref.name}"),
            text.string(INFO[dtype].safetensors),
            self._address(use.ref),
            *(f"{{{', '.join(map(self._values.at, dims))}}}" for dims in (shape, strides)),
            *("true" if flag else "false" for flag in (use.read, use.written)),
        ]
        return f"{{{', '.join(cells)}}}"

    def _address(self, ref: Ref) -> str:
        return self._blocks.address(ref, self._procedure)

    def _bytes(self, nbytes: Dim) -> str:
        number = self._values.number(nbytes)
        return f"at.bytes({self._values.index(nbytes)})" if number is None else str(number)


def _first_uses(
    name: str, procedure: Procedure, values: Values
) -> dict[int, list[tuple[Space, str]]]:
    """The memory to clear before each step: whose content before it means nothing.

    That is where a temporary's lifetime begins. What a procedure computes, constants in ``folding``
    and outputs in ``main``, has memory of its own, which what is inside a branch or loop must find
    as it left it: it is cleared before the outermost one.
    """
    computed: Space = "constant" if name == "folding" else "output"
    found: dict[int, list[tuple[Space, str]]] = {}
    for lifetime in lifetimes(procedure, values.ranges):
        found.setdefault(lifetime.first, []).append(("arena", lifetime.name))
    known: set[tuple[Space, str]] = set()
    number = 0
    for step in procedure.steps:
        inside = list(walk([step]))
        for ref in (ref for one in inside for ref in refs(one)):
            if ref.space == computed and (ref.space, ref.name) not in known:
                known.add((ref.space, ref.name))
                found.setdefault(number, []).append((ref.space, ref.name))
        number += len(inside)
    return found


def _layouts(program: Program, procedure: Procedure) -> Iterator[tuple[tuple[str, str], _Block]]:
    for space, specs in (("input", program.tensor_inputs), ("output", program.outputs)):
        for spec in specs:
            nbytes = _nbytes(spec.dtype, spec.shape, spec.strides)
            yield (space, spec.name), _Block(spec.dtype, spec.shape, spec.strides, nbytes)
    for weight in program.weights:
        strides = tuple(math.prod(weight.shape[i + 1 :]) for i in range(len(weight.shape)))
        nbytes = weight_nbytes(weight)
        yield ("weight", weight.name), _Block(weight.dtype, weight.shape, strides, nbytes)
    for space, buffers in (("constant", program.constants), ("arena", procedure.buffers)):
        for buffer in buffers:
            block = _Block(buffer.dtype, buffer.shape, buffer.strides, buffer.nbytes)
            yield (space, buffer.name), block


def _nbytes(dtype: DType, shape: Sequence[Dim], strides: Sequence[Dim]) -> Dim:
    """Bytes from the first element of a tensor to one past its last; 0 if it is empty."""
    last = " + ".join(
        f"({size} - 1) * ({stride})" for size, stride in zip(shape, strides, strict=True)
    )
    some = f"min(1, {', '.join(map(str, shape))})" if shape else "1"
    nbytes: Dim = f"{some} * ({last or 0} + 1) * {INFO[dtype].itemsize}"
    parsed = expr.parse(nbytes)
    return int(parsed) if parsed.is_Integer else nbytes


def _source(sources: Sequence[SourceNode]) -> str:
    """The first line of PyTorch that a step comes from and its module, or its first operation."""
    for source in sources:
        if source.location:
            return ": ".join(part for part in (source.place, source.code) if part)
    return sources[0].op if sources else ""
