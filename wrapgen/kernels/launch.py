"""The launch of a kernel as lowering declared it, and the check that the TTIR agrees with it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Final

from wrapgen import target as targets
from wrapgen.dtype import DType, info
from wrapgen.kernels.errors import KernelCompileError, KernelResourceError
from wrapgen.target import Target

POINTER_BYTES: Final = 8
"""Size of a device address."""

TENSOR_MAP_BYTES: Final = 128
"""Size of a tensor's description for TMA, a ``CUtensorMap``, which is passed by value."""

MAX_ALIGNMENT: Final = 64
"""Bytes. No parameter is aligned to more; a tensor map is to this."""

MAX_WARPS: Final = 64
"""No device has blocks of more; what the declared device allows is checked after compilation."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_GRID_WAIT: Final = "griddepcontrol.wait"
_ATTRIBUTE: Final = re.compile(r"tt\.divisibility = (\d+)")


@dataclasses.dataclass(frozen=True)
class Param:
    """A run-time parameter of a kernel: a ``pointer``, ``scalar`` or ``tensor_map``.

    ``dtype`` is the pointee's for a pointer, an element's for a tensor map, whose blocks have the
    shape ``block``.
    """

    name: str
    kind: str
    dtype: DType
    divisible_by_16: bool
    block: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes the parameter takes in the kernel's parameter space."""
        fixed = {"pointer": POINTER_BYTES, "tensor_map": TENSOR_MAP_BYTES}
        return fixed.get(self.kind) or info(self.dtype).itemsize

    @property
    def ttir_type(self) -> str:
        """The parameter's type in TTIR, such as ``!tt.ptr<f16>`` or ``i32``."""
        element = info(self.dtype).ttir
        if self.kind == "scalar":
            return element
        if self.kind == "tensor_map":
            return f"!tt.tensordesc<tensor<{'x'.join(map(str, self.block))}x{element}>>"
        return f"!tt.ptr<{element}>"


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a kernel will be launched: block and cluster size, and the parameters in order.

    ``num_stages`` is the depth of software pipelining, ``maxnreg`` a limit on registers a thread
    or ``None``; both steer compilation only. With ``launch_pdl`` it may be started before the
    kernel ahead of it has ended. ``target`` is what the kernel was lowered for, where the file says
    so.
    """

    name: str
    ttir_sha256: str
    num_warps: int
    num_stages: int
    num_ctas: int
    params: tuple[Param, ...]
    maxnreg: int | None = None
    target: Target | None = None
    launch_pdl: bool = False

    @property
    def config(self) -> str:
        """The launch configuration in words, for messages."""
        text = f"num_warps={self.num_warps}, num_stages={self.num_stages}"
        if self.num_ctas != 1:
            text += f", num_ctas={self.num_ctas}"
        if self.maxnreg is not None:
            text += f", maxnreg={self.maxnreg}"
        return text


def load(path: Path) -> Launch:
    """Reads ``<kernel>.json``. Raises ``KernelCompileError`` naming the file and the field."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise KernelCompileError(f"{path}: not JSON: {error}") from error
    launch = parse(data, where=str(path))
    if launch.name != path.stem:
        raise KernelCompileError(
            f"{path}: name is {launch.name!r}: expected the stem of the file, {path.stem!r}"
        )
    return launch


def parse(data: Any, *, where: str) -> Launch:
    """Checks and converts the content of ``<kernel>.json``; ``where`` begins each message."""
    fields = _Fields(data, where)
    name = fields.text("name")
    if not _NAME.match(name):
        raise KernelCompileError(f"{where}: name is {name!r}: expected an identifier")
    digest = fields.text("ttir_sha256")
    num_warps = fields.integer("num_warps", 1, MAX_WARPS)
    if num_warps & (num_warps - 1):
        raise KernelCompileError(f"{where}: num_warps is {num_warps}: expected a power of two")
    launch = Launch(
        name=name,
        ttir_sha256=digest,
        num_warps=num_warps,
        num_stages=fields.integer("num_stages", 1, 64),
        num_ctas=fields.integer("num_ctas", 1, 16),
        params=tuple(
            _param(entry, f"{where}: params[{i}]") for i, entry in enumerate(fields.list("params"))
        ),
        maxnreg=fields.optional_integer("maxnreg", 1, 255),
        target=fields.optional_target("target"),
        launch_pdl=fields.optional_boolean("launch_pdl"),
    )
    fields.finish()
    return launch


def _param(data: Any, where: str) -> Param:
    fields = _Fields(data, where)
    kind = fields.text("kind")
    if kind not in ("pointer", "scalar", "tensor_map"):
        raise KernelCompileError(
            f"{where}: kind is {kind!r}: expected 'pointer', 'scalar' or 'tensor_map'"
        )
    dtype = fields.text("dtype")
    if dtype not in set(DType):
        known = ", ".join(DType)
        raise KernelCompileError(f"{where}: dtype is {dtype!r}: expected one of {known}")
    param = Param(
        name=fields.text("name"),
        kind=kind,
        dtype=DType(dtype),
        divisible_by_16=fields.boolean("divisible_by_16"),
        block=fields.sizes("block"),
    )
    fields.finish()
    if bool(param.block) != (kind == "tensor_map"):
        raise KernelCompileError(
            f"{where}: block is {list(param.block)}: expected the sizes of a tensor map's block, "
            "and none for another kind"
        )
    return param


class _Fields:
    """A JSON object being read: every field has a type, none is left over."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise KernelCompileError(f"{where}: {data!r}: expected an object")
        self._left = dict(data)
        self._where = where

    def text(self, key: str) -> str:
        return str(self._get(key, str, "a string"))

    def boolean(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def list(self, key: str) -> list[Any]:
        return list(self._get(key, list, "a list"))

    def sizes(self, key: str) -> tuple[int, ...]:
        """A list of positive integers; empty where there is none."""
        if self._absent(key):
            return ()
        values = self.list(key)
        if not all(isinstance(each, int) and each > 0 for each in values):
            self._refuse(key, values, "a list of positive integers")
        return tuple(values)

    def integer(self, key: str, low: int, high: int) -> int:
        value = self._get(key, int, f"an integer in {low}..{high}")
        if isinstance(value, bool) or not low <= value <= high:
            self._refuse(key, value, f"an integer in {low}..{high}")
        return int(value)

    def optional_boolean(self, key: str) -> bool:
        return False if self._absent(key) else self.boolean(key)

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        return None if self._absent(key) else self.integer(key, low, high)

    def optional_target(self, key: str) -> Target | None:
        if self._absent(key):
            return None
        try:
            return targets.parse(self.text(key))
        except targets.TargetError as error:
            raise KernelCompileError(f"{self._where}: {key}: {error}") from error

    def finish(self) -> None:
        if self._left:
            names = ", ".join(sorted(self._left))
            raise KernelCompileError(f"{self._where}: unknown field {names}")

    def _absent(self, key: str) -> bool:
        if self._left.get(key) is None:
            self._left.pop(key, None)
            return True
        return False

    def _get(self, key: str, kind: type, expected: str) -> Any:
        if key not in self._left:
            raise KernelCompileError(f"{self._where}: there is no {key}: expected {expected}")
        value = self._left.pop(key)
        if not isinstance(value, kind):
            self._refuse(key, value, expected)
        return value

    def _refuse(self, key: str, value: Any, expected: str) -> None:
        raise KernelCompileError(f"{self._where}: {key} is {value!r}: expected {expected}")


def check_resources(launch: Launch, target: Target) -> None:
    """Refuses at once what no compilation can help: too large a block, clusters, tensor maps or
    dependent launches where there are none. Raises ``KernelResourceError``.
    """
    device = target.device
    threads = device.warp_size * launch.num_warps
    if threads > device.max_threads_per_block:
        raise KernelResourceError(
            f"kernel {launch.name}: {launch.config} is impossible on {target} ({device.name}): "
            f"a block needs {threads} threads, the device has {device.max_threads_per_block}"
        )
    if launch.num_ctas > 1 and (target.kind != "sm" or target.capability < 90):
        raise KernelResourceError(
            f"kernel {launch.name}: {launch.config} is impossible on {target}: Triton makes "
            "clusters of blocks for sm_90 and later, and in no portable PTX"
        )
    maps = [param.name for param in launch.params if param.kind == "tensor_map"]
    if maps and (target.kind != "sm" or target.capability < 90):
        raise KernelResourceError(
            f"kernel {launch.name}: parameter {maps[0]!r} is impossible on {target}: a tensor is "
            "described to TMA hardware, for which Triton generates code from sm_90, and in no "
            "portable PTX; build for sm_90, or make the descriptor in the kernel "
            "(tl.make_tensor_descriptor)"
        )
    if launch.launch_pdl and (target.platform != "cuda" or target.capability < 90):
        raise KernelResourceError(
            f"kernel {launch.name}: launch_pdl is impossible on {target}: programmatic dependent "
            "launch came with compute capability 9.0"
        )


def check_ttir(launch: Launch, module: str) -> None:
    """Checks the function in ``module`` (MLIR text without locations) against the launch.

    Compares number, types and promised divisibility of the parameters. Raises
    ``KernelCompileError`` naming the kernel, the parameter, what was expected and what came.
    """
    declared = launch.params
    found = _ttir_params(launch.name, module)
    if len(found) != len(declared):
        raise KernelCompileError(
            f"kernel {launch.name}: the launch passes {len(declared)} parameters, "
            f"the TTIR function takes {len(found)}: {', '.join(kind for kind, _ in found)}"
        )
    for i, (param, (kind, divisibility)) in enumerate(zip(declared, found, strict=True)):
        at = f"kernel {launch.name}: parameter {i} ({param.name!r})"
        if kind != param.ttir_type:
            raise KernelCompileError(
                f"{at}: the launch passes a {param.kind} of {param.dtype}, that is, "
                f"{param.ttir_type}; the TTIR function takes {kind}"
            )
        assumed = divisibility % 16 == 0 and divisibility > 0
        if assumed != param.divisible_by_16:
            raise KernelCompileError(
                f"{at}: the launch {'promises' if param.divisible_by_16 else 'does not promise'} "
                f"a multiple of 16, the TTIR {'assumes' if assumed else 'does not assume'} one"
            )
    if launch.launch_pdl and _GRID_WAIT not in module:
        raise KernelCompileError(
            f"kernel {launch.name}: it is to be started before the kernel ahead of it has ended "
            "(launch_pdl), and never waits for that: call tl.extra.cuda.gdc_wait() before the "
            "first access of memory, or launch it without"
        )


def _ttir_params(name: str, module: str) -> list[tuple[str, int]]:
    """Returns type and divisibility (1 where nothing is promised) of each parameter."""
    start = module.find(f"tt.func public @{name}(")
    if start < 0:
        entries = re.findall(r"tt\.func public @([\w$.]+)\(", module)
        raise KernelCompileError(
            f"kernel {name}: the TTIR has no public function of that name, "
            f"only {', '.join(entries) or 'none'}"
        )
    text = _balanced(module, module.index("(", start))
    params = []
    for entry in _split(text):
        declaration = entry.split(":", 1)[1].strip()
        kind = declaration.split(" {", 1)[0].strip()
        match = _ATTRIBUTE.search(declaration)
        params.append((kind, int(match[1]) if match else 1))
    return params


def _balanced(text: str, start: int) -> str:
    """Returns what is between the parenthesis at ``start`` and the one that closes it."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in "([{<") - (text[i] in ")]}>" and text[i - 1] != "-")
        if depth == 0:
            return text[start + 1 : i]
    raise KernelCompileError("the TTIR function's parameter list does not end")


def _split(text: str) -> list[str]:
    """Splits at the commas that no bracket encloses."""
    parts, depth, begin = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{<") - (character in ")]}>" and text[i - 1] != "-")
        if character == "," and depth == 0:
            parts.append(text[begin:i])
            begin = i + 1
    if text[begin:].strip():
        parts.append(text[begin:])
    return parts
