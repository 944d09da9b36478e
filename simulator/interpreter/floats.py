"""Element types of TTIR as torch dtypes, and conversions between floating-point formats.

An 8-bit float is carried as its bits, in uint8: torch computes little with its own 8-bit types.
"""

from __future__ import annotations

from typing import Final

import torch

from simulator.interpreter.errors import InterpreterError

DTYPES: Final = {
    "i1": torch.bool,
    "i8": torch.int8,
    "i16": torch.int16,
    "i32": torch.int32,
    "i64": torch.int64,
    "index": torch.int64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
    "f8E4M3FN": torch.uint8,
    "f8E5M2": torch.uint8,
}

FLOAT8: Final = {"f8E4M3FN": torch.float8_e4m3fn, "f8E5M2": torch.float8_e5m2}

BITS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The signed integer type of so many bytes."""

_LARGEST: Final = {"f8E4M3FN": 448.0, "f8E5M2": 57344.0, "f16": 65504.0}


def dtype_of(element: str) -> torch.dtype:
    """The dtype that carries values of a TTIR element type."""
    if element not in DTYPES:
        raise InterpreterError(f"type {element} is not supported; known: {', '.join(DTYPES)}")
    return DTYPES[element]


def widen(value: torch.Tensor, source: str) -> torch.Tensor:
    """A floating-point value in at least float32, exactly."""
    if source in FLOAT8:
        return value.view(FLOAT8[source]).to(torch.float32)
    return value if value.dtype in (torch.float32, torch.float64) else value.to(torch.float32)


def convert(value: torch.Tensor, source: str, target: str, rounding: str = "rtne") -> torch.Tensor:
    """Converts between floating-point types.

    ``rounding`` is ``rtne`` (to nearest, ties to even) or ``rtz`` (toward zero). To an 8-bit type
    finite values and infinities saturate, as ``cvt.satfinite`` does, which Triton emits.
    """
    if source == target:
        return value
    wide = widen(value, source)
    if target in ("f32", "f64") and (target == "f64" or wide.dtype == torch.float32):
        return wide.to(dtype_of(target))
    if target in FLOAT8:
        wide = wide.to(torch.float32)
        largest = _LARGEST[target]
        rounded = wide.clamp(-largest, largest).to(FLOAT8[target])
        back = rounded.to(torch.float32)
        bits = rounded.view(torch.uint8)
        if rounding == "rtz":
            bits = torch.where(back.abs() > wide.abs(), bits - 1, bits)
        return bits
    rounded = wide.to(dtype_of(target))
    if rounding == "rtz":
        back = rounded.to(wide.dtype)
        carrier = BITS[rounded.dtype.itemsize]
        bits = rounded.view(carrier)
        # Sign and magnitude: one less is the next toward zero. An overflow becomes the largest.
        over = (back.abs() > wide.abs()) & ~wide.isinf()
        rounded = torch.where(over, bits - 1, bits).view(rounded.dtype)
    return rounded


def tf32(value: torch.Tensor) -> torch.Tensor:
    """float32 cut to the 10 mantissa bits of TF32.

    Triton rounds no operand of a plain ``tf32`` product: its PTX has no ``cvt.rna.tf32``. The
    tensor cores ignore the lower 13 bits.
    """
    bits = value.contiguous().view(torch.int32)
    return torch.where(value.isnan(), value, (bits & ~0x1FFF).view(torch.float32))
