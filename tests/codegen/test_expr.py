"""Size expressions mean in C++ what they mean in Python."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codegen import cpp
from tests.codegen.expressions import EXPRESSIONS, SYMBOLS, collect_expressions
from wrapgen import expression
from wrapgen.codegen import CodegenError, expr
from wrapgen.codegen.bounds import Bounds, fits
from wrapgen.expression import INT64_MAX, INT64_MIN

VALUES = st.one_of(
    st.integers(-20, 20), st.integers(-(1 << 20), 1 << 20), st.integers(INT64_MIN, INT64_MAX)
)


EXTREMES = (
    *(
        sign * value + offset
        for sign in (1, -1)
        for value in (0, 1 << 31, 1 << 62)
        for offset in (-1, 0, 1)
    ),
    *(2, 3, -2, 7, 62, 63, 64, 65),
    *(INT64_MIN, INT64_MIN + 1, INT64_MAX - 1, INT64_MAX),
)


def _vectors(draw: random.Random) -> list[dict[str, int]]:
    """Values of the symbols: small, large and extreme."""
    vectors = []
    for _ in range(4):
        bound = draw.choice([3, 20, 1 << 10, 1 << 20, 1 << 40])
        vectors.append({name: draw.randint(-bound, bound) for name in SYMBOLS})
    vectors += [{name: draw.choice(EXTREMES) for name in SYMBOLS} for _ in range(6)]
    return vectors


def test_cpp_is_python(tmp_path: Path) -> None:
    """Random expressions of every kind at random and extreme values, in one program.

    ``Checked`` has Python's value, and none exactly where ``evaluate`` has none: there is no
    overflow, no division by zero and no bad shift that goes unnoticed, and none is told where
    there is none. What is computed without ``Checked``, as ``fits`` allows for some ranges, has
    Python's value in these. The sanitizer sees to it that nothing undefined happens."""
    draw = random.Random(20)
    functions, checks = [], []
    parameters = ", ".join(f"[[maybe_unused]] int64_t {name}" for name in SYMBOLS)
    count = Counter[str]()
    for i, text in enumerate(collect_expressions(400)):
        if not expression.names(expression.parse(text)):
            continue
        code = expr.cpp(text, checked=True)
        functions.append(f"aoti::Checked Checked{i}({parameters}) {{ return {code}; }}")
        vectors = _vectors(draw)
        for bound in (1 << 40, 1 << 10, 70):
            low = draw.choice([-bound, 0, 1])
            if not fits(text, {name: Bounds(low, bound) for name in SYMBOLS}):
                continue
            functions.append(f"int64_t Plain{i}({parameters}) {{ return {expr.cpp(text)}; }}")
            inside = [{name: draw.randint(low, bound) for name in SYMBOLS} for _ in range(4)]
            inside.append({name: draw.choice([low, bound]) for name in SYMBOLS})
            for values in inside:
                expected = expression.evaluate(text, values)
                checks.append(f"Check({i}, {_literal(expected)}, Plain{i}({_arguments(values)}));")
                count["plain"] += 1
            vectors += inside
            break
        for values in vectors:
            call = f"Checked{i}({_arguments(values)})"
            try:
                checks.append(f"Check({i}, {_literal(expression.evaluate(text, values))}, {call});")
                count["value"] += 1
            except expression.ExpressionError:
                checks.append(f"CheckNone({i}, {call});")
                count["none"] += 1
    assert min(count.values()) > 300, count
    source, program = tmp_path / "check.cc", tmp_path / "check"
    source.write_text("\n".join([_CHECKS, *functions, "int main() {", *checks, _END]))
    # Undefined behaviour, such as an overflow, ends the program.
    sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    # Which a random expression may well be.
    sanitize += ["-Wno-tautological-compare"]
    cpp.run(["g++", *cpp.FLAGS, *sanitize, f"-I{cpp.ROOT}", source, "-o", program])
    cpp.run([program])


_CHECKS = """\
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include "runtime/integer.h"
int failures = 0;
void Check(int i, int64_t expected, aoti::Checked got) {
  if (got.ok() && got.value() == expected) return;
  ++failures;
  const long long value = got.value();
  std::printf("%d: %lld, not %lld%s\\n", i, (long long)expected, value, got.ok() ? "" : " (none)");
}
void CheckNone(int i, aoti::Checked got) {
  if (!got.ok()) return;
  ++failures;
  std::printf("%d: none, not %lld\\n", i, (long long)got.value());
}
"""
_END = "return failures != 0; }"


def _literal(value: int) -> str:
    return "INT64_MIN" if value == INT64_MIN else f"INT64_C({value})"


def _arguments(values: dict[str, int]) -> str:
    return ", ".join(_literal(values[name]) for name in SYMBOLS)


EDGES = (
    *(f"s0 {sign} s1" for sign in ("+", "-", "*", "//", "%", "**", "<<", ">>", "&", "|", "^")),
    *("-s0", "~s0", "abs(s0)", "max(s0, s1)", "min(s0, s1, 0)"),
    *(f"1 if s0 {sign} s1 else 0" for sign in ("==", "!=", "<", "<=", ">", ">=")),
    "1 if s0 != 0 and s1 // s0 > 1 else 2",
    "1 if s0 == 0 or s1 // s0 > 1 else 2",
    "1 if s1 // s0 > 1 and s0 == 2 else 2",
    "1 if not s1 // s0 > 1 else 2",
    "s1 // s0 if s0 != 0 else s1 + 1",
)


def test_every_operation_at_the_edges(tmp_path: Path) -> None:
    """Each by itself, at all pairs of extreme numbers."""
    code = [_CHECKS, "struct Edge { int64_t s0, s1, value; bool none; };"]
    calls = []
    pairs = list(itertools.product(dict.fromkeys(EXTREMES), repeat=2))
    for i, text in enumerate(EDGES):
        rows = []
        for a, b in pairs:
            try:
                value, none = expression.evaluate(text, {"s0": a, "s1": b}), "false"
            except expression.ExpressionError:
                value, none = 0, "true"
            rows.append(f"{{{_literal(a)}, {_literal(b)}, {_literal(value)}, {none}}}")
        computed = expr.cpp(text, {"s0": "edge.s0", "s1": "edge.s1"}, checked=True)
        code.append(f"const Edge kEdges{i}[] = {{{', '.join(rows)}}};")
        calls += [f"for (const Edge& edge : kEdges{i}) {{ const aoti::Checked got = {computed};"]
        calls += [f"if (edge.none) CheckNone({i}, got); else Check({i}, edge.value, got); }}"]
    source, program = tmp_path / "check.cc", tmp_path / "check"
    source.write_text("\n".join([*code, "int main() {", *calls, _END]))
    sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    cpp.run(["g++", *cpp.FLAGS, *sanitize, f"-I{cpp.ROOT}", source, "-o", program])
    cpp.run([program])


def test_what_sympy_finds_equal_is() -> None:
    """What is simplified to the same expression is computed once, by one of the texts."""
    draw = random.Random(4)
    by_key: dict[Any, list[str]] = {}
    for text in collect_expressions(400):
        try:
            by_key.setdefault(expr.parse(text), []).append(text)
        except CodegenError:  # a constant without a value
            continue
    compared = 0
    for key, texts in by_key.items():
        for values in _vectors(draw):
            found = set()
            for text in [*texts, *([str(int(key))] if key.is_Integer else [])]:
                with contextlib.suppress(expression.ExpressionError):
                    found.add(expression.evaluate(text, values))
            assert len(found) < 2, texts
            compared += len(texts) > 1
    assert compared > 50


@given(EXPRESSIONS, st.tuples(VALUES, VALUES, VALUES))
@hypothesis.settings(deadline=None, max_examples=200)
def test_evaluate_is_python(text: str, numbers: tuple[int, int, int]) -> None:
    values = dict(zip(SYMBOLS, numbers, strict=True))
    try:
        value = expression.evaluate(text, values)
    except expression.ExpressionError:
        return
    python = eval(text, {"__builtins__": {}}, values | {"abs": abs, "min": min, "max": max})
    assert value == python


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("7", "7"),
        ("-7 // 2", "-4"),
        ("-7 % 3", "2"),
        ("s0 * s1 // 8", "aoti::FloorDivide(s0 * s1, 8)"),
        ("(s0 + 1) * s1", "(s0 + 1) * s1"),
        ("s0 - s1", "s0 - s1"),
        ("s0 - (s1 - 1)", "s0 - (s1 - 1)"),
        ("s0 - -3", "s0 - -3"),
        ("-s0", "-s0"),
        ("-(-s0)", "-(-s0)"),
        ("2 - 3 * s0", "2 - 3 * s0"),
        ("s0 ** 2", "aoti::Power(s0, 2)"),
        ("-s0 ** 2", "-aoti::Power(s0, 2)"),
        ("2 ** s0", "aoti::Power(2, s0)"),
        ("s0 << 3 >> s1", "aoti::ShiftRight(aoti::ShiftLeft(s0, 3), s1)"),
        ("s0 & ~7 | 1", "(s0 & -8) | 1"),
        ("s0 + (s1 ^ 1)", "s0 + (s1 ^ 1)"),
        ("max(s1, s0, 4)", "std::max<int64_t>({s1, s0, 4})"),
        ("min(s0, min(s1, 4))", "std::min<int64_t>({s0, s1, 4})"),
        ("max(s0, min(s1, 4))", "std::max<int64_t>(s0, std::min<int64_t>(s1, 4))"),
        ("abs(s0 - s1) % s1", "aoti::Modulo(aoti::Absolute(s0 - s1), s1)"),
        ("s0 + 4294967296", "s0 + int64_t{4294967296}"),
        ("s0 * (2 + 3) // 2 ** 3", "aoti::FloorDivide(s0 * 5, 8)"),
        ("s0 if s0 < 8 else 8", "s0 < 8 ? s0 : 8"),
        ("1 + (1 if s0 != 0 else 0)", "1 + (s0 != 0 ? int64_t{1} : 0)"),
        (
            "s0 // s1 if s1 > 0 and not (s0 < 0 or s0 == 4) else -s0",
            "s1 > 0 && !(s0 < 0 || s0 == 4) ? aoti::FloorDivide(s0, s1) : -s0",
        ),
    ],
)
def test_printed_code(text: str, code: str) -> None:
    assert expr.cpp(text) == code


def test_printed_checked_code() -> None:
    code = expr.cpp("s0 // s1 if s1 >= 1 and s0 != 2 ** 64 else 1 // 0", checked=True)
    assert code == (
        "aoti::Select(aoti::And(aoti::LessOrEqual(1, aoti::Checked(s1)), "
        "aoti::Unequal(aoti::Checked(s0), aoti::Checked::None())), "
        "aoti::FloorDivide(aoti::Checked(s0), aoti::Checked(s1)), aoti::Checked::None())"
    )


@pytest.mark.parametrize(
    ("text", "low", "high", "expected"),
    [
        ("s0 + 1", 0, INT64_MAX - 1, True),
        ("s0 + 1", 0, INT64_MAX, False),
        ("s0 + 1 - 1", 0, INT64_MAX, False),
        ("-s0", INT64_MIN, 0, False),
        ("abs(s0)", INT64_MIN + 1, 0, True),
        ("s0 % -1", INT64_MIN, 0, False),
        ("7 // s0", 1, 9, True),
        ("7 // s0", 0, 9, False),
        ("7 // s0 if s0 != 0 else 0", 0, 9, False),
        ("1 << s0", 0, 62, True),
        ("1 << s0", 0, 63, False),
        ("s0 >> s0", -1, 9, False),
        ("s0 >> 100", 0, 9, True),
        ("2 ** s0", 0, 62, True),
        ("s0 ** s0", 0, 15, True),
        ("s0 ** s0", 0, 16, False),
        ("1 if s0 * s0 < 4 else 0", 0, 1 << 32, False),
        ("1 if s0 * s0 < 4 else 0", 0, 1 << 31, True),
    ],
)
def test_what_ranges_show(text: str, low: int, high: int, expected: bool) -> None:
    assert fits(text, {"s0": Bounds(low, high)}) is expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not an expression"),
        ("s0 +", "is not an expression"),
        ("s0 / 2", "Div|BinOp is not allowed"),
        ("1.5", "Constant is not allowed"),
        ("True", "Constant is not allowed"),
        ("'a'", "Constant is not allowed"),
        ("__import__('os')", "Call is not allowed"),
        ("s0.real", "Attribute is not allowed"),
        ("s0[0]", "Subscript is not allowed"),
        ("(s0 := 1)", "NamedExpr is not allowed"),
        ("lambda: 0", "Lambda is not allowed"),
        ("min(*s0)", "wrong number of arguments"),
        ("min(s0, *s1)", "Starred is not allowed"),
        ("max(s0)", "wrong number of arguments for max"),
        ("abs(s0, s1)", "wrong number of arguments for abs"),
        ("abs", "abs is a function"),
        ("+s0", "UnaryOp is not allowed"),
        ("s0 < s1", "a condition is not allowed where a number is expected"),
        ("1 + (s0 < s1)", "a condition is not allowed where a number is expected"),
        ("not s0", "a condition is not allowed where a number is expected"),
        ("s0 and s1", "a condition is not allowed where a number is expected"),
        ("1 if s0 else 0", "Name is not allowed as a condition"),
        ("1 if s0 and s0 < 1 else 0", "Name is not allowed as a condition"),
        ("1 if 0 < s0 < 3 else 0", "Compare is not allowed as a condition"),
        ("1 if s0 in s1 else 0", "Compare is not allowed as a condition"),
        ("9223372036854775808", "does not fit 64 bits"),
        ("s0 - 9223372036854775808", "does not fit 64 bits"),
        ("s\u00e9", "not ASCII"),
        ("(" * 3000 + "1" + ")" * 3000, "6001 characters"),
        ("-" * 4000 + "1", "is not an expression"),
    ],
)
def test_refused(text: str, fault: str) -> None:
    with pytest.raises(expression.ExpressionError, match=fault):
        expression.parse(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1 // (2 - 2)", "divides by zero"),
        ("5 % 0", "divides by zero"),
        ("s0 * 2", "symbol 's0' has no value"),
        ("2 ** 63", "9223372036854775808 does not fit 64 bits"),
        ("3 ** 9223372036854775807", "does not fit 64 bits"),
        ("2 ** -1", "2 to the power of -1 is no integer"),
        ("1 << 64", "1 shifted by 64 does not fit 64 bits"),
        ("1 << -1", "1 is shifted by -1"),
        ("1 >> -1", "1 is shifted by -1"),
        ("abs(-9223372036854775808)", "does not fit 64 bits"),
        ("-9223372036854775808 // -1", "does not fit 64 bits"),
        ("-9223372036854775808 - 1", "does not fit 64 bits"),
        ("1 if 1 // 0 == 1 else 0", "divides by zero"),
    ],
)
def test_without_a_value(text: str, fault: str) -> None:
    with pytest.raises(expression.ExpressionError, match=fault):
        expression.evaluate(text)
    if "s0" not in text:
        with pytest.raises(CodegenError, match=f"{fault}|zero|64 bits"):
            expr.cpp(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-9223372036854775808", INT64_MIN),
        ("-9223372036854775808 % -1", 0),
        ("(-2) ** 63", INT64_MIN),
        ("-1 << 63", INT64_MIN),
        ("0 << 9223372036854775807", 0),
        ("-1 >> 9223372036854775807", -1),
        ("(-1) ** 9223372036854775807", -1),
        ("0 ** 0", 1),
        ("1 if 1 < 2 else 1 // 0", 1),
        ("1 if 1 > 2 and 1 // 0 == 0 else 2", 2),
        ("1 if 1 < 2 or 2 ** 64 == 0 else 2", 1),
    ],
)
def test_values_at_the_edge(text: str, value: int) -> None:
    assert expression.evaluate(text) == value
    assert expr.parse(text) == value


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("s0 == s1 // 2", True),
        ("s0 != 4", False),
        ("s0 < 5", True),
        ("s0 <= min(s1, 4)", True),
        ("s0 > 3", True),
        ("s0 * 2 >= s1 + 1", False),
        ("(1 if s0 == 4 or s1 == 4 else 0) == 1", True),
    ],
)
def test_conditions(condition: str, expected: bool) -> None:
    assert expression.holds(condition, {"s0": 4, "s1": 8}) is expected


@pytest.mark.parametrize(
    "condition",
    ["s0", "1 < s0 < 3", "s0 is s1", "s0 == s1 and s1 == 2", "(s0 == s1) == 1", "s0 == f(s1)", ""],
)
def test_what_is_no_condition(condition: str) -> None:
    with pytest.raises(expression.ExpressionError, match=re.escape(repr(condition))):
        expression.parse_condition(condition)
