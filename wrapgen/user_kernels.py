"""The format of user-defined Triton kernels: data that export writes and lowering reads.

A Triton kernel is Python, and no step behind export runs Python of the user's. So export runs
Triton's front end, once for each configuration and each known target, and what travels with the
graph is TTIR: text that Triton parses and nothing evaluates. A call in the graph is a node of
``wrapgen::triton_kernel`` (``wrapgen/user_kernel_op.py``), which names its kernel by a digest.

A reader trusts nothing: ``parse`` checks every field, and ``TTIR`` may hold no operation that
reaches outside the kernel.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from wrapgen.dtype import INFO, DType
from wrapgen.target import KNOWN

MEMBER: Final = "wrapgen_triton_kernels.json"
"""The file's name among the archive's extra files."""

FORMAT: Final = 2

ENTRY: Final = "kernel"
"""What the function is called in the TTIR; lowering gives it its name."""

OPERATOR: Final = "torch.ops.wrapgen.triton_kernel.default"

OPERANDS: Final = ("written", "read", "ints", "floats")
"""The lists of a call's arguments that a parameter may come from, as the operator names them."""

IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\.[0-9a-f]{16}\Z")
_MAX_TTIR: Final = 16 << 20
_MAX_SOURCE: Final = 1 << 20


class KernelFormatError(ValueError):
    """The kernels are not in this format. The message names the place, what was expected, what
    came."""


@dataclasses.dataclass(frozen=True)
class Param:
    """A parameter that a call passes.

    ``operand`` and ``index`` say which of the call's arguments it is. ``dtype`` is the pointee's
    for a pointer (``written``, ``read``). ``aligned`` is whether Triton would specialise the
    kernel on the address or number being a multiple of 16.

    With a ``block`` it is a tensor map: of a tensor, read and written in blocks of that shape. The
    parameters behind it are the tensor's sizes and strides. ``padding`` and ``round_to_tf32`` are
    as in ``wrapgen.program.TensorMapArg``.
    """

    name: str
    operand: str
    index: int
    dtype: DType
    aligned: bool
    block: tuple[int, ...] = ()
    padding: str = "zero"
    round_to_tf32: bool = False

    @property
    def pointer(self) -> bool:
        """Whether it is an address, or describes what is there."""
        return self.operand in ("written", "read")

    @property
    def ttir_type(self) -> str:
        """The parameter's type in TTIR, such as ``!tt.ptr<f16>`` or ``i32``."""
        element = INFO[self.dtype].ttir
        if self.block:
            return f"!tt.tensordesc<tensor<{'x'.join(map(str, self.block))}x{element}>>"
        return f"!tt.ptr<{element}>" if self.pointer else element


@dataclasses.dataclass(frozen=True)
class Build:
    """A configuration for one target: the digest of its TTIR, and how it is launched."""

    ttir: str
    num_warps: int
    num_stages: int
    num_ctas: int


@dataclasses.dataclass(frozen=True)
class Config:
    """A configuration: its compile-time constants, for a reader, and its build by target."""

    constants: Mapping[str, int | str | bool | None]
    builds: Mapping[str, Build]


@dataclasses.dataclass(frozen=True)
class UserKernel:
    """A kernel specialised for a kind of call.

    ``file`` is the one that defines it, ``source`` what a reader is shown: without comments, as one
    more of those makes no other kernel. A call has three numbers of programs for each of
    ``configs``, in order. ``cooperative`` and ``launch_pdl`` are as in ``wrapgen.program.Kernel``.
    """

    name: str
    file: str
    source: str
    params: tuple[Param, ...]
    configs: tuple[Config, ...]
    cooperative: bool = False
    launch_pdl: bool = False


@dataclasses.dataclass(frozen=True)
class UserKernels:
    """All kernels of a model by the key that calls name, and TTIR by SHA-256."""

    kernels: Mapping[str, UserKernel]
    ttir: Mapping[str, str]


NONE: Final = UserKernels({}, {})


def key_of(kernel: UserKernel) -> str:
    """What a call names the kernel by: a function of its content."""
    text = json.dumps(_kernel_data(kernel), sort_keys=True)
    return f"{kernel.name}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def data(found: UserKernels) -> dict[str, Any]:
    """The kernels as plain lists, dicts, strings and integers, for JSON."""
    return {
        "format": FORMAT,
        "kernels": {key: _kernel_data(kernel) for key, kernel in found.kernels.items()},
        "ttir": dict(found.ttir),
    }


def _kernel_data(kernel: UserKernel) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "file": kernel.file,
        "source": kernel.source,
        "params": [
            dataclasses.asdict(param) | {"dtype": str(param.dtype), "block": list(param.block)}
            for param in kernel.params
        ],
        "configs": [
            {
                "constants": dict(config.constants),
                "builds": {
                    target: dataclasses.asdict(build) for target, build in config.builds.items()
                },
            }
            for config in kernel.configs
        ],
        "cooperative": kernel.cooperative,
        "launch_pdl": kernel.launch_pdl,
    }


def parse(value: Any, where: str) -> UserKernels:
    """Checks what ``data`` gave, from a stranger; ``where`` begins each message.

    Raises:
      KernelFormatError: at the first fault.
    """
    top = _Fields(value, where)
    version = top.integer("format", 0, 1 << 30)
    if version != FORMAT:
        raise KernelFormatError(
            f"{where}: format is {version}, this wrapgen reads {FORMAT}; export the model again"
        )
    ttir = {}
    for digest, text in top.items("ttir", _DIGEST):
        ttir[digest] = _checked_ttir(text, digest, f"{where}: ttir.{digest[:12]}")
    kernels = {
        key: _parse_kernel(entry, ttir, f"{where}: kernels.{key}")
        for key, entry in top.items("kernels", _KEY)
    }
    top.finish()
    for key, kernel in kernels.items():
        if key_of(kernel) != key:
            raise KernelFormatError(
                f"{where}: kernels.{key}: its content has the key {key_of(kernel)}"
            )
    return UserKernels(kernels, ttir)


def _parse_kernel(value: Any, ttir: Mapping[str, str], where: str) -> UserKernel:
    fields = _Fields(value, where)
    kernel = UserKernel(
        name=fields.text("name", IDENTIFIER),
        file=fields.line("file"),
        source=fields.source("source"),
        params=tuple(
            _parse_param(entry, f"{where}.params[{i}]")
            for i, entry in enumerate(fields.entries("params"))
        ),
        configs=tuple(
            _parse_config(entry, f"{where}.configs[{i}]")
            for i, entry in enumerate(fields.entries("configs"))
        ),
        cooperative=fields.boolean("cooperative"),
        launch_pdl=fields.boolean("launch_pdl"),
    )
    fields.finish()
    if not kernel.configs:
        raise KernelFormatError(f"{where}.configs: is empty: expected one or more")
    for i, param in enumerate(kernel.params):
        rank = len(param.block)
        behind = [(each.operand, each.dtype) for each in kernel.params[i + 1 : i + 1 + 2 * rank]]
        sizes, strides = ("ints", DType.INT32), ("ints", DType.INT64)
        if behind != [sizes] * rank + [strides] * rank:
            raise KernelFormatError(
                f"{where}.params[{i}]: expected its {rank} sizes and strides behind a tensor map"
            )
    names = [param.name for param in kernel.params]
    if len(set(names)) != len(names):
        raise KernelFormatError(f"{where}.params: two have the same name")
    for i, config in enumerate(kernel.configs):
        for target, build in config.builds.items():
            at = f"{where}.configs[{i}].builds.{target}"
            if build.ttir not in ttir:
                raise KernelFormatError(f"{at}.ttir: there is no TTIR {build.ttir[:12]}")
            _check_signature(kernel, ttir[build.ttir], at)
    return kernel


def _parse_param(value: Any, where: str) -> Param:
    fields = _Fields(value, where)
    operand = fields.text("operand", IDENTIFIER)
    if operand not in OPERANDS:
        raise KernelFormatError(
            f"{where}.operand: is {operand!r}: expected one of {', '.join(OPERANDS)}"
        )
    dtype = fields.text("dtype", IDENTIFIER)
    if dtype not in set(DType):
        raise KernelFormatError(f"{where}.dtype: is {dtype!r}: expected one of {', '.join(DType)}")
    param = Param(
        name=fields.text("name", IDENTIFIER),
        operand=operand,
        index=fields.integer("index", 0, 4095),
        dtype=DType(dtype),
        aligned=fields.boolean("aligned"),
        block=tuple(fields.entries("block")),
        padding=fields.text("padding", re.compile("zero|nan")),
        round_to_tf32=fields.boolean("round_to_tf32"),
    )
    if any(type(size) is not int or not 0 < size <= 1 << 20 for size in param.block):
        raise KernelFormatError(f"{where}.block: is {list(param.block)}: expected positive sizes")
    if param.block and not param.pointer:
        raise KernelFormatError(f"{where}.block: is {list(param.block)}, but it is no tensor")
    fields.finish()
    floating = "float" in param.dtype
    if not param.pointer and floating != (operand == "floats"):
        raise KernelFormatError(f"{where}: a parameter of type {dtype} is none of {operand}")
    return param


def _parse_config(value: Any, where: str) -> Config:
    fields = _Fields(value, where)
    constants: dict[str, int | str | bool | None] = {}
    for name, constant in fields.items("constants", IDENTIFIER):
        if constant is not None and not isinstance(constant, (bool, int, str)):
            raise KernelFormatError(
                f"{where}.constants.{name}: is {constant!r}: expected a number, a string or null"
            )
        if isinstance(constant, str) and (len(constant) > 512 or not constant.isprintable()):
            raise KernelFormatError(f"{where}.constants.{name}: expected one printable line")
        constants[name] = constant
    builds = {}
    for target, entry in fields.items("builds", re.compile(r"[a-z0-9_]{1,32}\Z")):
        at = f"{where}.builds.{target}"
        if target not in KNOWN:
            raise KernelFormatError(f"{at}: expected one of {', '.join(KNOWN)}")
        inner = _Fields(entry, at)
        builds[target] = Build(
            ttir=inner.text("ttir", _DIGEST),
            num_warps=inner.integer("num_warps", 1, 64),
            num_stages=inner.integer("num_stages", 0, 64),
            num_ctas=inner.integer("num_ctas", 1, 16),
        )
        inner.finish()
        if builds[target].num_warps & (builds[target].num_warps - 1):
            raise KernelFormatError(
                f"{at}.num_warps: is {builds[target].num_warps}: expected a power of two"
            )
    fields.finish()
    return Config(constants, builds)


_OPERATION: Final = re.compile(r"(?<![\w.!#%@\"$])([a-z_]+)\.([a-z_][\w.]*)")
_BARRIER: Final = "ttg.barrier"  # tl.debug_barrier: what the threads of a block wait for
_DIALECTS: Final = frozenset({"arith", "cf", "math", "scf", "tt", "ub"})
_ATTRIBUTES: Final = frozenset({"tt.divisibility", "tt.contiguity", "tt.constancy"})
REFUSED: Final = {
    "tt.assert": "device assertions (`tl.device_assert`) are not supported",
    "tt.print": "printing from a kernel (`tl.device_print`) is not supported",
}
"""Operations with an effect beside the kernel's own memory, and what is said of them."""


def ttir_fault(text: str) -> str:
    """What in a kernel's TTIR is not supported, a clause; empty if nothing is.

    Only operations of the dialects that Triton's front end writes may occur: no inline GPU dialect,
    no reference to a file (``libpath``).
    """
    stripped = re.sub(r'"(?:[^"\\]|\\.)*"', lambda match: _quoted(match[0]), text)
    for match in _OPERATION.finditer(stripped):
        name = f"{match[1]}.{match[2]}"
        if name in REFUSED:
            return REFUSED[name]
        if match[1] not in _DIALECTS and name != _BARRIER:
            return f"an operation {name[:40]!r} that is none of {', '.join(sorted(_DIALECTS))}"
    for match in re.finditer(r'libpath\s*=\s*"([^"]*)"', text):
        if match[1]:
            return "a reference to a library file"
    if text.count("tt.func ") != 1:
        return "functions that are not inlined (`noinline=True`)"
    return ""


def _quoted(text: str) -> str:
    """An operation in MLIR's generic form has its name in quotes; other strings say nothing."""
    name = text[1:-1]
    return f" {name}" if re.fullmatch(r"[a-z_]+\.[\w.]+", name) else '""'


def _checked_ttir(text: Any, digest: str, where: str) -> str:
    if not isinstance(text, str) or len(text) > _MAX_TTIR:
        raise KernelFormatError(f"{where}: expected a text of at most {_MAX_TTIR} characters")
    if hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != digest:
        raise KernelFormatError(f"{where}: the text has another SHA-256")
    if not text.isascii() or "\0" in text:
        raise KernelFormatError(f"{where}: expected ASCII text")
    fault = ttir_fault(text)
    if fault:
        raise KernelFormatError(f"{where}: {fault}")
    return text


_HEAD: Final = re.compile(rf"tt\.func public @{ENTRY}\((?P<params>[^\n]*)\) attributes ")
_PARAM: Final = re.compile(
    r"(%\w+): (!tt\.ptr<\w+>|!tt\.tensordesc<tensor<(?:\d+x)+\w+>>|\w+)(?=, %|\Z)"
)


def signature(text: str) -> list[tuple[str, str]]:
    """Name and type of each parameter of the TTIR function.

    Raises:
      KernelFormatError: it is not as ``capture`` writes it.
    """
    head = _HEAD.search(text)
    if head is None:
        raise KernelFormatError(f"the TTIR has no function {ENTRY!r} of plain parameters")
    found = [(match[1], match[2]) for match in _PARAM.finditer(head["params"])]
    if ", ".join(f"{name}: {kind}" for name, kind in found) != head["params"]:
        raise KernelFormatError(f"the TTIR has other parameters than plain ones: {head['params']}")
    return found


def _check_signature(kernel: UserKernel, text: str, where: str) -> None:
    try:
        found = [kind for _, kind in signature(text)]
    except KernelFormatError as error:
        raise KernelFormatError(f"{where}: {error}") from error
    expected = [param.ttir_type for param in kernel.params]
    if found != expected:
        raise KernelFormatError(
            f"{where}: the TTIR function takes ({', '.join(found)}), the parameters are "
            f"({', '.join(expected)})"
        )


def promised(text: str, name: str, divisible: tuple[bool, ...]) -> str:
    """The TTIR under its final name, with what a call promises of its parameters."""
    head = _HEAD.search(text)
    assert head is not None
    params = [
        f"{param}: {kind} {{tt.divisibility = 16 : i32}}" if is_divisible else f"{param}: {kind}"
        for (param, kind), is_divisible in zip(signature(text), divisible, strict=True)
    ]
    end = head.end("params")
    return (
        text[: head.start()]
        + f"tt.func public @{name}({', '.join(params)}"
        + text[end : head.end()]
        + text[head.end() :]
    )


class _Fields:
    """A JSON object being read: every field has a type, none is left over."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise KernelFormatError(f"{where}: expected an object, found {type(value).__name__}")
        self._left: dict[str, Any] = dict(value)
        self._where = where

    def _take(self, key: str, kind: type, expected: str) -> Any:
        if key not in self._left:
            raise KernelFormatError(f"{self._where}.{key}: is missing: expected {expected}")
        value = self._left.pop(key)
        if type(value) is not kind:
            raise KernelFormatError(
                f"{self._where}.{key}: expected {expected}, found {type(value).__name__}"
            )
        return value

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        value: str = self._take(key, str, "a string")
        if not pattern.match(value):
            raise KernelFormatError(f"{self._where}.{key}: {value[:80]!r} is not of that form")
        return value

    def line(self, key: str) -> str:
        value: str = self._take(key, str, "a string")
        if len(value) > 512 or not (value.isprintable()):
            raise KernelFormatError(f"{self._where}.{key}: expected one printable line")
        return value

    def source(self, key: str) -> str:
        value: str = self._take(key, str, "a string")
        if len(value) > _MAX_SOURCE or "\0" in value or "\r" in value:
            raise KernelFormatError(f"{self._where}.{key}: expected a text of plain lines")
        return value

    def boolean(self, key: str) -> bool:
        return bool(self._take(key, bool, "true or false"))

    def integer(self, key: str, low: int, high: int) -> int:
        value: int = self._take(key, int, f"an integer in {low}..{high}")
        if not low <= value <= high:
            raise KernelFormatError(
                f"{self._where}.{key}: is {value}: expected an integer in {low}..{high}"
            )
        return value

    def entries(self, key: str) -> list[Any]:
        return list(self._take(key, list, "a list"))

    def items(self, key: str, pattern: re.Pattern[str]) -> list[tuple[str, Any]]:
        found: dict[str, Any] = self._take(key, dict, "an object")
        for name in found:
            if not pattern.match(name):
                raise KernelFormatError(f"{self._where}.{key}: {name[:80]!r} is no key of it")
        return sorted(found.items())

    def finish(self) -> None:
        if self._left:
            raise KernelFormatError(f"{self._where}: unknown field {sorted(self._left)[0]!r}")
