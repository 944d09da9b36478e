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
from wrapgen.dtype import INFO, DType

SCHEMA_VERSION: Final = 4
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
    """A number known only at run time: a size of an input, or the value of a scalar one.

    ``minimum`` and ``maximum`` are inclusive. The value comes from the first input, in order, that
    has a dimension which is exactly the symbol's name, or is the scalar of that symbol.
    """

    name: str
    minimum: int
    maximum: int


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of the model as the caller sees it.

    ``strides`` and ``shape`` are in elements. ``path`` is where the tensor stands in the Python
    call, such as ``args[0]`` or ``kwargs["mask"]``, or ``outputs[0].logits``. The model writes to
    inputs that are ``mutated``, and to no others; an output never is.
    """

    kind: Literal["tensor"] = "tensor"
    name: str
    path: str
    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    mutated: bool = False


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalarSpec:
    """An input that is an integer of 64 bits. Expressions read its value as ``symbol``."""

    kind: Literal["scalar"] = "scalar"
    name: str
    path: str
    symbol: str


InputSpec = Annotated[TensorSpec | ScalarSpec, pydantic.Field(discriminator="kind")]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedInput:
    """An argument that is no tensor, and that export fixed: what it was, for a reader.

    ``value`` is Python's ``repr``; the built model takes no such argument.
    """

    path: str
    value: str


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraint:
    """What symbols must fulfil beyond their ranges and the shapes of the inputs.

    ``condition`` is two expressions and one of ``== != < <= > >=`` between them. ``text`` says the
    same in terms of the inputs, ``x.shape[0] % 8 == 0``, and is what an error quotes.
    """

    condition: str
    text: str


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor of the weights file. ``name`` is its key there; it is contiguous, row-major.

    ``role`` is what it is in the PyTorch module: a parameter, a buffer, or a tensor that the module
    only mentions. State dicts hold all parameters, not all buffers, and nothing else.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    role: Literal["parameter", "buffer", "constant"] = "parameter"


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Buffer:
    """A block of memory the library owns: a constant, or a temporary in the arena.

    ``shape`` and ``strides`` say how the value first stored there is laid out; ``nbytes`` is what
    must be allocated. ``node`` is the node of the lowered graph whose value that is, or empty where
    that is not known; per-kernel checks compare the two.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    nbytes: Dim
    node: str = ""


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


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorMapArg:
    """A tensor in memory, described to the hardware that copies blocks of it (TMA).

    ``shape`` and ``strides`` are in elements of the parameter's type; the last stride is 1.
    ``padding`` is what elements outside of the tensor read as. ``round_to_tf32`` drops the digits
    of float32 that the type tf32 lacks. The bytes behind ``ref`` are what ``access`` says.
    """

    kind: Literal["tensor_map"] = "tensor_map"
    ref: Ref
    access: Literal["read", "write", "read_write"]
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    padding: Literal["zero", "nan"] = "zero"
    round_to_tf32: bool = False


Arg = Annotated[PointerArg | ScalarArg | TensorMapArg, pydantic.Field(discriminator="kind")]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceNode:
    """The PyTorch operation a launch comes from.

    ``op`` as in ``aten.conv2d.default``; ``module`` is the qualified name of the module called,
    such as ``layer1.0.conv2``; ``file`` is the user's, relative to the export's root, ``function``
    the one in it that makes the call, ``code`` the line of it that does. The three are empty where
    the export does not say. There are no line numbers: a comment would change them.
    """

    name: str
    op: str
    module: str = ""
    file: str = ""
    function: str = ""
    code: str = ""

    @property
    def location(self) -> str:
        """The file and the function, as in ``net.py, in forward``; empty where they are unknown."""
        return ", in ".join(part for part in (self.file, self.function) if part)

    @property
    def place(self) -> str:
        """As in ``net.py, in forward, module layer1.act``; empty where nothing is known."""
        module = f"module {self.module}" if self.module else ""
        return ", ".join(part for part in (self.location, module) if part)


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


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class If:
    """Executes ``then`` if the number at ``predicate``, of type ``dtype``, is not 0, else
    ``otherwise``. ``kernel`` is what lets a CUDA graph decide: wrapgen/set_condition.py.

    The device decides, in a graph that is built before: so the steps inside name nothing of the
    caller's, which has other addresses in each run.
    """

    kind: Literal["if"] = "if"
    kernel: str
    predicate: Ref
    dtype: DType
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]
    sources: tuple[SourceNode, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class While:
    """Executes ``condition``, and then, as long as the number at ``predicate`` is not 0, ``body``
    and again ``condition``. What ``If`` says of steps inside holds here.

    A temporary that only ``condition`` names, or only ``body``, holds nothing when that begins,
    each time; all others that they name live as long as the loop.
    """

    kind: Literal["while"] = "while"
    kernel: str
    predicate: Ref
    dtype: DType
    condition: tuple[Step, ...]
    body: tuple[Step, ...]
    sources: tuple[SourceNode, ...]


Step = Annotated[Launch | Copy | Fill | If | While, pydantic.Field(discriminator="kind")]


def inner(step: Step) -> tuple[tuple[str, tuple[Step, ...]], ...]:
    """The lists of steps in a step, with the names of the fields, in order of execution."""
    match step:
        case If(then=then, otherwise=otherwise):
            return ("then", then), ("otherwise", otherwise)
        case While(condition=condition, body=body):
            return ("condition", condition), ("body", body)
        case _:
            return ()


def walk(steps: Iterable[Step]) -> Iterator[Step]:
    """All steps as one reads them: those inside another one come right behind it."""
    for step in steps:
        yield step
        for _, inside in inner(step):
            yield from walk(inside)


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Procedure:
    """Steps in execution order, and the temporaries they use, those inside branches and loops too.
    No step reads arena memory that no earlier step wrote; a temporary lives from the first step
    that names it to the last."""

    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelParam:
    """A parameter of a kernel's TTIR function, in order. Compile-time constants are no parameters.

    ``dtype`` is the pointee's for a pointer, an element's for a tensor map. ``divisible_by_16`` is
    what Triton was promised: of the address, or of the value. ``block`` is the shape of the blocks
    in which a tensor map's tensor is copied; empty for all else.
    """

    name: str
    kind: Literal["pointer", "scalar", "tensor_map"]
    dtype: DType
    divisible_by_16: bool
    block: tuple[int, ...] = ()


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
    """A Triton kernel.

    ``name`` ends in a digest of the kernel's content and is the entry point in the compiled
    binary, the stem of its ``.ttir`` and of its readable source in ``sources/``. ``shard`` is where
    its TTIR is: ``shards/NN``. ``template`` is the hand-written template it was made from, or
    empty. ``config`` records the compile-time constants, for a reader.

    The programs of a ``cooperative`` kernel wait for each other: all of a grid must fit the device
    at once. One with ``launch_pdl`` may be started before the kernel ahead of it has ended, and
    waits for that itself before it touches memory (programmatic dependent launch).
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
    cooperative: bool = False
    launch_pdl: bool = False


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class CallSpec:
    """How arguments and results of the Python call nest: what ``treespec_dumps`` of
    ``torch.utils._pytree`` makes of ``(args, kwargs)`` and of the results. ``results`` are the
    paths of the leaves of ``out_spec``, in order: of outputs, and of what is in ``fixed``. Nothing
    that is built reads it but the interface of AOTInductor, which hands it to PyTorch."""

    in_spec: str
    out_spec: str
    results: tuple[str, ...]


@_strict
@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One model lowered for one target. ``target`` is the SASS target, such as ``sm_90``.

    ``constants`` are the buffers that ``folding`` writes and ``main`` reads. ``fixed`` is for a
    reader, and so are ``options``, those of lowering that held (wrapgen/options.py). Symbols occur
    in neither ``constants`` nor ``folding``.
    """

    schema_version: int
    target: str
    num_shards: int
    options: tuple[str, ...] = ()
    symbols: tuple[Symbol, ...]
    constraints: tuple[Constraint, ...] = ()
    inputs: tuple[InputSpec, ...]
    fixed: tuple[FixedInput, ...] = ()
    outputs: tuple[TensorSpec, ...]
    call_spec: CallSpec | None = None
    weights: tuple[Weight, ...]
    constants: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    folding: Procedure
    main: Procedure

    @property
    def tensor_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that are tensors, in order."""
        return tuple(spec for spec in self.inputs if isinstance(spec, TensorSpec))

    @property
    def scalar_inputs(self) -> tuple[ScalarSpec, ...]:
        """The inputs that are scalars, in order."""
        return tuple(spec for spec in self.inputs if isinstance(spec, ScalarSpec))

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
_STEP_TAGS: Final = ("launch", "copy", "fill", "if", "while")
_KIND_TAGS: Final = (*_STEP_TAGS, "pointer", "scalar", "tensor_map", "tensor")


def place(loc: Sequence[int | str]) -> str:
    """Spells a path into the file: ``("main", "steps", 3)`` is ``main.steps[3]``.

    pydantic puts the ``kind`` of a step, argument or input behind its index; that is left out.
    """
    text = ""
    for i, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (i and isinstance(loc[i - 1], int) and part in _KIND_TAGS):
            text += f".{part}" if text else part
    return text or "top level"


def integer_range(dtype: DType) -> tuple[int, int]:
    """The least and the greatest value of an integer type or bool, as far as numbers in program
    files go: they have a sign."""
    if dtype == DType.BOOL:
        return 0, 1
    bits = 8 * INFO[dtype].itemsize
    if dtype.startswith("uint"):
        return 0, min((1 << bits) - 1, expression.INT64_MAX)
    return -(1 << bits - 1), (1 << bits - 1) - 1


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
    from wrapgen.validation import faults_of  # needs the classes above

    faults = [f"{where}: {fault}" for fault in faults_of(program)]
    if faults:
        raise ProgramError("\n".join(faults))
