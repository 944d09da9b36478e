"""Operations of a lane against Python's integers and exact fractions, for drawn values."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from simulator.interpreter import parse
from simulator.interpreter.elementwise import ELEMENTWISE
from simulator.interpreter.floats import convert, dtype_of, tf32
from simulator.interpreter.ttir import Op, float8_value

WIDTHS = (8, 16, 32, 64)

given = functools.partial(hypothesis.settings, max_examples=60, deadline=None, derandomize=True)


@functools.cache
def operation(text: str, *parameters: str) -> Op:
    """An operation on %arg0, %arg1... of these types."""
    names = ", ".join(f"%arg{i}: {kind}" for i, kind in enumerate(parameters))
    module = f"module {{\n  tt.func public @k({names}) {{\n    {text}\n    tt.return\n  }}\n}}\n"
    return parse(module).blocks[0].ops[0]


def apply(op: Op, *values: torch.Tensor) -> Any:
    return ELEMENTWISE[op.name](op)(*values)


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def unsigned(value: int, bits: int) -> int:
    return value & ((1 << bits) - 1)


def truncated(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def interesting(bits: int) -> st.SearchStrategy[int]:
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return st.sampled_from([least, least + 1, -2, -1, 0, 1, 2, 3, 7, most - 1, most]) | st.integers(
        least, most
    )


Reference = Callable[[int, int, int], int | None]

# Of signed values and a width; None where the operation is undefined.
INTEGERS: dict[str, Reference] = {
    "arith.addi": lambda a, b, n: a + b,
    "arith.subi": lambda a, b, n: a - b,
    "arith.muli": lambda a, b, n: a * b,
    "arith.andi": lambda a, b, n: a & b,
    "arith.ori": lambda a, b, n: a | b,
    "arith.xori": lambda a, b, n: a ^ b,
    "arith.divsi": lambda a, b, n: truncated(a, b) if b else None,
    "arith.remsi": lambda a, b, n: a - b * truncated(a, b) if b else None,
    "arith.divui": lambda a, b, n: unsigned(a, n) // unsigned(b, n) if b else None,
    "arith.remui": lambda a, b, n: unsigned(a, n) % unsigned(b, n) if b else None,
    "arith.floordivsi": lambda a, b, n: a // b if b else None,
    "arith.ceildivsi": lambda a, b, n: -(-a // b) if b else None,
    "arith.ceildivui": lambda a, b, n: -(-unsigned(a, n) // unsigned(b, n)) if b else None,
    "arith.maxsi": lambda a, b, n: max(a, b),
    "arith.minsi": lambda a, b, n: min(a, b),
    "arith.maxui": lambda a, b, n: max(unsigned(a, n), unsigned(b, n)),
    "arith.minui": lambda a, b, n: min(unsigned(a, n), unsigned(b, n)),
    "arith.shli": lambda a, b, n: a << b if 0 <= b < n else None,
    "arith.shrsi": lambda a, b, n: a >> b if 0 <= b < n else None,
    "arith.shrui": lambda a, b, n: unsigned(a, n) >> b if 0 <= b < n else None,
    "tt.mulhiui": lambda a, b, n: unsigned(a, n) * unsigned(b, n) >> n,
}


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("name", sorted(INTEGERS))
def test_integers(name: str, bits: int) -> None:
    kind = f"i{bits}"
    op = operation(f"%0 = {name} %arg0, %arg1 : {kind}", kind, kind)
    distances = interesting(bits) | st.integers(0, bits - 1)

    @given()
    @hypothesis.given(st.lists(st.tuples(interesting(bits), distances), min_size=1, max_size=20))
    def check(pairs: list[tuple[int, int]]) -> None:
        a, b = (torch.tensor(side, dtype=dtype_of(kind)) for side in zip(*pairs, strict=True))
        got = apply(op, a, b)
        assert got.dtype == a.dtype
        for (x, y), found in zip(pairs, got.tolist(), strict=True):
            expected = INTEGERS[name](x, y, bits)
            # Undefined is a value too: nothing traps.
            assert expected is None or found == signed(expected, bits), (x, y)

    check()


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


@pytest.mark.parametrize("bits", [1, *WIDTHS])
@pytest.mark.parametrize("predicate", "eq ne slt sle sgt sge ult ule ugt uge".split())
def test_comparisons(predicate: str, bits: int) -> None:
    kind = f"i{bits}"
    op = operation(f"%0 = arith.cmpi {predicate}, %arg0, %arg1 : {kind}", kind, kind)
    relation = COMPARISONS[predicate[-2:]]
    drawn = st.sampled_from([-1, 0]) if bits == 1 else interesting(bits)

    @given()
    @hypothesis.given(st.lists(st.tuples(drawn, drawn), min_size=1, max_size=20))
    def check(pairs: list[tuple[int, int]]) -> None:
        a, b = (torch.tensor(side).to(dtype_of(kind)) for side in zip(*pairs, strict=True))
        view = unsigned if predicate[0] == "u" else signed
        expected = [relation(view(x, bits), view(y, bits)) for x, y in pairs]
        assert apply(op, a, b).tolist() == expected

    check()


@pytest.mark.parametrize("to", WIDTHS)
@pytest.mark.parametrize("bits", [1, *WIDTHS])
def test_widths(bits: int, to: int) -> None:
    source, target = f"i{bits}", f"i{to}"

    @given()
    @hypothesis.given(st.lists(interesting(max(bits, 8)), min_size=1, max_size=20))
    def check(values: list[int]) -> None:
        values = [signed(value, bits) for value in values]
        a = torch.tensor(values).to(dtype_of(source))
        if to > bits:
            for name, view in (("extsi", signed), ("extui", unsigned)):
                op = operation(f"%0 = arith.{name} %arg0 : {source} to {target}", source)
                assert apply(op, a).tolist() == [signed(view(v, bits), to) for v in values]
        elif to < bits:
            op = operation(f"%0 = arith.trunci %arg0 : {source} to {target}", source)
            assert apply(op, a).tolist() == [signed(v, to) for v in values]

    check()


def exact_float32(value: Fraction) -> float:
    """The nearest float32, ties to even."""
    return float(torch.tensor(float(value), dtype=torch.float64).float())


@pytest.mark.parametrize("bits", [8, 32, 64])
@pytest.mark.parametrize("name", ["sitofp", "uitofp"])
def test_integers_to_floats(name: str, bits: int) -> None:
    op = operation(f"%0 = arith.{name} %arg0 : i{bits} to f32", f"i{bits}")
    view = signed if name == "sitofp" else unsigned

    @given()
    @hypothesis.given(interesting(bits))
    def check(value: int) -> None:
        got = Fraction(float(apply(op, torch.tensor([value], dtype=dtype_of(f"i{bits}")))))
        exact = Fraction(view(value, bits))
        ulp = Fraction(2) ** max(-149, math.frexp(float(exact))[1] - 24)
        assert abs(got - exact) <= ulp / 2

    check()


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("name", ["fptosi", "fptoui"])
def test_floats_to_integers(name: str, bits: int) -> None:
    """Truncates; saturates outside of the range; NaN is 0."""
    op = operation(f"%0 = arith.{name} %arg0 : f64 to i{bits}", "f64")
    low, high = (
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if name == "fptosi" else (0, (1 << bits) - 1)
    )

    @given()
    @hypothesis.given(st.floats(allow_nan=True) | st.floats(-(2.0**65), 2.0**65))
    def check(value: float) -> None:
        if math.isnan(value):
            expected = 0
        elif math.isinf(value):
            expected = high if value > 0 else low
        else:
            expected = min(high, max(low, int(value)))
        got = int(apply(op, torch.tensor([value], dtype=torch.float64)))
        assert got == signed(expected, bits)

    check()


FLOAT_PREDICATES = "oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno".split()


@pytest.mark.parametrize("predicate", FLOAT_PREDICATES)
def test_float_comparisons(predicate: str) -> None:
    op = operation(f"%0 = arith.cmpf {predicate}, %arg0, %arg1 : f32", "f32", "f32")
    values = [math.nan, -math.inf, -1.0, -0.0, 0.0, 1.0, math.inf]
    pairs = [(a, b) for a in values for b in values]
    a, b = (torch.tensor(side) for side in zip(*pairs, strict=True))
    expected = []
    for x, y in pairs:
        unordered = math.isnan(x) or math.isnan(y)
        if predicate in ("ord", "uno"):
            expected.append(unordered == (predicate == "uno"))
        elif unordered:
            expected.append(predicate[0] == "u")
        else:
            expected.append(COMPARISONS[predicate[1:]](x, y))
    assert apply(op, a, b).tolist() == expected


@pytest.mark.parametrize("name", ["maxnumf", "minnumf", "maximumf", "minimumf"])
def test_extremes_and_nan(name: str) -> None:
    op = operation(f"%0 = arith.{name} %arg0, %arg1 : f32", "f32", "f32")
    a, b = torch.tensor([1.0, math.nan, 2.0]), torch.tensor([math.nan, 3.0, -2.0])
    got = apply(op, a, b).tolist()
    assert got[2] == (2 if name.startswith("max") else -2)
    if name.endswith("numf"):
        assert got[:2] == [1, 3]
    else:
        assert all(map(math.isnan, got[:2]))


FORMATS = {
    # exponent bits, mantissa bits, largest, whether overflow saturates
    "f16": (5, 10, 65504.0, False),
    "bf16": (8, 7, 3.3895313892515355e38, False),
    "f8E4M3FN": (4, 3, 448.0, True),
    "f8E5M2": (5, 2, 57344.0, True),
}


def rounded(value: float, target: str, mode: str) -> float:
    exponent_bits, mantissa_bits, largest, saturates = FORMATS[target]
    if math.isnan(value):
        return value
    if math.isinf(value):
        return math.copysign(largest, value) if saturates else value
    least = 2 - (1 << (exponent_bits - 1))
    exponent = max(least, math.frexp(value)[1] - 1)
    unit = Fraction(2) ** (exponent - mantissa_bits)
    quotient = abs(Fraction(value)) / unit
    whole = round(quotient) if mode == "rtne" else math.floor(quotient)
    result = whole * unit
    if result > largest:
        overflow = largest if saturates or mode == "rtz" else math.inf
        return math.copysign(overflow, value)
    return math.copysign(float(result), value)


@pytest.mark.parametrize("mode", ["rtne", "rtz"])
@pytest.mark.parametrize("target", sorted(FORMATS))
def test_narrowing(target: str, mode: str) -> None:
    """Each rounding mode against exact arithmetic."""
    largest = FORMATS[target][2]
    bound = float(torch.tensor(1.1 * min(largest, 3e38)))
    near = st.floats(-bound, bound, width=32)
    drawn = st.floats(width=32) | near | st.floats(-10, 10, width=32)

    @given(max_examples=200)
    @hypothesis.given(st.lists(drawn, min_size=1, max_size=20))
    def check(values: list[float]) -> None:
        got = convert(torch.tensor(values), "f32", target, mode)
        for value, back in zip(values, convert(got, target, "f32").tolist(), strict=True):
            expected = rounded(value, target, mode)
            if math.isnan(expected):
                assert math.isnan(back)
            else:
                assert struct.pack("<f", back) == struct.pack("<f", expected), value

    check()


@pytest.mark.parametrize("element", ["f8E4M3FN", "f8E5M2"])
def test_eight_bits(element: str) -> None:
    """All 256 values."""
    got = convert(torch.arange(256, dtype=torch.uint8), element, "f32").tolist()
    for bits, value in enumerate(got):
        expected = float8_value(bits, element)
        assert value == expected or (math.isnan(value) and math.isnan(expected)), bits


def test_tf32_keeps_ten_bits() -> None:
    @given(max_examples=200)
    @hypothesis.given(st.floats(-(2.0**99), 2.0**99, width=32))
    def check(value: float) -> None:
        got = Fraction(float(tf32(torch.tensor([value]))))
        unit = Fraction(2) ** (max(-126, math.frexp(value)[1] - 1) - 10)
        assert got % unit == 0
        assert 0 <= abs(Fraction(value)) - abs(got) < unit

    check()
    assert tf32(torch.tensor([math.inf])).isinf() and tf32(torch.tensor([math.nan])).isnan()


@pytest.mark.parametrize("name", ["mului_extended", "mulsi_extended"])
@pytest.mark.parametrize("bits", [32, 64])
def test_wide_products(name: str, bits: int) -> None:
    kind = f"i{bits}"
    op = operation(f"%0:2 = arith.{name} %arg0, %arg1 : {kind}", kind, kind)
    view = unsigned if name.startswith("mului") else signed

    @given()
    @hypothesis.given(interesting(bits), interesting(bits))
    def check(a: int, b: int) -> None:
        low, high = apply(op, *(torch.tensor([v], dtype=dtype_of(kind)) for v in (a, b)))
        exact = view(a, bits) * view(b, bits)
        assert int(low) == signed(exact, bits)
        assert int(high) == signed(exact >> bits, bits)

    check()


def test_bits_are_counted() -> None:
    values = [0, 1, 2, 12, -1, -(2**31), 2**31 - 1]
    a = torch.tensor(values, dtype=torch.int32)
    ops = {
        name: operation(f"%0 = math.{name} %arg0 : i32", "i32")
        for name in ("ctpop", "ctlz", "cttz")
    }
    texts = [f"{value & 0xFFFFFFFF:032b}" for value in values]
    assert apply(ops["ctpop"], a).tolist() == [text.count("1") for text in texts]
    assert apply(ops["ctlz"], a).tolist() == [len(t) - len(t.lstrip("0")) for t in texts]
    assert apply(ops["cttz"], a).tolist() == [len(t) - len(t.rstrip("0")) for t in texts]


def test_fused_multiplication_rounds_once() -> None:
    op = operation("%0 = math.fma %arg0, %arg1, %arg2 : f32", "f32", "f32", "f32")
    a = torch.tensor([1 + 2.0**-12])
    assert float(apply(op, a, a, -a * a)) == 2.0**-24


def test_half_precision_rounds_each_operation() -> None:
    a, b = torch.tensor([1.0]).half(), torch.tensor([2.0**-11 * 1.5]).half()
    op = operation("%0 = arith.addf %arg0, %arg1 : f16", "f16", "f16")
    assert apply(op, apply(op, a, b), b).item() == 1 + 2.0**-9
    assert (a.float() + b.float() + b.float()).half().item() == 1 + 2.0**-10 * 2
