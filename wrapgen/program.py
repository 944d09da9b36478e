"""``Program``: what lowering produces and everything downstream reads.

A program is one model lowered for one target: its inputs, outputs, weights and kernels, and two
procedures, that is, lists of launches, copies and fills in execution order. ``folding`` computes
the constants from the weights, once, when the model is loaded or its weights are swapped; ``main``
computes the outputs from the inputs, the weights and the constants. docs/program.md describes the
file field by field.

Files are canonical JSON: keys sorted, two spaces of indentation, UTF-8, one final newline. The same
program is the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import pydantic

from wrapgen.dtype import DType

SCHEMA_VERSION: Final = 1
"""Raised by one whenever a reader of the previous version could misread a file."""

ALIGNMENT: Final = 16
"""Bytes. Every pointer a kernel gets is a multiple of it; Triton specialises kernels on that."""

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Dim = int | str
"""A size, stride, offset or grid extent: an integer, or an expression over the names of the
program's symbols in Python's syntax, such as ``"s0 * s1 // 8"``."""

_T = TypeVar("_T")


class ProgramError(ValueError):
    """A malformed program. The message names the file, the place of the fault and what to do."""


def _strict(cls: type[_T]) -> type[_T]:
    """Marks a dataclass as one that refuses unknown fields and converts no types."""
    cls.__pydantic_config__ = pydantic.ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
    return cls


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Symbol:
    """A size known only at run time. ``minimum`` and ``maximum`` are inclusive."""

    name: str
    minimum: int
    maximum: int


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of the model as the caller sees it.

    ``strides`` and ``shape`` are in elements. ``path`` is where the tensor stands in the Python
    call, such as ``args[0]`` or ``kwargs["mask"]``, or ``outputs[0].logits``.
    """

    name: str
    path: str
    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor of the weights file. ``name`` is its key there; it is contiguous, row-major."""

    name: str
    dtype: DType
    shape: tuple[int, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Buffer:
    """A block of memory the library owns: a constant, or a temporary in the arena.

    ``shape`` and ``strides`` say how the value first stored there is laid out; ``nbytes`` is what
    must be allocated.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    nbytes: Dim


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ref:
    """An address: a byte ``offset`` into one named block of memory.

    Spaces: ``input`` and ``output`` are the caller's memory, ``weight`` the weights as they are in
    the weights file, ``constant`` what folding computes, ``arena`` a temporary of the procedure.
    """

    space: Literal["input", "output", "weight", "constant", "arena"]
    name: str
    offset: Dim = 0


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class PointerArg:
    """A device address passed to a kernel, and what the kernel does with the memory behind it."""

    kind: Literal["pointer"] = "pointer"
    ref: Ref
    access: Literal["read", "write", "read_write"]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalarArg:
    """A number passed to a kernel by value. Floating-point values are written as hexadecimal
    strings (``float.hex``), so that no digit is lost."""

    kind: Literal["scalar"] = "scalar"
    dtype: DType
    value: Dim


Arg = Annotated[PointerArg | ScalarArg, pydantic.Field(discriminator="kind")]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceNode:
    """The PyTorch operation a launch comes from.

    ``op`` as in ``aten.conv2d.default``; ``module`` is the qualified name of the module called,
    such as ``layer1.0.conv2``; ``location`` is ``file.py:line`` relative to the export's root and
    ``code`` that line, both empty where the export does not say.
    """

    name: str
    op: str
    module: str = ""
    location: str = ""
    code: str = ""


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """Runs a kernel over ``grid`` (programs in x, y and z). One ``Arg`` a parameter, in order."""

    kind: Literal["launch"] = "launch"
    kernel: str
    grid: tuple[Dim, Dim, Dim]
    args: tuple[Arg, ...]
    sources: tuple[SourceNode, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Copy:
    """Copies ``nbytes`` bytes on the device; the two ranges do not overlap."""

    kind: Literal["copy"] = "copy"
    dst: Ref
    src: Ref
    nbytes: Dim
    sources: tuple[SourceNode, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Fill:
    """Sets ``nbytes`` bytes to ``byte``."""

    kind: Literal["fill"] = "fill"
    dst: Ref
    byte: int
    nbytes: Dim
    sources: tuple[SourceNode, ...]


Step = Annotated[Launch | Copy | Fill, pydantic.Field(discriminator="kind")]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Procedure:
    """Steps in execution order, and the temporaries they use. No step reads arena memory that no
    earlier step wrote; a temporary lives from the first step that names it to the last."""

    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelParam:
    """A parameter of a kernel's TTIR function, in order. Compile-time constants are no parameters.

    ``dtype`` is the pointee's for a pointer. ``divisible_by_16`` is what Triton was promised: of
    the address, or of the value.
    """

    name: str
    kind: Literal["pointer", "scalar"]
    dtype: DType
    divisible_by_16: bool


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """A Triton kernel.

    ``name`` ends in a digest of the kernel's content and is the entry point in the compiled
    binary, the stem of its ``.ttir`` and of its readable source in ``sources/``. ``shard`` is where
    its TTIR is: ``shards/NN``. ``template`` is the hand-written template it was made from, or
    empty. ``config`` records the compile-time constants, for a reader.
    """

    name: str
    shard: int
    ttir_sha256: str
    params: tuple[KernelParam, ...]
    num_warps: int
    num_stages: int
    num_ctas: int
    template: str
    config: dict[str, int | str | bool | None]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One model lowered for one target. ``target`` is the SASS target, such as ``sm_90``.

    ``constants`` are the buffers that ``folding`` writes and ``main`` reads.
    """

    schema_version: int
    target: str
    num_shards: int
    symbols: tuple[Symbol, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: tuple[Weight, ...]
    constants: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    folding: Procedure
    main: Procedure

    def kernel(self, name: str) -> Kernel:
        """Returns the kernel called ``name``; raises ``KeyError`` where there is none."""
        for kernel in self.kernels:
            if kernel.name == name:
                return kernel
        raise KeyError(name)


_ADAPTER: pydantic.TypeAdapter[Program] = pydantic.TypeAdapter(Program)


def canonical_json(value: Any) -> str:
    """Serialises plain lists, dicts, strings, integers, booleans and ``None`` canonically."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def dumps(program: Program) -> str:
    """Serialises a program as canonical JSON. Validates first: an invalid one is never written."""
    validate(program, where="program")
    return canonical_json(dataclasses.asdict(program))


def load(path: Path) -> Program:
    """Reads and validates a program; raises ``ProgramError`` with the place of a fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ProgramError(f"{path}: not UTF-8 text: {error}") from error
    return loads(text, where=str(path))


def loads(text: str, *, where: str = "program") -> Program:
    """Parses and validates a program; ``where`` begins each message."""
    try:
        version = json.loads(text).get("schema_version")
    except (json.JSONDecodeError, AttributeError) as error:
        raise ProgramError(f"{where}: not a JSON object: {error}") from error
    if version != SCHEMA_VERSION:
        raise ProgramError(
            f"{where}: schema_version is {version!r}, this wrapgen reads {SCHEMA_VERSION}; "
            "lower the model again with this version"
        )
    try:
        program = _ADAPTER.validate_json(text)
    except pydantic.ValidationError as error:
        lines = [f"{where}: {place(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise ProgramError("\n".join(lines)) from error
    validate(program, where=where)
    return program


def place(loc: tuple[int | str, ...]) -> str:
    """Spells a path into the file: ``("main", "steps", 3)`` is ``main.steps[3]``."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in ("launch", "copy", "fill", "pointer", "scalar"):  # pydantic's union tags
            text += f".{part}" if text else part
    return text or "top level"


def validate(program: Program, *, where: str) -> None:
    """Raises ``ProgramError`` that lists every broken cross-reference and impossible value."""
    faults = [f"{where}: {fault}" for fault in _faults(program)]
    if faults:
        raise ProgramError("\n".join(faults))


def _faults(program: Program) -> Iterator[str]:
    yield from _duplicates("symbols", [symbol.name for symbol in program.symbols])
    yield from _duplicates("inputs", [spec.name for spec in program.inputs])
    yield from _duplicates("outputs", [spec.name for spec in program.outputs])
    yield from _duplicates("weights", [weight.name for weight in program.weights])
    yield from _duplicates("constants", [buffer.name for buffer in program.constants])
    yield from _duplicates("kernels", [kernel.name for kernel in program.kernels])
    for group, names in (
        ("symbols", [symbol.name for symbol in program.symbols]),
        ("inputs", [spec.name for spec in program.inputs]),
        ("outputs", [spec.name for spec in program.outputs]),
        ("kernels", [kernel.name for kernel in program.kernels]),
    ):
        for i, name in enumerate(names):
            if not IDENTIFIER.match(name):
                yield f"{group}[{i}].name: {name!r} is not an identifier"
    for group, specs in (("inputs", program.inputs), ("outputs", program.outputs)):
        for i, spec in enumerate(specs):
            if len(spec.shape) != len(spec.strides):
                yield (
                    f"{group}[{i}].strides: {len(spec.strides)} strides for "
                    f"{len(spec.shape)} dimensions"
                )
    for i, kernel in enumerate(program.kernels):
        if not 0 <= kernel.shard < program.num_shards:
            yield f"kernels[{i}].shard: {kernel.shard} is not in 0..{program.num_shards - 1}"
    yield from _procedure_faults(program, "folding", program.folding)
    yield from _procedure_faults(program, "main", program.main)


def _duplicates(group: str, names: list[str]) -> Iterator[str]:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield f"{group}[{i}].name: {name!r} occurs twice"
        seen.add(name)


def _procedure_faults(program: Program, label: str, procedure: Procedure) -> Iterator[str]:
    yield from _duplicates(f"{label}.buffers", [buffer.name for buffer in procedure.buffers])
    folding = label == "folding"
    known = {
        "input": set() if folding else {spec.name for spec in program.inputs},
        "output": set() if folding else {spec.name for spec in program.outputs},
        "weight": {weight.name for weight in program.weights},
        "constant": {buffer.name for buffer in program.constants},
        "arena": {buffer.name for buffer in procedure.buffers},
    }
    writable = {"arena", "constant"} if folding else {"arena", "output", "input"}
    kernels = {kernel.name: kernel for kernel in program.kernels}
    # What holds a value: everything but what this procedure is there to compute.
    written = {(space, name) for space in ("input", "weight") for name in known[space]}
    if not folding:
        written |= {("constant", name) for name in known["constant"]}
    for i, step in enumerate(procedure.steps):
        at = f"{label}.steps[{i}]"
        for where, ref, access in _accesses(step):
            if ref.name not in known[ref.space]:
                yield f"{at}.{where}: there is no {ref.space} called {ref.name!r} in {label}"
                continue
            if access != "read" and ref.space not in writable:
                yield f"{at}.{where}: {label} must not write {ref.space} {ref.name!r}"
            if access != "write" and (ref.space, ref.name) not in written:
                yield f"{at}.{where}: {ref.space} {ref.name!r} is read before any step wrote it"
            written.add((ref.space, ref.name))
        if isinstance(step, Launch):
            yield from _launch_faults(at, step, kernels)
        elif isinstance(step, Fill) and not 0 <= step.byte <= 255:
            yield f"{at}.byte: {step.byte} is not in 0..255"
    for space in ("constant",) if folding else ("output",):
        for name in sorted(known[space]):
            if (space, name) not in written:
                yield f"{label}.steps: no step writes {space} {name!r}"


def _accesses(step: Launch | Copy | Fill) -> Iterator[tuple[str, Ref, str]]:
    """Yields (place, address, access) of everything a step touches, reads before writes."""
    if isinstance(step, Copy):
        yield "src", step.src, "read"
        yield "dst", step.dst, "write"
    elif isinstance(step, Fill):
        yield "dst", step.dst, "write"
    else:
        pointers = [
            (f"args[{i}].ref", arg.ref, arg.access)
            for i, arg in enumerate(step.args)
            if isinstance(arg, PointerArg)
        ]
        yield from sorted(pointers, key=lambda pointer: pointer[2] == "write")


def _launch_faults(at: str, launch: Launch, kernels: dict[str, Kernel]) -> Iterator[str]:
    kernel = kernels.get(launch.kernel)
    if kernel is None:
        yield f"{at}.kernel: there is no kernel called {launch.kernel!r}"
        return
    if len(launch.args) != len(kernel.params):
        yield (
            f"{at}.args: {len(launch.args)} arguments for the {len(kernel.params)} parameters "
            f"of kernel {kernel.name}"
        )
        return
    for i, (arg, param) in enumerate(zip(launch.args, kernel.params, strict=True)):
        if arg.kind != param.kind:
            yield f"{at}.args[{i}]: parameter {param.name!r} is a {param.kind}, not a {arg.kind}"
        elif isinstance(arg, ScalarArg):
            if arg.dtype != param.dtype:
                yield f"{at}.args[{i}].dtype: {arg.dtype}, parameter {param.name!r} is {param.dtype}"
        elif param.divisible_by_16 and isinstance(arg.ref.offset, int) and arg.ref.offset % 16:
            yield (
                f"{at}.args[{i}].ref.offset: {arg.ref.offset} is no multiple of 16, as parameter "
                f"{param.name!r} of kernel {kernel.name} was promised"
            )
    for i, extent in enumerate(launch.grid):
        if isinstance(extent, int) and extent < 0:
            yield f"{at}.grid[{i}]: {extent} is negative"
