"""PyTorch's sizes keep their values: from sympy, through the program file's text, to C++."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sympy
from torch.utils._sympy import functions as f
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.reference import PythonReferenceAnalysis

from tests.codegen import cpp
from wrapgen import expression
from wrapgen.codegen import expr as cpp_expr
from wrapgen.lowering.size_text import UnknownExpression, condition_of, text_of
from wrapgen.lowering.symbols import _Range

N, M, K = (sympy.Symbol(name, integer=True, positive=True) for name in "nmk")
U = sympy.Symbol("u", integer=True)
RANGES = {N: _Range(1, 4096), M: _Range(1, 500), K: _Range(1, 3), U: _Range(-70, 70)}
NAMES = {symbol: symbol.name for symbol in RANGES}


class Python(PythonReferenceAnalysis):
    """PyTorch's evaluation of sizes as Python computes them, with what it leaves out."""

    @staticmethod
    def identity(x: Any) -> Any:
        """A number itself."""
        return x

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        """One of two numbers."""
        return a if condition else b

    @staticmethod
    def modular_indexing(base: Any, divisor: Any, modulus: Any) -> Any:
        """A digit of a number."""
        return base // divisor % modulus


BINARY = (
    *(lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b),
    *(f.FloorDiv, f.CeilDiv, f.PythonMod, f.Max, f.Min, sympy.Max, sympy.Min),
    *(f.BitwiseFn_bitwise_and, f.BitwiseFn_bitwise_or, f.BitwiseFn_bitwise_xor),
)
ROUNDED = (f.FloorToInt, f.CeilToInt, f.TruncToInt, f.RoundToInt)
FACTORS = (0.5, 2.0, 1.5, 0.25, 3.0, -0.75)
RELATIONS = (sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge)


def random_size(draw: random.Random, depth: int) -> Any:
    """A size as PyTorch builds it: of its functions, as they are called and simplify."""

    def inner() -> Any:
        return random_size(draw, depth - 1)

    def condition() -> Any:
        first = draw.choice(RELATIONS)(inner(), inner())
        if draw.random() < 0.3:
            first = sympy.Not(first)
        if draw.random() < 0.3:
            return draw.choice([sympy.And, sympy.Or])(
                first, draw.choice(RELATIONS)(inner(), inner())
            )
        return first

    kind = draw.randrange(12) if depth else draw.randrange(2)
    if kind == 0:
        return draw.choice([*RANGES, N, M])
    if kind == 1:
        return sympy.Integer(draw.choice([1, 2, 3, 7, 8, 16, 63, 1000]))
    if kind < 6:
        return draw.choice(BINARY)(inner(), inner())
    if kind == 6:
        numerator, denominator = inner(), draw.choice([K, M, sympy.Integer(2), sympy.Integer(3), U])
        return draw.choice(ROUNDED[:3])(f.IntTrueDiv(numerator, denominator))
    if kind == 7:
        scaled = sympy.Float(draw.choice(FACTORS)) * f.ToFloat(inner())
        if draw.random() < 0.3:
            scaled += sympy.Float(draw.choice(FACTORS))
        return draw.choice(ROUNDED)(scaled)
    if kind == 8:
        return f.Where(condition(), inner(), inner())
    if kind == 9:
        return sympy.Piecewise((inner(), condition()), (inner(), condition()), (inner(), True))
    if kind == 10:
        return f.ModularIndexing(f.Identity(sympy.Abs(inner())), draw.choice([2, 3, M]), 5)
    return draw.choice([f.LShift, f.RShift, f.PowByNatural])(inner(), draw.choice([K, 2]))


def test_random_sizes(tmp_path: Path) -> None:
    """PyTorch's own evaluation in Python, ours of the text, and the C++ of it agree."""
    draw = random.Random(11)
    sizes: dict[str, Any] = {}
    kinds: set[str] = set()
    refused = 0
    while len(sizes) < 300:
        try:
            size = random_size(draw, 2)
        except Exception:  # PyTorch's and sympy's functions refuse some arguments in their own ways
            continue
        if not isinstance(size, sympy.Basic) or size.is_Integer or size.has(sympy.nan, sympy.zoo):
            continue
        try:
            sizes[text_of(size, NAMES, RANGES)] = size
        except UnknownExpression:  # numbers of more than 51 bits are divided
            refused += 1
            continue
        kinds |= {type(node).__name__ for node in sympy.preorder_traversal(size)}
    assert refused < 100
    expected = "FloorDiv PythonMod ModularIndexing Where Piecewise Max Min Abs And Or PowByNatural "
    expected += "FloorToInt CeilToInt TruncToInt RoundToInt IntTrueDiv ToFloat Identity "
    assert set((expected + "BitwiseFn_bitwise_and").split()) <= kinds
    functions, checks = [], []
    parameters = ", ".join(f"[[maybe_unused]] int64_t {name}" for name in NAMES.values())
    for i, (text, size) in enumerate(sizes.items()):
        code = cpp_expr.cpp(text, checked=True)
        functions.append(f"aoti::Checked F{i}({parameters}) {{ return {code}; }}")
        for _ in range(6):
            values = {
                symbol: draw.choice(
                    [one.minimum, one.maximum, draw.randint(one.minimum, one.maximum)]
                )
                for symbol, one in RANGES.items()
            }
            try:
                value = int(sympy_interp(Python, values, size))
            except ZeroDivisionError:
                continue
            except AssertionError:  # what PyTorch takes for granted, such as signs, is not so
                continue
            named = {symbol.name: number for symbol, number in values.items()}
            try:
                assert expression.evaluate(text, named) == value, (size, text, named)
            except expression.ExpressionError:
                assert max(abs(number) for number in _parts(size, values)) >= 1 << 63
                continue
            arguments = ", ".join(f"{number}" for number in values.values())
            checks.append(f"Check({i}, F{i}({arguments}), INT64_C({value}));")
    assert len(checks) > 1000
    source, program = tmp_path / "check.cc", tmp_path / "check"
    source.write_text("\n".join([_HEAD, *functions, "int main() {", *checks, "return failures; }"]))
    flags = [*cpp.FLAGS, "-Wno-tautological-compare", "-fsanitize=undefined"]
    cpp.run(["g++", *flags, f"-I{cpp.ROOT}", source, "-o", program])
    cpp.run([program])


_HEAD = """\
#include <cstdint>
#include <cstdio>
#include "runtime/integer.h"
int failures = 0;
void Check(int i, aoti::Checked got, int64_t expected) {
  if (got.ok() && got.value() == expected) return;
  failures = 1;
  std::printf("%d: %lld, not %lld\\n", i, (long long)expected, (long long)got.value());
}
"""


def _parts(size: Any, values: dict[Any, int]) -> list[float]:
    """The values of all numbers in a size."""
    parts = [part for part in sympy.preorder_traversal(size) if isinstance(part, sympy.Expr)]
    return [float(sympy_interp(Python, values, part)) for part in parts]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (f.FloorToInt(f.IntTrueDiv(N, 2)), "n // 2"),
        (f.CeilToInt(f.IntTrueDiv(N + 1, M)), "-((-n - 1) // m)"),
        (f.TruncToInt(f.IntTrueDiv(N, M)), "n // m"),
        (f.TruncToInt(f.IntTrueDiv(U, 2)), "u // 2 if u >= 0 else -((-u) // 2)"),
        (
            f.TruncToInt(f.IntTrueDiv(N, U)),
            "abs(n) // abs(u) if n >= 0 and u > 0 or n <= 0 and ...",
        ),
        (f.TruncToInt(2.0 * f.ToFloat(N)), "2 * n"),
        (f.FloorToInt(1.5 * f.ToFloat(N)), "(3 * n) // 2"),
        (f.CeilDiv(N, 8), "(n + 7) // 8"),
        (f.ModularIndexing(N, 4, M), "n // 4 % m"),
        (f.Where(sympy.Lt(N, 4), M, f.FloorDiv(N, M)), "m if n < 4 else n // m"),
        (f.LShift(N, K), "2 ** k * n"),
        (f.RShift(N, sympy.Integer(3)), "n // 8"),
        (f.PowByNatural(sympy.Integer(2), K), "2 ** k"),
        (f.Identity(N) + 1, "n + 1"),
        (f.BitwiseFn_bitwise_and(N + 1, sympy.Integer(7)), "n + 1 & 7"),
        (sympy.Abs(U), "abs(u)"),
    ],
)
def test_texts(size: Any, text: str) -> None:
    found = text_of(size, NAMES, RANGES)
    if text.endswith("..."):
        assert found.startswith(text[:-3])
    else:
        assert found == text
    expression.parse(found)


@pytest.mark.parametrize(
    ("size", "fault"),
    [
        (f.FloorToInt(f.OpaqueUnaryFn_sqrt(f.ToFloat(N))), "OpaqueUnaryFn_sqrt"),
        (f.FloorToInt(0.1 * f.ToFloat(N)), "is rounded for some sizes in range"),
        (f.FloorToInt(f.IntTrueDiv(N**5, 7)), "is rounded for some sizes in range"),
        (f.FloorToInt(2.0 * f.IntTrueDiv(N, 7)), "is no quotient of two integers"),
        (f.RoundToInt(f.IntTrueDiv(N, U)), "whose divisor may be negative"),
        (f.FloorToInt(f.FloatPow(f.ToFloat(N), sympy.Float(0.5))), "FloatPow"),
        (N ** sympy.Rational(1, 2), "no exact expression"),
        (f.IsNonOverlappingAndDenseIndicator(N, M, M, K), "IsNonOverlappingAndDenseIndicator"),
        (sympy.Piecewise((N, sympy.Lt(N, 4))), "has no value where no condition holds"),
        (sympy.Symbol("zuf0", integer=True), "depends on the values of a tensor"),
    ],
)
def test_refused(size: Any, fault: str) -> None:
    with pytest.raises(UnknownExpression, match=fault):
        text_of(size, NAMES, RANGES)


def test_floating_point_is_refused_without_ranges() -> None:
    with pytest.raises(UnknownExpression, match="is rounded for some sizes in range"):
        text_of(f.FloorToInt(f.IntTrueDiv(N, 2)), NAMES)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (sympy.Le(N + M, 100), "m + n <= 100"),
        (sympy.Or(sympy.Eq(N, 1), sympy.Gt(M, 4)), "(1 if m > 4 or n == 1 else 0) == 1"),
    ],
)
def test_conditions(condition: Any, text: str) -> None:
    found = condition_of(condition, NAMES, RANGES)
    assert found == text
    expression.parse_condition(found)
