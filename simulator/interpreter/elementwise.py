"""What one lane computes: the arith and math dialects on tensors of any, broadcastable, shapes.

Integers wrap around in their width. They have no sign: torch's signed types carry them, and the
operations that read them as unsigned say so in their name. Floating-point operations round once in
their own type. A GPU contracts some products and sums to one operation and approximates division
and transcendental functions to a few units in the last place; here they are computed apart and as
precisely as torch does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
import torch

from simulator.interpreter.floats import convert, dtype_of, widen
from simulator.interpreter.ttir import Op

Tensor: TypeAlias = torch.Tensor
Function: TypeAlias = Callable[..., Any]


def width(value: Tensor) -> int:
    """Bits of an integer type."""
    return 1 if value.dtype == torch.bool else 8 * value.dtype.itemsize


def unsigned(value: Tensor) -> Tensor:
    """Integers of up to 32 bits read as unsigned, as int64."""
    if value.dtype == torch.bool:
        return value.to(torch.int64)
    return value.to(torch.int64) & ((1 << width(value)) - 1)


def _unsigned_numpy(value: Tensor) -> Any:
    return value.contiguous().numpy().view(np.uint64)


def _from_numpy(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value.view(np.int64)))


def flip_sign(value: Tensor) -> Tensor:
    """64-bit integers mapped so that signed comparison compares them as unsigned."""
    return value ^ torch.iinfo(torch.int64).min


# Integers.


def _add(a: Tensor, b: Tensor) -> Tensor:
    return a ^ b if a.dtype == torch.bool else a + b


def _sub(a: Tensor, b: Tensor) -> Tensor:
    return a ^ b if a.dtype == torch.bool else a - b


def _mul(a: Tensor, b: Tensor) -> Tensor:
    return a & b if a.dtype == torch.bool else a * b


def _divisor(b: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A divisor that no division traps on, where it was 0, and where it was -1."""
    zero: Tensor | None = b == 0
    minus: Tensor | None = b == -1
    if zero is not None and not zero.any():
        zero = None
    if minus is not None and not minus.any():
        minus = None
    if zero is not None:
        b = torch.where(zero, torch.ones_like(b), b)
    if minus is not None:
        b = torch.where(minus, torch.ones_like(b), b)
    return b, zero, minus


def div_signed(a: Tensor, b: Tensor) -> Tensor:
    """Truncates. Division by 0, which is undefined, gives -1; the least number by -1 wraps."""
    if a.dtype == torch.bool:
        return a & b
    safe, zero, minus = _divisor(b)
    result = torch.div(a, safe, rounding_mode="trunc")
    if minus is not None:
        result = torch.where(minus, -a, result)
    if zero is not None:
        result = torch.where(zero, torch.full_like(result, -1), result)
    return result


def rem_signed(a: Tensor, b: Tensor) -> Tensor:
    """The remainder with the dividend's sign; of a division by 0, the dividend."""
    if a.dtype == torch.bool:
        return a & ~b
    safe, zero, minus = _divisor(b)
    result = torch.fmod(a, safe)
    if minus is not None:
        result = torch.where(minus, torch.zeros_like(result), result)
    if zero is not None:
        result = torch.where(zero, a, result)
    return result


def div_unsigned(a: Tensor, b: Tensor) -> Tensor:
    """Division by 0 gives all ones."""
    if a.dtype == torch.int64:
        x, y = np.broadcast_arrays(_unsigned_numpy(a), _unsigned_numpy(b))
        zero = y == 0
        return _from_numpy(np.where(zero, np.uint64(2**64 - 1), x // np.where(zero, 1, y)))
    return div_signed(unsigned(a), unsigned(b)).to(a.dtype)


def rem_unsigned(a: Tensor, b: Tensor) -> Tensor:
    """The remainder; of a division by 0, the dividend."""
    if a.dtype == torch.int64:
        x, y = np.broadcast_arrays(_unsigned_numpy(a), _unsigned_numpy(b))
        zero = y == 0
        return _from_numpy(np.where(zero, x, x % np.where(zero, 1, y)))
    return rem_signed(unsigned(a), unsigned(b)).to(a.dtype)


def _floor_div(a: Tensor, b: Tensor) -> Tensor:
    quotient = div_signed(a, b)
    rest = a - quotient * b
    return quotient - ((rest != 0) & ((rest < 0) != (b < 0))).to(a.dtype)


def _ceil_div(a: Tensor, b: Tensor) -> Tensor:
    quotient = div_signed(a, b)
    rest = a - quotient * b
    return quotient + ((rest != 0) & ((rest < 0) == (b < 0))).to(a.dtype)


def _ceil_div_unsigned(a: Tensor, b: Tensor) -> Tensor:
    return div_unsigned(a, b) + (rem_unsigned(a, b) != 0).to(a.dtype)


def shift_left(a: Tensor, b: Tensor) -> Tensor:
    """Nothing is left where the distance is the width or more."""
    over = unsigned_at_least(b, width(a))
    return torch.where(over, torch.zeros_like(a), a << torch.where(over, torch.zeros_like(b), b))


def shift_right_signed(a: Tensor, b: Tensor) -> Tensor:
    """Shifts in copies of the sign."""
    over = unsigned_at_least(b, width(a))
    return a >> torch.where(over, torch.full_like(b, width(a) - 1), b)


def shift_right_unsigned(a: Tensor, b: Tensor) -> Tensor:
    """Shifts in zeros; nothing is left where the distance is the width or more."""
    bits = width(a)
    over = unsigned_at_least(b, bits)
    safe = torch.where(over, torch.zeros_like(b), b)
    if bits < 64:
        shifted = (unsigned(a) >> safe.to(torch.int64)).to(a.dtype)
    else:
        keep = torch.where(safe > 0, (1 << (64 - safe.clamp(min=1))) - 1, torch.full_like(safe, -1))
        shifted = (a >> safe) & keep
    return torch.where(over, torch.zeros_like(shifted), shifted)


def unsigned_at_least(value: Tensor, limit: int) -> Tensor:
    """Whether values read as unsigned are ``limit`` or more; ``limit`` fits a signed type."""
    return (value < 0) | (value >= limit)


def mul_high_unsigned(a: Tensor, b: Tensor) -> Tensor:
    """The upper half of the unsigned product."""
    bits = width(a)
    if bits < 64:
        product = unsigned(a) * unsigned(b)
        return ((product >> bits) & ((1 << bits) - 1)).to(a.dtype)
    mask = (1 << 32) - 1
    a_low, a_high = a & mask, (a >> 32) & mask
    b_low, b_high = b & mask, (b >> 32) & mask
    low = a_low * b_low
    mid = a_high * b_low + ((low >> 32) & mask)
    mid2 = a_low * b_high + (mid & mask)
    return a_high * b_high + ((mid >> 32) & mask) + ((mid2 >> 32) & mask)


def mul_high_signed(a: Tensor, b: Tensor) -> Tensor:
    """The upper half of the signed product."""
    bits = width(a)
    if bits < 64:
        return ((a.to(torch.int64) * b.to(torch.int64)) >> bits).to(a.dtype)
    high = mul_high_unsigned(a, b)
    return high - torch.where(a < 0, b, 0) - torch.where(b < 0, a, 0)


def _max_unsigned(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(compare_unsigned("ge", a, b), a, b)


def _min_unsigned(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(compare_unsigned("le", a, b), a, b)


_COMPARE: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
}


def compare_unsigned(relation: str, a: Tensor, b: Tensor) -> Tensor:
    """``lt``, ``le``, ``gt``, ``ge``, ``eq`` or ``ne`` of values read as unsigned."""
    if a.dtype == torch.int64:
        return _COMPARE[relation](flip_sign(a), flip_sign(b))
    return _COMPARE[relation](unsigned(a), unsigned(b))


def _cmpi(op: Op) -> Function:
    predicate = op.words[0]
    if predicate in ("eq", "ne"):
        return _COMPARE[predicate]
    relation = predicate[1:]
    if predicate[0] == "u":
        return lambda a, b: compare_unsigned(relation, a, b)

    def signed(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype == torch.bool:  # true is -1
            a, b = -a.to(torch.int8), -b.to(torch.int8)
        return _COMPARE[relation](a, b)

    return signed


def _unordered(a: Tensor, b: Tensor) -> Tensor:
    return a.isnan() | b.isnan()


_CMPF: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "oeq": torch.eq,
    "ogt": torch.gt,
    "oge": torch.ge,
    "olt": torch.lt,
    "ole": torch.le,
    "one": lambda a, b: (a < b) | (a > b),
    "ord": lambda a, b: ~_unordered(a, b),
    "ueq": lambda a, b: ~((a < b) | (a > b)),
    "ugt": lambda a, b: ~(a <= b),
    "uge": lambda a, b: ~(a < b),
    "ult": lambda a, b: ~(a >= b),
    "ule": lambda a, b: ~(a > b),
    "une": torch.ne,
    "uno": _unordered,
    "false": lambda a, b: torch.zeros_like(a == b),
    "true": lambda a, b: torch.ones_like(a == b),
}


def _mul_extended(op: Op) -> Function:
    high = mul_high_signed if op.name == "arith.mulsi_extended" else mul_high_unsigned
    return lambda a, b: (a * b, high(a, b))


def _add_extended(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    total = a + b
    return total, compare_unsigned("lt", total, a)


def count_ones(a: Tensor) -> Tensor:
    """How many bits are 1."""
    count = torch.zeros_like(a)
    for i in range(width(a)):
        count = count + ((a >> i) & 1)
    return count


def leading_zeros(a: Tensor) -> Tensor:
    """Zeros above the highest 1."""
    bits = width(a)
    count = torch.full_like(a, bits)
    for i in range(bits):
        count = torch.where(((a >> i) & 1) != 0, torch.full_like(a, bits - 1 - i), count)
    return count


def trailing_zeros(a: Tensor) -> Tensor:
    """Zeros below the lowest 1."""
    bits = width(a)
    count = torch.full_like(a, bits)
    for i in reversed(range(bits)):
        count = torch.where(((a >> i) & 1) != 0, torch.full_like(a, i), count)
    return count


# Conversions.


def int_to_float(value: Tensor, target: torch.dtype, *, signed: bool) -> Tensor:
    """Rounds to nearest even."""
    if value.dtype == torch.bool:
        value = value.to(torch.int32) * (-1 if signed else 1)
    elif not signed:
        if value.dtype == torch.int64:
            # Through float64 rounds twice, so from numpy's unsigned type directly.
            wide = torch.from_numpy(
                _unsigned_numpy(value).astype(np.float64 if target.itemsize == 8 else np.float32)
            )
            return wide.to(target)
        value = unsigned(value)
    return value.to(target)


def float_to_int(value: Tensor, target: torch.dtype, *, signed: bool) -> Tensor:
    """Truncates; out of range saturates and NaN becomes 0, as PTX's ``cvt.rzi`` defines it.

    To less than 32 bits it goes through 32, whose lower bits remain, as Triton's code does.
    """
    bits = 8 * target.itemsize if target != torch.bool else 1
    wide = value.to(torch.float64)
    if bits > 32:
        low, high = (-(2.0**63), 2.0**63) if signed else (0.0, 2.0**64)
    else:
        low, high = (-(2.0**31), 2.0**31 - 1) if signed else (0.0, 2.0**32 - 1)
    wide = torch.nan_to_num(wide, nan=0.0, posinf=high, neginf=low).clamp(low, high).trunc()
    if bits <= 32:
        result = wide.to(torch.int64)
        return (result & 1).to(torch.bool) if bits == 1 else result.to(target)
    if signed:
        top = wide >= high
        return torch.where(top, torch.iinfo(torch.int64).max, torch.where(top, 0, wide).long())
    upper = wide >= 2.0**63
    lower = torch.where(upper, wide - 2.0**63, wide)
    full = lower >= 2.0**63
    result = torch.where(full, 0.0, lower).long()
    result = torch.where(upper, result ^ torch.iinfo(torch.int64).min, result)
    return torch.where(full, torch.full_like(result, -1), result)


def extend(value: Tensor, target: torch.dtype, *, signed: bool) -> Tensor:
    """To a wider integer type, with copies of the sign or zeros."""
    if value.dtype == torch.bool:
        return -value.to(target) if signed else value.to(target)
    if signed:
        return value.to(target)
    return unsigned(value).to(target)


def truncate(value: Tensor, target: torch.dtype) -> Tensor:
    """The lower bits."""
    if target == torch.bool:
        return (value & 1).to(torch.bool)
    return value.to(target)


def _cast(make: Callable[[str, str], Function]) -> Callable[[Op], Function]:
    return lambda op: make(op.types[0].element, op.result_types[0].element)


def _convert(op: Op) -> Function:
    source, target = op.types[0].element, op.result_types[0].element
    rounding = op.attributes.get("rounding", op.attributes.get("roundingmode", "rtne"))
    for word in op.words:
        if word == "to_nearest_even":
            rounding = "rtne"
        elif word == "toward_zero":
            rounding = "rtz"
    if rounding not in ("rtne", "rtz"):
        raise NotImplementedError(f"rounding {rounding}")
    return lambda a: convert(a, source, target, rounding)


def bitcast(value: Tensor, target: torch.dtype) -> Tensor:
    """The same bits as another type of the same size."""
    if value.dtype == target:
        return value
    return value.contiguous().view(target)


# Floating point.


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """One rounding, except for float64, which has two here."""
    if a.dtype == torch.float64:
        return a * b + c
    return (a.double() * b.double() + c.double()).to(a.dtype)


def _clamp(op: Op) -> Function:
    propagate = op.attributes.get("propagateNan", "none") == "all"

    def clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        if propagate:
            return torch.minimum(torch.maximum(x, low), high)
        return torch.fmin(torch.fmax(x, low), high)

    return clamp


def _wide(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """For functions that torch does not have in half precision."""

    def call(a: Tensor) -> Tensor:
        return function(widen(a, "")).to(a.dtype)

    return call


def round_half_away(a: Tensor) -> Tensor:
    """To the nearest integer, ties away from zero."""
    # trunc(x + copysign(0.5, x)) is wrong just below 0.5.
    whole = a.trunc()
    return torch.where((a - whole).abs() >= 0.5, whole + torch.sign(a), whole)


def _fpowi(a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b.to(a.dtype))


def _plain(function: Function) -> Callable[[Op], Function]:
    return lambda op: function


def select(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where true. A scalar condition, of shape [programs], chooses whole tensors."""
    if condition.dim() < a.dim() or condition.dim() < b.dim():
        rank = max(a.dim(), b.dim())
        condition = condition.reshape(condition.shape + (1,) * (rank - condition.dim()))
    return torch.where(condition, a, b)


_UNARY: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "arith.negf": torch.neg,
    "math.absf": torch.abs,
    "math.absi": torch.abs,
    "math.acos": torch.acos,
    "math.acosh": torch.acosh,
    "math.asin": torch.asin,
    "math.asinh": torch.asinh,
    "math.atan": torch.atan,
    "math.atanh": torch.atanh,
    "math.cbrt": lambda a: torch.sign(a) * torch.pow(a.abs().double(), 1 / 3).to(a.dtype),
    "math.ceil": torch.ceil,
    "math.cos": torch.cos,
    "math.cosh": torch.cosh,
    "math.ctlz": leading_zeros,
    "math.ctpop": count_ones,
    "math.cttz": trailing_zeros,
    "math.erf": torch.erf,
    "math.erfc": torch.erfc,
    "math.exp": torch.exp,
    "math.exp2": torch.exp2,
    "math.expm1": torch.expm1,
    "math.floor": torch.floor,
    "math.isfinite": torch.isfinite,
    "math.isinf": torch.isinf,
    "math.isnan": torch.isnan,
    "math.log": torch.log,
    "math.log10": torch.log10,
    "math.log1p": torch.log1p,
    "math.log2": torch.log2,
    "math.round": round_half_away,
    "math.roundeven": torch.round,
    "math.rsqrt": torch.rsqrt,
    "math.sin": torch.sin,
    "math.sinh": torch.sinh,
    "math.sqrt": torch.sqrt,
    "math.tan": torch.tan,
    "math.tanh": torch.tanh,
    "math.trunc": torch.trunc,
    "tt.precise_sqrt": torch.sqrt,
}

_BINARY: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "arith.addf": torch.add,
    "arith.addi": _add,
    "arith.andi": torch.bitwise_and,
    "arith.ceildivsi": _ceil_div,
    "arith.ceildivui": _ceil_div_unsigned,
    "arith.divf": torch.div,
    "arith.divsi": div_signed,
    "arith.divui": div_unsigned,
    "arith.floordivsi": _floor_div,
    "arith.maximumf": torch.maximum,
    "arith.maxnumf": torch.fmax,
    "arith.maxsi": torch.maximum,
    "arith.maxui": _max_unsigned,
    "arith.minimumf": torch.minimum,
    "arith.minnumf": torch.fmin,
    "arith.minsi": torch.minimum,
    "arith.minui": _min_unsigned,
    "arith.mulf": torch.mul,
    "arith.muli": _mul,
    "arith.ori": torch.bitwise_or,
    "arith.remf": torch.fmod,
    "arith.remsi": rem_signed,
    "arith.remui": rem_unsigned,
    "arith.shli": shift_left,
    "arith.shrsi": shift_right_signed,
    "arith.shrui": shift_right_unsigned,
    "arith.subf": torch.sub,
    "arith.subi": _sub,
    "arith.xori": torch.bitwise_xor,
    "math.atan2": torch.atan2,
    "math.copysign": torch.copysign,
    "math.fpowi": _fpowi,
    "math.powf": torch.pow,
    "tt.mulhiui": mul_high_unsigned,
    "tt.precise_divf": torch.div,
}

_MADE: Final[dict[str, Callable[[Op], Function]]] = {
    "arith.addui_extended": _plain(_add_extended),
    "arith.bitcast": _cast(lambda s, t: lambda a: bitcast(a, dtype_of(t))),
    "arith.cmpf": lambda op: _CMPF[op.words[0]],
    "arith.cmpi": _cmpi,
    "arith.extf": _convert,
    "arith.extsi": _cast(lambda s, t: lambda a: extend(a, dtype_of(t), signed=True)),
    "arith.extui": _cast(lambda s, t: lambda a: extend(a, dtype_of(t), signed=False)),
    "arith.fptosi": _cast(
        lambda s, t: lambda a: float_to_int(widen(a, s), dtype_of(t), signed=True)
    ),
    "arith.fptoui": _cast(
        lambda s, t: lambda a: float_to_int(widen(a, s), dtype_of(t), signed=False)
    ),
    "arith.index_cast": _cast(lambda s, t: lambda a: a.to(dtype_of(t))),
    "arith.index_castui": _cast(lambda s, t: lambda a: extend(a, dtype_of(t), signed=False)),
    "arith.mulsi_extended": _mul_extended,
    "arith.mului_extended": _mul_extended,
    "arith.sitofp": _cast(lambda s, t: lambda a: int_to_float(a, dtype_of(t), signed=True)),
    "arith.truncf": _convert,
    "arith.trunci": _cast(lambda s, t: lambda a: truncate(a, dtype_of(t))),
    "arith.uitofp": _cast(lambda s, t: lambda a: int_to_float(a, dtype_of(t), signed=False)),
    "math.clampf": _clamp,
    "math.fma": _plain(fma),
    "math.sincos": _plain(lambda a: (torch.sin(a), torch.cos(a))),
    "tt.clampf": _clamp,
    "tt.fp_to_fp": _convert,
}

ELEMENTWISE: Final[dict[str, Callable[[Op], Function]]] = (
    {name: _plain(function) for name, function in _UNARY.items()}
    | {name: _plain(function) for name, function in _BINARY.items()}
    | _MADE
)
"""By operation: a function that makes, of an ``Op``, the function of its operands' values."""

REDUCTIONS: Final[dict[str, Callable[[Tensor, int], Tensor]]] = {
    "arith.addi": lambda a, axis: a.sum(axis, dtype=a.dtype),
    "arith.maximumf": lambda a, axis: a.amax(axis),
    "arith.maxsi": lambda a, axis: a.amax(axis),
    "arith.minimumf": lambda a, axis: a.amin(axis),
    "arith.minsi": lambda a, axis: a.amin(axis),
    "arith.maxnumf": lambda a, axis: _ignoring_nan(a, axis, -math.inf, torch.amax),
    "arith.minnumf": lambda a, axis: _ignoring_nan(a, axis, math.inf, torch.amin),
}
"""Reductions that torch does at once, by the operation they combine with. For a float32 sum see
``execute``: torch's order of additions is as good as any."""


def _ignoring_nan(a: Tensor, axis: int, neutral: float, function: Any) -> Tensor:
    nan = a.isnan()
    if not nan.any():
        return function(a, axis)
    result = function(torch.where(nan, neutral, a), axis)
    return torch.where(nan.all(axis), math.nan, result)
