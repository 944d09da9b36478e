"""CUDA's device library against Python's ``math`` and what is known of its functions."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from triton.language.extra.cuda import libdevice as triton_libdevice
from triton.language.extra.hip import libdevice as triton_ocml

from simulator.interpreter import ocml
from simulator.interpreter.libdevice import FUNCTIONS

POINTS = torch.tensor([0.3, 0.7, 1.0, 1.5, 2.5, 4.0, 9.25], dtype=torch.float64)
INSIDE = torch.tensor([-0.9, -0.5, -0.1, 0.0, 0.2, 0.6, 0.95], dtype=torch.float64)
ANY = torch.tensor([-3.7, -2.5, -1.0, -0.2, 0.4, 2.5, 3.5], dtype=torch.float64)

REFERENCES = {
    "acos": (math.acos, INSIDE),
    "acosh": (math.acosh, POINTS + 1),
    "asin": (math.asin, INSIDE),
    "asinh": (math.asinh, ANY),
    "atan": (math.atan, ANY),
    "atanh": (math.atanh, INSIDE),
    "cbrt": (math.cbrt, ANY),
    "ceil": (math.ceil, ANY),
    "cos": (math.cos, ANY),
    "cosh": (math.cosh, ANY),
    "cospi": (lambda x: math.cos(math.pi * x), ANY),
    "erf": (math.erf, ANY),
    "erfc": (math.erfc, ANY),
    "exp": (math.exp, ANY),
    "exp10": (lambda x: 10**x, ANY),
    "exp2": (math.exp2, ANY),
    "expm1": (math.expm1, ANY),
    "fabs": (abs, ANY),
    "floor": (math.floor, ANY),
    "lgamma": (math.lgamma, POINTS),
    "llrint": (round, ANY),
    "log": (math.log, POINTS),
    "log10": (math.log10, POINTS),
    "log1p": (math.log1p, POINTS),
    "log2": (math.log2, POINTS),
    "nearbyint": (round, ANY),
    "rcbrt": (lambda x: 1 / math.cbrt(x), ANY),
    "rint": (round, ANY),
    "rsqrt": (lambda x: 1 / math.sqrt(x), POINTS),
    "sin": (math.sin, ANY),
    "sinh": (math.sinh, ANY),
    "sinpi": (lambda x: math.sin(math.pi * x), ANY),
    "sqrt": (math.sqrt, POINTS),
    "tan": (math.tan, ANY),
    "tanh": (math.tanh, ANY),
    "tgamma": (math.gamma, ANY[ANY != -1]),
    "trunc": (math.trunc, ANY),
    "normcdf": (lambda x: math.erfc(-x / math.sqrt(2)) / 2, ANY),
    "erfcx": (lambda x: math.exp(x * x) * math.erfc(x), POINTS),
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
@pytest.mark.parametrize("suffix", ["", "f"])
def test_functions(name: str, suffix: str) -> None:
    reference, points = REFERENCES[name]
    values = points if not suffix else points.float()
    got = FUNCTIONS[f"__nv_{name}{suffix}"](values)
    expected = torch.tensor([reference(x) for x in values.tolist()], dtype=torch.float64)
    tolerance = 2e-6 if suffix else 1e-13
    torch.testing.assert_close(got.double(), expected, rtol=tolerance, atol=tolerance)


INVERSES = {"erfinv": "erf", "erfcinv": "erfc", "normcdfinv": "normcdf"}


@pytest.mark.parametrize("name", sorted(INVERSES))
def test_inverses(name: str) -> None:
    points = torch.tensor([0.05, 0.3, 0.5, 0.9], dtype=torch.float64)
    back = FUNCTIONS[f"__nv_{INVERSES[name]}"](FUNCTIONS[f"__nv_{name}"](points))
    torch.testing.assert_close(back, points)


def test_all_of_tritons() -> None:
    """Each symbol that Triton's wrapper of the library knows is there."""
    source = Path(triton_libdevice.__file__).read_text(encoding="utf-8")
    symbols = set(re.findall(r"__nv_\w+", source))
    assert len(symbols) > 300
    assert sorted(symbols - set(FUNCTIONS)) == []


def test_all_of_amds() -> None:
    source = Path(triton_ocml.__file__).read_text(encoding="utf-8")
    symbols = set(re.findall(r"__(?:ocml|triton_hip)_\w+", source))
    assert len(symbols) > 100
    assert sorted(symbols - set(ocml.FUNCTIONS)) == []
    x = torch.tensor([-0.5, float("inf")])
    assert ocml.FUNCTIONS["__ocml_signbit_f32"](x).tolist() == [1, 0]
    assert ocml.FUNCTIONS["__ocml_isinf_f32"](x).tolist() == [0, 1]
    assert ocml.FUNCTIONS["__ocml_pown_f32"](x[:1], torch.tensor([3])).tolist() == [-0.125]


def test_bessel() -> None:
    """Wronskian J(n+1) Y(n) - J(n) Y(n+1) = 2 / (pi x) (Abramowitz and Stegun, 9.1.16)."""
    x = torch.tensor([0.5, 2.0, 7.5, 30.0], dtype=torch.float64)
    for n in range(6):
        order, following = torch.tensor([n]), torch.tensor([n + 1])
        jn, yn = FUNCTIONS["__nv_jn"], FUNCTIONS["__nv_yn"]
        wronskian = jn(following, x) * yn(order, x) - jn(order, x) * yn(following, x)
        torch.testing.assert_close(wronskian, 2 / (math.pi * x), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        FUNCTIONS["__nv_jn"](torch.tensor([0]), x), torch.special.bessel_j0(x)
    )
    torch.testing.assert_close(
        FUNCTIONS["__nv_jn"](torch.tensor([1]), x), torch.special.bessel_j1(x)
    )


def test_directed_rounding() -> None:
    third = FUNCTIONS["__nv_fdiv_rn"](torch.tensor([1.0]), torch.tensor([3.0]))
    below, above = (
        FUNCTIONS[f"__nv_fdiv_{mode}"](torch.tensor([1.0]), torch.tensor([3.0]))
        for mode in ("rd", "ru")
    )
    assert below < above and third in (below, above)
    assert torch.nextafter(below, above) == above
    assert FUNCTIONS["__nv_fdiv_rz"](torch.tensor([-1.0]), torch.tensor([3.0])) == -below
    one, tiny = torch.tensor([1.0], dtype=torch.float64), torch.tensor([1e-30], dtype=torch.float64)
    assert FUNCTIONS["__nv_dadd_ru"](one, tiny) == 1 + 2.0**-52
    assert FUNCTIONS["__nv_dadd_rd"](one, tiny) == 1
    assert FUNCTIONS["__nv_dsub_rz"](one, tiny) == 1 - 2.0**-53
    assert FUNCTIONS["__nv_float2int_rd"](torch.tensor([-1.5])) == -2
    assert FUNCTIONS["__nv_float2int_ru"](torch.tensor([-1.5])) == -1
    assert FUNCTIONS["__nv_double2float_rd"](one / 3) < FUNCTIONS["__nv_double2float_ru"](one / 3)
    large = torch.tensor([2**24 + 1], dtype=torch.int32)
    assert FUNCTIONS["__nv_int2float_rd"](large) == 2**24
    assert FUNCTIONS["__nv_int2float_ru"](large) == 2**24 + 2


def test_bits() -> None:
    a = torch.tensor([0b1011, 0, -1], dtype=torch.int32)
    assert FUNCTIONS["__nv_popc"](a).tolist() == [3, 0, 32]
    assert FUNCTIONS["__nv_clz"](a).tolist() == [28, 32, 0]
    assert FUNCTIONS["__nv_ffs"](a).tolist() == [1, 0, 1]
    assert FUNCTIONS["__nv_brev"](a)[0] == signed(0b1101 << 28)
    x = torch.tensor([0x33221100], dtype=torch.int32)
    y = torch.tensor([0x77665544], dtype=torch.int32)
    selector = torch.tensor([0x7520], dtype=torch.int32)
    assert FUNCTIONS["__nv_byte_perm"](x, y, selector) == 0x77552200
    assert FUNCTIONS["__nv_hadd"](a[2:], a[1:2]) == -1
    assert FUNCTIONS["__nv_urhadd"](a[2:], a[1:2]) == signed(0x80000000)
    assert FUNCTIONS["__nv_sad"](a[:1], a[2:], a[:1]) == 12 + 11
    assert FUNCTIONS["__nv_float_as_int"](torch.tensor([1.0])) == 0x3F800000
    halves = [FUNCTIONS[f"__nv_double2{half}int"](POINTS) for half in ("hi", "lo")]
    assert torch.equal(FUNCTIONS["__nv_hiloint2double"](*halves), POINTS)


def signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def test_scaling() -> None:
    a = torch.tensor([1.5, -3.0, 0.0])
    assert FUNCTIONS["__nv_ldexpf"](a, torch.tensor([3, -1, 5])).tolist() == [12, -1.5, 0]
    # One rounding, also where the power alone would overflow.
    assert FUNCTIONS["__nv_ldexpf"](torch.tensor([2.0**-149]), torch.tensor([200])) == 2.0**51
    assert FUNCTIONS["__nv_ilogbf"](torch.tensor([8.0, 0.3, 0.0])).tolist() == [3, -2, -(2**31)]
    assert FUNCTIONS["__nv_logbf"](torch.tensor([8.0, 0.3])).tolist() == [3, -2]


def test_remainders() -> None:
    a = torch.tensor([5.0, -5.0, 3.0, 2.5, -7.5, 1.0], dtype=torch.float64)
    b = torch.tensor([3.0, 3.0, 2.0, -1.0, 5.0, math.inf], dtype=torch.float64)
    expected = [math.remainder(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert FUNCTIONS["__nv_remainder"](a, b).tolist() == expected


def test_predicates() -> None:
    a = torch.tensor([1.0, -0.0, math.inf, math.nan])
    assert FUNCTIONS["__nv_isnanf"](a).tolist() == [0, 0, 0, 1]
    assert FUNCTIONS["__nv_isinff"](a).tolist() == [0, 0, 1, 0]
    assert FUNCTIONS["__nv_finitef"](a).tolist() == [1, 1, 0, 0]
    assert FUNCTIONS["__nv_signbitf"](a[:2]).tolist() == [0, 1]
    assert FUNCTIONS["__nv_isnanf"](a).dtype == torch.int32
