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
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import pydantic

from wrapgen import expression
from wrapgen import target as target_module
from wrapgen.dtype import INFO, DType

SCHEMA_VERSION: Final = 1
"""Raised by one whenever a reader of the previous version could misread a file."""

ALIGNMENT: Final = 16
"""Bytes. Every pointer a kernel gets is a multiple of it; Triton specialises kernels on that."""

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

Dim = int | str
"""A size, stride, offset or grid extent: an integer, or an expression over the names of the
program's symbols in Python's syntax, such as ``"s0 * s1 // 8"`` (wrapgen/expression.py)."""

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
    """A number passed to a kernel by value.

    Floating-point values are written as hexadecimal strings (``float.hex``), so that no digit is
    lost; a bool is 0 or 1.
    """

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
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProgramError(f"{where}: not a JSON object")
    version = value.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ProgramError(
            f"{where}: schema_version is {version!r}, this wrapgen reads {SCHEMA_VERSION}; "
            "lower the model again with this version"
        )
    try:
        program = _ADAPTER.validate_json(text)
    except pydantic.ValidationError as error:
        raise ProgramError(
            "\n".join(f"{where}: {fault}" for fault in _shape_faults(error))
        ) from error
    validate(program, where=where)
    return program


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a dict of a JSON object; refuses one key twice, as readers differ on which counts."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"key {twice!r} occurs twice in one object")
    return value


def _shape_faults(error: pydantic.ValidationError) -> Iterator[str]:
    """Yields one line for each value of the wrong type, in the order of the file."""
    by_place: dict[str, list[str]] = {}
    for fault in error.errors(include_url=False):
        loc = fault["loc"]
        message = fault["msg"]
        if loc and loc[-1] in _UNION_TAGS:  # one fault for each member of the union
            loc = loc[:-1]
        by_place.setdefault(place(loc), []).append(message)
    for at, messages in by_place.items():
        yield f"{at}: {' or: '.join(dict.fromkeys(messages))}"


_UNION_TAGS: Final = ("int", "str", "bool", "none")
_KIND_TAGS: Final = ("launch", "copy", "fill", "pointer", "scalar")


def place(loc: Sequence[int | str]) -> str:
    """Spells a path into the file: ``("main", "steps", 3)`` is ``main.steps[3]``.

    pydantic puts the ``kind`` of a step or argument behind its index; that is left out.
    """
    text = ""
    for i, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (i and isinstance(loc[i - 1], int) and part in _KIND_TAGS):
            text += f".{part}" if text else part
    return text or "top level"


def extent(shape: Sequence[int], strides: Sequence[int], itemsize: int) -> int:
    """Bytes from the first element of a strided tensor to one past its last; 0 if it is empty.

    Strides are in elements and not negative.
    """
    if 0 in shape:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return (last + 1) * itemsize


def weight_nbytes(weight: Weight) -> int:
    """Bytes of a weight, which is contiguous."""
    return math.prod(weight.shape) * INFO[weight.dtype].itemsize


def weights_digest(weights: Iterable[Weight]) -> str:
    """Identifies the weights a program takes, by name, dtype and shape but not by value.

    The SHA-256, in lowercase hexadecimal, of the UTF-8 text that has one line
    ``NAME DTYPE D0,D1,...`` and a newline for each weight, sorted by name (by code point, which is
    also the order of the UTF-8 bytes), dtypes as safetensors spells them; a scalar's line ends in
    the blank behind its dtype.
    """
    lines = [
        f"{weight.name} {INFO[weight.dtype].safetensors} {','.join(map(str, weight.shape))}\n"
        for weight in sorted(weights, key=lambda weight: weight.name)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def validate(program: Program, *, where: str) -> None:
    """Raises ``ProgramError`` that lists every broken cross-reference and impossible value."""
    faults = [f"{where}: {fault}" for fault in _faults(program)]
    if faults:
        raise ProgramError("\n".join(faults))


def _faults(program: Program) -> Iterator[str]:
    if program.schema_version != SCHEMA_VERSION:
        yield f"schema_version: {program.schema_version} is not {SCHEMA_VERSION}"
    yield from _target_faults(program.target)
    if program.num_shards < 1:
        yield f"num_shards: {program.num_shards} is less than 1"
    yield from _name_faults(program)
    symbols = {symbol.name for symbol in program.symbols}
    for i, symbol in enumerate(program.symbols):
        if not 0 <= symbol.minimum <= symbol.maximum:
            yield (
                f"symbols[{i}]: the range {symbol.minimum}..{symbol.maximum} is empty or begins "
                "below 0"
            )
    for group, specs in (("inputs", program.inputs), ("outputs", program.outputs)):
        for i, spec in enumerate(specs):
            yield from _layout_faults(f"{group}[{i}]", spec.shape, spec.strides, symbols)
    for i, weight in enumerate(program.weights):
        for j, size in enumerate(weight.shape):
            yield from _size_faults(f"weights[{i}].shape[{j}]", size, symbols)
    for i, buffer in enumerate(program.constants):
        yield from _buffer_faults(f"constants[{i}]", buffer, symbols)
    for i, kernel in enumerate(program.kernels):
        yield from _kernel_faults(f"kernels[{i}]", kernel, program.num_shards)
    yield from _procedure_faults(program, "folding", program.folding, symbols)
    yield from _procedure_faults(program, "main", program.main, symbols)


def _target_faults(text: str) -> Iterator[str]:
    try:
        target = target_module.parse(text)
    except target_module.TargetError as error:
        yield f"target: {error}"
    else:
        if target != target.lowering:
            yield f"target: {text} is PTX; a program is lowered for SASS, here {target.lowering}"


def _name_faults(program: Program) -> Iterator[str]:
    identifiers = {
        "symbols": [symbol.name for symbol in program.symbols],
        "inputs": [spec.name for spec in program.inputs],
        "outputs": [spec.name for spec in program.outputs],
        "kernels": [kernel.name for kernel in program.kernels],
    }
    names = {
        "weights": [weight.name for weight in program.weights],
        "constants": [buffer.name for buffer in program.constants],
    }
    for group, members in (identifiers | names).items():
        yield from _duplicates(group, members)
    for group, members in identifiers.items():
        for i, name in enumerate(members):
            if not IDENTIFIER.match(name):
                yield f"{group}[{i}].name: {name!r} is not an identifier"
    for group, members in names.items():
        for i, name in enumerate(members):
            if not _is_line(name):
                yield f"{group}[{i}].name: {name!r} is empty or has unprintable characters"


def _is_line(text: str) -> bool:
    """Whether a text can be a name: not empty, one line, all of it visible."""
    return bool(text) and text.isprintable()


def _dim_faults(at: str, dim: Dim, symbols: set[str]) -> Iterator[str]:
    """Faults of an integer or expression as such, whatever its value."""
    try:
        if isinstance(dim, int):
            expression.evaluate(dim)
            return
        tree = expression.parse(dim)
        unknown = [name for name in expression.names(tree) if name not in symbols]
        for name in unknown:
            yield f"{at}: {dim!r} names {name!r}, which is no symbol of the program"
        if not expression.names(tree):
            expression.evaluate(dim)
    except expression.ExpressionError as error:
        yield f"{at}: {error}"


def _size_faults(at: str, dim: Dim, symbols: set[str]) -> Iterator[str]:
    """Faults of a number that counts something."""
    yield from _dim_faults(at, dim, symbols)
    value = _known(dim)
    if value is not None and value < 0:
        yield f"{at}: {value} is negative"


def _known(dim: Dim) -> int | None:
    """The value of a dim that depends on no symbol, else ``None``."""
    try:
        return expression.evaluate(dim)
    except expression.ExpressionError:
        return None


def _known_size(dim: Dim) -> int | None:
    """The same of a number that counts something; ``None`` for a negative one."""
    value = _known(dim)
    return None if value is None or value < 0 else value


def _layout_faults(
    at: str, shape: Sequence[Dim], strides: Sequence[Dim], symbols: set[str]
) -> Iterator[str]:
    if len(shape) != len(strides):
        yield f"{at}.strides: {len(strides)} strides for {len(shape)} dimensions"
    for field, dims in (("shape", shape), ("strides", strides)):
        for i, dim in enumerate(dims):
            yield from _size_faults(f"{at}.{field}[{i}]", dim, symbols)


def _buffer_faults(at: str, buffer: Buffer, symbols: set[str]) -> Iterator[str]:
    yield from _layout_faults(at, buffer.shape, buffer.strides, symbols)
    yield from _size_faults(f"{at}.nbytes", buffer.nbytes, symbols)
    nbytes, needed = _known_size(buffer.nbytes), _known_extent(buffer)
    if nbytes is not None and needed is not None and nbytes < needed:
        yield f"{at}.nbytes: {nbytes}, but the tensor stored there has {needed} bytes"


def _known_extent(tensor: TensorSpec | Buffer) -> int | None:
    shape = [_known_size(size) for size in tensor.shape]
    strides = [_known_size(stride) for stride in tensor.strides]
    if len(shape) != len(strides) or None in shape or None in strides:
        return None
    sizes = [size for size in shape if size is not None]
    steps = [stride for stride in strides if stride is not None]
    return extent(sizes, steps, INFO[tensor.dtype].itemsize)


_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


def _kernel_faults(at: str, kernel: Kernel, num_shards: int) -> Iterator[str]:
    if not 0 <= kernel.shard < num_shards:
        yield f"{at}.shard: {kernel.shard} is not in 0..{num_shards - 1}"
    if not _SHA256.match(kernel.ttir_sha256):
        yield f"{at}.ttir_sha256: {kernel.ttir_sha256!r} is not 64 lowercase hexadecimal digits"
    for field, number, maximum in (
        ("num_warps", kernel.num_warps, 32),
        ("num_ctas", kernel.num_ctas, 16),
    ):
        if number not in (1, 2, 4, 8, 16, 32) or number > maximum:
            yield f"{at}.{field}: {number} is not a power of two between 1 and {maximum}"
    if kernel.num_stages < 0:
        yield f"{at}.num_stages: {kernel.num_stages} is negative"
    yield from _duplicates(f"{at}.params", [param.name for param in kernel.params])
    for i, param in enumerate(kernel.params):
        if not IDENTIFIER.match(param.name):
            yield f"{at}.params[{i}].name: {param.name!r} is not an identifier"


def _duplicates(group: str, names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield f"{group}[{i}].name: {name!r} occurs twice"
        seen.add(name)


def _procedure_faults(
    program: Program, label: str, procedure: Procedure, symbols: set[str]
) -> Iterator[str]:
    yield from _duplicates(f"{label}.buffers", [buffer.name for buffer in procedure.buffers])
    for i, buffer in enumerate(procedure.buffers):
        at = f"{label}.buffers[{i}]"
        if not _is_line(buffer.name):
            yield f"{at}.name: {buffer.name!r} is empty or has unprintable characters"
        yield from _buffer_faults(at, buffer, symbols)
    folding = label == "folding"
    sizes = _block_sizes(program, procedure, folding)
    writable = {"arena", "constant"} if folding else {"arena", "output", "input"}
    kernels = {kernel.name: kernel for kernel in program.kernels}
    # What holds a value: everything but what this procedure is there to compute.
    given = {"input", "weight"} if folding else {"input", "weight", "constant"}
    written = {block for block in sizes if block[0] in given}
    for i, step in enumerate(procedure.steps):
        at = f"{label}.steps[{i}]"
        for field, ref, access, nbytes in _accesses(step):
            yield from _dim_faults(f"{at}.{field}.offset", ref.offset, symbols)
            block = (ref.space, ref.name)
            if block not in sizes:
                yield f"{at}.{field}: there is no {ref.space} called {ref.name!r} in {label}"
                continue
            yield from _range_faults(f"{at}.{field}", ref, nbytes, sizes[block])
            if access != "read" and ref.space not in writable:
                yield f"{at}.{field}: {label} must not write {ref.space} {ref.name!r}"
            if access != "write" and block not in written:
                yield f"{at}.{field}: {ref.space} {ref.name!r} is read before any step wrote it"
            written.add(block)
        if isinstance(step, Launch):
            yield from _launch_faults(at, step, kernels, symbols)
        else:
            yield from _size_faults(f"{at}.nbytes", step.nbytes, symbols)
        if isinstance(step, Copy):
            yield from _overlap_faults(at, step)
        elif isinstance(step, Fill) and not 0 <= step.byte <= 255:
            yield f"{at}.byte: {step.byte} is not in 0..255"
        for j, source in enumerate(step.sources):
            for field, text in dataclasses.asdict(source).items():
                if any(character in text for character in "\n\r\0"):
                    yield f"{at}.sources[{j}].{field}: {text!r} is more than one line"
    for (space, name), size in sizes.items():
        computed = space == ("constant" if folding else "output")
        if computed and size != 0 and (space, name) not in written:
            yield f"{label}.steps: no step writes {space} {name!r}"


_Block = tuple[str, str]  # space and name


def _block_sizes(program: Program, procedure: Procedure, folding: bool) -> dict[_Block, int | None]:
    """Everything a procedure can address, with its bytes where they are known."""
    sizes: dict[_Block, int | None] = {}
    if not folding:
        sizes |= {("input", spec.name): _known_extent(spec) for spec in program.inputs}
        sizes |= {("output", spec.name): _known_extent(spec) for spec in program.outputs}
    sizes |= {
        ("weight", weight.name): None if min(weight.shape, default=0) < 0 else weight_nbytes(weight)
        for weight in program.weights
    }
    sizes |= {("constant", one.name): _known_size(one.nbytes) for one in program.constants}
    sizes |= {("arena", one.name): _known_size(one.nbytes) for one in procedure.buffers}
    return sizes


def _accesses(step: Launch | Copy | Fill) -> Iterator[tuple[str, Ref, str, Dim]]:
    """Yields (field, address, access, bytes or 0) of what a step touches, reads before writes."""
    if isinstance(step, Copy):
        yield "src", step.src, "read", step.nbytes
        yield "dst", step.dst, "write", step.nbytes
    elif isinstance(step, Fill):
        yield "dst", step.dst, "write", step.nbytes
    else:
        pointers = [
            (f"args[{i}].ref", arg.ref, arg.access, 0)
            for i, arg in enumerate(step.args)
            if isinstance(arg, PointerArg)
        ]
        yield from sorted(pointers, key=lambda pointer: pointer[2] == "write")


def _range_faults(at: str, ref: Ref, nbytes: Dim, size: int | None) -> Iterator[str]:
    begin, length = _known(ref.offset), _known(nbytes)
    if begin is None:
        return
    if begin < 0:
        yield f"{at}.offset: {begin} is negative"
    elif size is not None and begin + (length or 0) > size:
        ends = f"bytes {begin}..{begin + length}" if length else f"offset {begin}"
        yield f"{at}: {ends} is outside {ref.space} {ref.name!r}, which has {size} bytes"


def _overlap_faults(at: str, step: Copy) -> Iterator[str]:
    if (step.dst.space, step.dst.name) != (step.src.space, step.src.name):
        return
    dst, src, nbytes = _known(step.dst.offset), _known(step.src.offset), _known(step.nbytes)
    if dst is not None and src is not None and nbytes is not None and abs(dst - src) < nbytes:
        yield f"{at}: copies {nbytes} bytes from offset {src} to {dst} of the same memory"


def _launch_faults(
    at: str, launch: Launch, kernels: dict[str, Kernel], symbols: set[str]
) -> Iterator[str]:
    for i, size in enumerate(launch.grid):
        yield from _size_faults(f"{at}.grid[{i}]", size, symbols)
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
            yield from _scalar_faults(f"{at}.args[{i}]", arg, param, symbols)
        elif param.divisible_by_16 and (_known(arg.ref.offset) or 0) % ALIGNMENT:
            yield (
                f"{at}.args[{i}].ref.offset: {arg.ref.offset} is no multiple of 16, as parameter "
                f"{param.name!r} of kernel {kernel.name} was promised"
            )


_FLOATS: Final = frozenset(dtype for dtype in DType if "float" in dtype)


def _scalar_faults(at: str, arg: ScalarArg, param: KernelParam, symbols: set[str]) -> Iterator[str]:
    if arg.dtype != param.dtype:
        yield f"{at}.dtype: {arg.dtype}, parameter {param.name!r} is {param.dtype}"
    if arg.dtype in _FLOATS:
        if not isinstance(arg.value, str) or not _is_hex_float(arg.value):
            yield f"{at}.value: {arg.value!r} is not what float.hex() writes"
        return
    yield from _dim_faults(f"{at}.value", arg.value, symbols)
    value = _known(arg.value)
    if value is None:
        return
    minimum, maximum = integer_range(arg.dtype)
    if not minimum <= value <= maximum:
        yield f"{at}.value: {value} is not a value of {arg.dtype}"
    if param.divisible_by_16 and value % ALIGNMENT:
        yield (
            f"{at}.value: {value} is no multiple of 16, as parameter {param.name!r} was promised"
        )


def integer_range(dtype: DType) -> tuple[int, int]:
    """The least and the greatest value of an integer type or bool."""
    if dtype == DType.BOOL:
        return 0, 1
    bits = 8 * INFO[dtype].itemsize
    return (0, (1 << bits) - 1) if dtype == DType.UINT8 else (-(1 << bits - 1), (1 << bits - 1) - 1)


def _is_hex_float(text: str) -> bool:
    try:
        return float.fromhex(text).hex() == text
    except (ValueError, OverflowError):
        return False
