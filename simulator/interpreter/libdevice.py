"""CUDA's device library: what ``tt.extern_elementwise`` calls, by symbol.

Names and meanings are those of the libdevice User's Guide. Results are as precise as torch computes
them, which is to within a few units in the last place, as libdevice is. Functions called ``fast``
are computed like their precise relatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias

import torch

from simulator.interpreter import elementwise as lanes
from simulator.interpreter.elementwise import unsigned

Tensor: TypeAlias = torch.Tensor
Function: TypeAlias = Callable[..., Tensor]


def _double(function: Function) -> Function:
    """Computes in float64 and rounds to the type of the first operand."""

    def call(*operands: Tensor) -> Tensor:
        wide = (o.double() if o.is_floating_point() else o for o in operands)
        return function(*wide).to(operands[0].dtype)

    return call


def _integer(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Function:
    """Rounds to an integral value with ``function``; then converts, saturating."""
    return lambda a: lanes.float_to_int(function(a), dtype, signed=True)


def _natural(function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Function:
    return lambda a: lanes.float_to_int(function(a), dtype, signed=False)


def _truth(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda a: function(a).to(torch.int32)


# Rounding in a direction: the nearest value, and the sign of what it lacks.


def _directed(nearest: Tensor, lacking: Tensor, mode: str) -> Tensor:
    """Moves a rounded result by one unit where ``mode`` (rn, rz, rd, ru) asks for it.

    ``lacking`` has the sign of the exact result minus ``nearest``.
    """
    if mode == "rn":
        return nearest
    up, down = lacking > 0, lacking < 0
    if mode == "rz":
        up, down = up & (nearest < 0), down & (nearest > 0)
    elif mode == "ru":
        down = torch.zeros_like(down)
    else:
        up = torch.zeros_like(up)
    infinity = torch.full_like(nearest, math.inf)
    result = torch.where(up, torch.nextafter(nearest, infinity), nearest)
    return torch.where(down, torch.nextafter(nearest, -infinity), result)


def _two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Product and rounding error (Dekker 1971), float64."""

    def halves(x: Tensor) -> tuple[Tensor, Tensor]:
        big = x * 134217729.0  # 2**27 + 1
        high = big - (big - x)
        return high, x - high

    product = a * b
    a_high, a_low = halves(a)
    b_high, b_low = halves(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and rounding error (Knuth, TAOCP 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _exact(name: str, *operands: Tensor) -> tuple[Tensor, Tensor]:
    """The result nearest in float64, and what it lacks."""
    a = operands[0]
    if name == "add":
        return _two_sum(a, operands[1])
    if name == "sub":
        return _two_sum(a, -operands[1])
    if name == "mul":
        return _two_product(a, operands[1])
    if name == "sqrt":
        root = torch.sqrt(a)
        square, error = _two_product(root, root)
        return root, (a - square) - error
    if name == "fma":
        product, error = _two_product(a, operands[1])
        total, rest = _two_sum(product, operands[2])
        return total, rest + error
    divisor = operands[1]
    quotient = a / divisor
    product, error = _two_product(quotient, divisor)
    return quotient, ((a - product) - error) * torch.sign(divisor)


def _rounded(name: str, mode: str) -> Function:
    """Arithmetic rounded as ``mode`` says, in the type of its operands."""

    def call(*operands: Tensor) -> Tensor:
        if name == "rcp":
            operands = (torch.ones_like(operands[0]), operands[0])
        wide = [operand.double() for operand in operands]
        result, lacking = _exact("div" if name == "rcp" else name, *wide)
        if operands[0].dtype == torch.float64:
            return _directed(result, lacking, mode)
        return narrow(result, mode, lacking)

    return call


def narrow(value: Tensor, mode: str, lacking: Tensor | None = None) -> Tensor:
    """float64 to float32."""
    nearest = value.float()
    rest = value - nearest.double()
    if lacking is not None:
        rest = torch.where(rest == 0, lacking, rest)
    rest = torch.where(nearest.isfinite() & value.isfinite(), rest, 0.0)
    over = nearest.isinf() & value.isfinite()
    return _directed(nearest, torch.where(over, -torch.sign(value), rest), mode)


def _from_integer(dtype: torch.dtype, mode: str, *, signed: bool) -> Function:
    def call(a: Tensor) -> Tensor:
        nearest = lanes.int_to_float(a, dtype, signed=signed)
        if mode == "rn":
            return nearest
        back = lanes.float_to_int(nearest, torch.int64, signed=signed)
        value = a if signed or a.dtype == torch.int64 else unsigned(a)
        return _directed(nearest, torch.sign(value.to(torch.int64) - back), mode)

    return call


_ROUND: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "rn": torch.round,
    "rz": torch.trunc,
    "rd": torch.floor,
    "ru": torch.ceil,
}


# Functions.


def _cbrt(a: Tensor) -> Tensor:
    root = torch.sign(a) * a.abs().pow(1 / 3)
    # One step of Newton's method; the power is a unit or two off.
    better = root - (root * root * root - a) / (3 * root * root)
    return torch.where((a == 0) | ~a.isfinite(), a, better)


def _gamma(a: Tensor) -> Tensor:
    magnitude = torch.exp(torch.lgamma(a))
    odd = (a < 0) & (torch.fmod(torch.floor(a), 2) != 0)
    whole = (a < 0) & (a == torch.floor(a))
    result = torch.where(odd, -magnitude, magnitude)
    result = torch.where(a == 0, 1 / a, result)
    return torch.where(whole | (a == -math.inf), math.nan, result)


def _erfcinv(a: Tensor) -> Tensor:
    return -torch.special.ndtri(a / 2) / math.sqrt(2)


def _sinpi(a: Tensor) -> Tensor:
    return torch.sin(math.pi * torch.fmod(a, 2))


def _cospi(a: Tensor) -> Tensor:
    rest = torch.fmod(a.abs(), 2)
    result = torch.cos(math.pi * rest)
    return torch.where((rest == 0.5) | (rest == 1.5), 0.0, result)


def _norm(*operands: Tensor) -> Tensor:
    infinite = torch.zeros_like(operands[0], dtype=torch.bool)
    total = torch.zeros_like(operands[0])
    for operand in operands:
        infinite = infinite | operand.isinf()
        total = total + operand * operand
    return torch.where(infinite, math.inf, torch.sqrt(total))


def _scale(a: Tensor, exponent: Tensor) -> Tensor:
    """``a * 2 ** exponent`` with one rounding: in steps that stay in range."""
    wide, rest = a.double(), exponent.to(torch.int64).clamp(-4400, 4400)
    for _ in range(5):
        step = rest.clamp(-1000, 1000)
        wide = wide * torch.exp2(step.double())
        rest = rest - step
    return wide.to(a.dtype)


def _exponent(a: Tensor) -> Tensor:
    """floor(log2(abs(a))), of finite values that are not zero."""
    return torch.frexp(a).exponent.to(torch.int32) - 1


def _ilogb(a: Tensor) -> Tensor:
    least, most = torch.iinfo(torch.int32).min, torch.iinfo(torch.int32).max
    result = torch.where((a == 0) | a.isnan(), least, _exponent(a))
    return torch.where(a.isinf(), most, result).to(torch.int32)


def _logb(a: Tensor) -> Tensor:
    result = torch.where(a == 0, -math.inf, _exponent(a).to(a.dtype))
    return torch.where(a.isfinite(), result, a.abs())


def _remainder(a: Tensor, b: Tensor) -> Tensor:
    """IEEE 754's: of the quotient rounded to nearest even."""
    size = b.abs()
    rest = torch.fmod(a.abs(), 2 * size)
    rest = torch.where(rest * 2 > size * 3, rest - 2 * size, rest)
    middle = (rest * 2 > size) & (rest * 2 <= size * 3)
    odd_tie = rest * 2 == size * 3
    rest = torch.where(middle & ~odd_tie, rest - size, rest)
    rest = torch.where(odd_tie, rest - 2 * size, rest)
    result = torch.where(a < 0, -rest, rest)
    return torch.where(b.isinf() & a.isfinite(), a, result)


def _jn(n: Tensor, x: Tensor) -> Tensor:
    """Bessel's function of the first kind: Miller's algorithm, downward (Abramowitz 9.12)."""
    n, x = torch.broadcast_tensors(n.to(torch.int64), x.double())
    top = int(n.abs().max()) if n.numel() else 0
    size = x.abs()
    start = 2 * ((max(top, int(torch.nan_to_num(size, posinf=0).max())) + 60) // 2)
    safe = torch.where(size == 0, 1.0, size)
    after, now = torch.zeros_like(x), torch.full_like(x, 1e-300)
    total, found = torch.zeros_like(x), torch.zeros_like(x)
    for k in range(start, 0, -1):
        before = 2 * k / safe * now - after
        after, now = now, before
        large = now.abs() > 1e200
        factor = torch.where(large, 1e-200, 1.0)
        after, now, total, found = (v * factor for v in (after, now, total, found))
        found = torch.where(n.abs() == k - 1, now, found)
        if (k - 1) % 2 == 0:
            total = total + (now if k == 1 else 2 * now)
    result = found / total
    result = torch.where(size == 0, (n == 0).double(), result)
    odd = n % 2 != 0
    return torch.where(odd & ((x < 0) != (n < 0)), -result, result)


def _yn(n: Tensor, x: Tensor) -> Tensor:
    """Bessel's function of the second kind by upward recurrence, which is stable for it."""
    n, x = torch.broadcast_tensors(n.to(torch.int64), x.double())
    before, now = torch.special.bessel_y0(x), torch.special.bessel_y1(x)
    result = torch.where(n == 0, before, now)
    for k in range(1, int(n.abs().max()) if n.numel() else 0):
        before, now = now, 2 * k / x * now - before
        result = torch.where(n.abs() == k + 1, now, result)
    return torch.where((n < 0) & (n % 2 != 0), -result, result)


def _order(function: Function) -> Function:
    return lambda n, x: function(n, x).to(x.dtype)


_FLOATING: Final[dict[str, Function]] = {
    "acos": torch.acos,
    "acosh": torch.acosh,
    "asin": torch.asin,
    "asinh": torch.asinh,
    "atan": torch.atan,
    "atan2": torch.atan2,
    "atanh": torch.atanh,
    "cbrt": _double(_cbrt),
    "ceil": torch.ceil,
    "copysign": torch.copysign,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "cospi": _double(_cospi),
    "cyl_bessel_i0": torch.special.modified_bessel_i0,
    "cyl_bessel_i1": torch.special.modified_bessel_i1,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfcinv": _double(_erfcinv),
    "erfcx": torch.special.erfcx,
    "erfinv": torch.erfinv,
    "exp": torch.exp,
    "exp10": _double(lambda a: torch.pow(10.0, a)),
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "fabs": torch.abs,
    "fdim": lambda a, b: torch.where(a <= b, torch.zeros_like(a), a - b),
    "floor": torch.floor,
    "fma": lanes.fma,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "fmod": torch.fmod,
    "hypot": _double(_norm),
    "ilogb": _ilogb,
    "j0": torch.special.bessel_j0,
    "j1": torch.special.bessel_j1,
    "jn": _order(_jn),
    "ldexp": _scale,
    "lgamma": torch.lgamma,
    "llrint": _integer(torch.round, torch.int64),
    "llround": _integer(lanes.round_half_away, torch.int64),
    "log": torch.log,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "logb": _logb,
    "nearbyint": torch.round,
    "nextafter": torch.nextafter,
    "norm3d": _double(_norm),
    "norm4d": _double(_norm),
    "normcdf": torch.special.ndtr,
    "normcdfinv": _double(torch.special.ndtri),
    "pow": torch.pow,
    "powi": lambda a, n: torch.pow(a.double(), n.double()).to(a.dtype),
    "rcbrt": _double(lambda a: 1 / _cbrt(a)),
    "remainder": _remainder,
    "rhypot": _double(lambda *o: 1 / _norm(*o)),
    "rint": torch.round,
    "rnorm3d": _double(lambda *o: 1 / _norm(*o)),
    "rnorm4d": _double(lambda *o: 1 / _norm(*o)),
    "round": lanes.round_half_away,
    "rsqrt": torch.rsqrt,
    "scalbn": _scale,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sinpi": _double(_sinpi),
    "sqrt": torch.sqrt,
    "tan": torch.tan,
    "tanh": torch.tanh,
    "tgamma": _double(_gamma),
    "trunc": torch.trunc,
    "y0": torch.special.bessel_y0,
    "y1": torch.special.bessel_y1,
    "yn": _order(_yn),
}
"""``NAME`` takes float64, ``NAMEf`` float32."""

_FAST: Final[dict[str, Function]] = {
    "cosf": torch.cos,
    "exp10f": _double(lambda a: torch.pow(10.0, a)),
    "expf": torch.exp,
    "fdividef": torch.div,
    "log10f": torch.log10,
    "log2f": torch.log2,
    "logf": torch.log,
    "powf": torch.pow,
    "sinf": torch.sin,
    "tanf": torch.tan,
    "tanhf": torch.tanh,
}


def _bits_reversed(a: Tensor) -> Tensor:
    result = torch.zeros_like(a)
    bits = lanes.width(a)
    for i in range(bits):
        result = result | (((a >> i) & 1) << (bits - 1 - i))
    return result


def _first_set(a: Tensor) -> Tensor:
    return torch.where(a == 0, 0, lanes.trailing_zeros(a) + 1).to(torch.int32)


def _byte_perm(a: Tensor, b: Tensor, selector: Tensor) -> Tensor:
    """Bytes 0 to 3 of ``a`` and 4 to 7 of ``b``, chosen by the selector's nibbles."""
    both = unsigned(a) | (unsigned(b) << 32)
    result = torch.zeros_like(both)
    for i in range(4):
        chosen = (unsigned(selector) >> (4 * i)) & 7
        result = result | (((both >> (8 * chosen)) & 0xFF) << (8 * i))
    return result.to(torch.int32)


def _low24(a: Tensor, *, signed: bool) -> Tensor:
    low = unsigned(a) & 0xFFFFFF
    return torch.where(low >= 1 << 23, low - (1 << 24), low) if signed else low


def _mul24(*, signed: bool) -> Function:
    return lambda a, b: (_low24(a, signed=signed) * _low24(b, signed=signed)).to(torch.int32)


def _average(*, signed: bool, up: int) -> Function:
    """The mean of 32-bit integers, rounded down or up."""

    def call(a: Tensor, b: Tensor) -> Tensor:
        wide = (lambda v: v.to(torch.int64)) if signed else unsigned
        return ((wide(a) + wide(b) + up) >> 1).to(torch.int32)

    return call


def _sad(*, signed: bool) -> Function:
    """abs(a - b) + c."""

    def call(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        wide = (lambda v: v.to(torch.int64)) if signed else unsigned
        return ((wide(a) - wide(b)).abs() + unsigned(c)).to(torch.int32)

    return call


def _from_halves(high: Tensor, low: Tensor) -> Tensor:
    return ((high.to(torch.int64) << 32) | unsigned(low)).view(torch.float64)


def _half(shift: int) -> Function:
    return lambda a: (a.contiguous().view(torch.int64) >> shift).to(torch.int32)


def _reciprocal_high(a: Tensor) -> Tensor:
    """1 / a, of which only the upper half of the bits is there."""
    bits = (1 / a).contiguous().view(torch.int64)
    return (bits & ~0xFFFFFFFF).view(torch.float64)


def _as(dtype: torch.dtype) -> Function:
    return lambda a: lanes.bitcast(a, dtype)


def _all() -> dict[str, Function]:
    found: dict[str, Function] = {
        "abs": torch.abs,
        "llabs": torch.abs,
        "brev": _bits_reversed,
        "brevll": _bits_reversed,
        "byte_perm": _byte_perm,
        "clz": lambda a: lanes.leading_zeros(a).to(torch.int32),
        "clzll": lambda a: lanes.leading_zeros(a).to(torch.int32),
        "ffs": _first_set,
        "ffsll": _first_set,
        "popc": lambda a: lanes.count_ones(a).to(torch.int32),
        "popcll": lambda a: lanes.count_ones(a).to(torch.int32),
        "hadd": _average(signed=True, up=0),
        "rhadd": _average(signed=True, up=1),
        "uhadd": _average(signed=False, up=0),
        "urhadd": _average(signed=False, up=1),
        "sad": _sad(signed=True),
        "usad": _sad(signed=False),
        "mul24": _mul24(signed=True),
        "umul24": _mul24(signed=False),
        "mulhi": lanes.mul_high_signed,
        "mul64hi": lanes.mul_high_signed,
        "umulhi": lanes.mul_high_unsigned,
        "umul64hi": lanes.mul_high_unsigned,
        "min": torch.minimum,
        "max": torch.maximum,
        "llmin": torch.minimum,
        "llmax": torch.maximum,
        "double_as_longlong": _as(torch.int64),
        "longlong_as_double": _as(torch.float64),
        "float_as_int": _as(torch.int32),
        "float_as_uint": _as(torch.int32),
        "int_as_float": _as(torch.float32),
        "uint_as_float": _as(torch.float32),
        "double2hiint": _half(32),
        "double2loint": _half(0),
        "hiloint2double": _from_halves,
        "rcp64h": _reciprocal_high,
        "frsqrt_rn": _double(torch.rsqrt),
        "saturatef": lambda a: torch.nan_to_num(a, nan=0.0).clamp(0, 1),
        "finited": _truth(torch.isfinite),
        "finitef": _truth(torch.isfinite),
        "isfinited": _truth(torch.isfinite),
        "isinff": _truth(torch.isinf),
        "isinfd": _truth(torch.isinf),
        "isnanf": _truth(torch.isnan),
        "isnand": _truth(torch.isnan),
        "signbitf": _truth(torch.signbit),
        "signbitd": _truth(torch.signbit),
    }
    for name, function in _FLOATING.items():
        found[name] = found[f"{name}f"] = function
    for name, function in _FAST.items():
        found[f"fast_{name}"] = function
    for mode, rounding in _ROUND.items():
        for name in ("add", "sub", "mul", "div", "rcp", "sqrt"):
            found[f"f{name}_{mode}"] = found[f"d{name}_{mode}"] = _rounded(name, mode)
        found[f"fmaf_{mode}"] = found[f"fma_{mode}"] = _rounded("fma", mode)
        found[f"double2float_{mode}"] = lambda a, mode=mode: narrow(a, mode)
        for source in ("float", "double"):
            for size, dtype in (("int", torch.int32), ("ll", torch.int64)):
                found[f"{source}2{size}_{mode}"] = _integer(rounding, dtype)
                natural = "uint" if size == "int" else "ull"
                found[f"{source}2{natural}_{mode}"] = _natural(rounding, dtype)
        for size, signed in (("int", True), ("ll", True), ("uint", False), ("ull", False)):
            for target, dtype in (("float", torch.float32), ("double", torch.float64)):
                found[f"{size}2{target}_{mode}"] = _from_integer(dtype, mode, signed=signed)
    return {f"__nv_{name}": found[name] for name in sorted(found)}


FUNCTIONS: Final[dict[str, Function]] = _all()
"""By symbol: a function of values of the symbol's parameter types, of broadcastable shapes."""
