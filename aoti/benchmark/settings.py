"""What the rule and the report tell the benchmark. The standard library alone."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aoti.testing import sizes
from aoti.testing.sizes import InputsError
from wrapgen import expression
from wrapgen.dtype import DLPACK_CODES, INFO, DType

_PATTERN: Final = 1 << 15
"""How many values are drawn for an input; a larger one has them again and again."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Attributes and files of an ``aoti_benchmark``; paths are relative to the working directory.

    ``kernels`` are directories, by program's target, with what the simulator runs; ``simulator``
    and ``executor`` are empty where the benchmark was built without it.
    """

    name: str
    device: str
    library: Path
    weights: Path
    report: Path
    timing_driver: Path
    simulator: str
    executor: str
    targets: tuple[str, ...]
    kernels: Mapping[str, tuple[Path, ...]]
    sizes: Mapping[str, tuple[int, ...]]
    input_ranges: Mapping[str, str]


def read(path: Path) -> Settings:
    """Reads what the rule has written."""
    value = json.loads(path.read_text(encoding="utf-8"))
    for field in ("library", "weights", "report", "timing_driver"):
        value[field] = Path(value[field])
    value["targets"] = tuple(value["targets"])
    value["kernels"] = {
        target: tuple(map(Path, directories)) for target, directories in value["kernels"].items()
    }
    return Settings(**value)


@dataclasses.dataclass(frozen=True)
class _Symbol:
    name: str
    minimum: int
    maximum: int


@dataclasses.dataclass(frozen=True)
class _Constraint:
    condition: str
    text: str


def combinations(
    report: Mapping[str, Any], asked: Mapping[str, Sequence[int]]
) -> list[dict[str, int]]:
    """The sizes to measure; raises ``InputsError`` as ``sizes.combinations`` does."""
    return sizes.combinations(
        [_Symbol(**symbol) for symbol in report["symbols"]],
        [_Constraint(**constraint) for constraint in report["constraints"]],
        asked,
    )


def cases(
    report: Mapping[str, Any],
    asked: Sequence[Mapping[str, int]],
    ranges: Mapping[str, str],
    scratch: Path,
) -> list[dict[str, Any]]:
    """Describes runs for ``measure.py``, and writes their inputs' bytes.

    Floating-point inputs are uniform from -1 to 1, integers from the range asked for, else 0 and 1.
    The values depend on the input's name alone.

    Raises:
      InputsError: a range is malformed, or of no input.
    """
    bounds = _ranges(ranges, [spec["name"] for spec in report["inputs"]])
    described = []
    for i, symbols in enumerate(asked):
        inputs = []
        for spec in report["inputs"]:
            entry = _tensor(spec, symbols)
            file = scratch / f"{i}-{spec['name']}.in"
            if spec["kind"] == "scalar":
                file.write_bytes(struct.pack("<q", symbols[spec["symbol"]]))
            else:
                pattern = _values(spec["name"], DType(spec["dtype"]), bounds.get(spec["name"]))
                repeats = -(-entry["nbytes"] // len(pattern))
                file.write_bytes((pattern * repeats)[: entry["nbytes"]])
            inputs.append(entry | {"file": str(file)})
        outputs = [_tensor(spec, symbols) for spec in report["outputs"]]
        described.append({"symbols": dict(symbols), "inputs": inputs, "outputs": outputs})
    return described


def _ranges(asked: Mapping[str, str], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    found = {}
    for name, text in asked.items():
        low, colon, high = text.partition(":")
        try:
            bounds = float(low), float(high)
        except ValueError:
            bounds = (0.0, 0.0)
        if not colon or not bounds[0] < bounds[1]:
            raise InputsError(f'input_ranges: {name}: "{text}" is no range such as "0:30522"')
        if name not in names:
            raise InputsError(
                f"input_ranges: there is no input {name!r}; the model's are: {', '.join(names)}"
            )
        found[name] = bounds
    return found


def _tensor(spec: Mapping[str, Any], symbols: Mapping[str, int]) -> dict[str, Any]:
    if spec["kind"] == "scalar":
        entry = {"kind": "scalar", "name": spec["name"], "shape": [], "strides": [], "nbytes": 8}
        return entry | {"itemsize": 8, "dlpack_code": DLPACK_CODES["kDLInt"]}
    info = INFO[DType(spec["dtype"])]
    shape = [expression.evaluate(size, symbols) for size in spec["shape"]]
    return {
        "kind": "tensor",
        "name": spec["name"],
        "shape": shape,
        "strides": [expression.evaluate(stride, symbols) for stride in spec["strides"]],
        "nbytes": 0 if 0 in shape else expression.evaluate(spec["nbytes"], symbols),
        "itemsize": info.itemsize,
        "dlpack_code": DLPACK_CODES[info.dlpack_code],
    }


def _values(name: str, dtype: DType, bounds: tuple[float, float] | None) -> bytes:
    """Bytes of ``_PATTERN`` values of a type."""
    draw = random.Random(name)  # noqa: S311 (inputs of a benchmark)
    if dtype == DType.BOOL:
        return bytes(draw.randrange(2) for _ in range(_PATTERN))
    if "int" in dtype:
        low, high = map(int, bounds or (0, 2))
        code = {1: "b", 2: "h", 4: "i", 8: "q"}[INFO[dtype].itemsize]
        code = code.upper() if dtype.startswith("u") else code
        return struct.pack(
            f"<{_PATTERN}{code}", *(draw.randrange(low, high) for _ in range(_PATTERN))
        )
    if dtype.startswith("float8"):
        # Small numbers of either sign: the exponent's highest bit is clear.
        return bytes(draw.randrange(0x40) | draw.choice((0, 0x80)) for _ in range(_PATTERN))
    low, high = bounds or (-1.0, 1.0)
    values = [draw.uniform(low, high) for _ in range(_PATTERN)]
    if dtype == DType.BFLOAT16:
        whole = struct.pack(f"<{_PATTERN}f", *values)
        return b"".join(whole[at + 2 : at + 4] for at in range(0, len(whole), 4))
    code = {DType.FLOAT16: "e", DType.FLOAT32: "f", DType.FLOAT64: "d"}[dtype]
    return struct.pack(f"<{_PATTERN}{code}", *values)
