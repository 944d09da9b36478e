"""Size expressions mean in C++ what they mean in Python."""

from __future__ import annotations

import random
import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codegen import cpp
from tests.codegen.expressions import EXPRESSIONS, SYMBOLS, collect_expressions
from wrapgen import expression
from wrapgen.codegen import CodegenError, expr

VALUES = st.one_of(st.integers(-20, 20), st.integers(-(1 << 20), 1 << 20))


def test_cpp_equals_python(tmp_path: Path) -> None:
    """Random expressions over random values, in one program; where Python's value, or a part of it
    in either form, does not fit 64 bits there is nothing to compare."""
    draw = random.Random(20)
    checks = []
    compared = 0
    for text in collect_expressions(300):
        try:
            code = expr.cpp(expr.parse(text))
        except CodegenError:  # a constant part that is too large, or a division by 0
            continue
        for _ in range(6):
            bound = draw.choice([3, 20, 1 << 10, 1 << 20])
            values = {name: draw.randint(-bound, bound) for name in SYMBOLS}
            try:
                expected = expression.evaluate(text, values)
            except expression.ExpressionError:
                continue
            if not _fits(code, values):
                continue
            arguments = ", ".join(str(values[name]) for name in SYMBOLS)
            checks.append((text, code, arguments, expected))
            compared += 1
    assert compared > 400
    lines = ["#include <algorithm>", "#include <cstdint>", "#include <cstdio>"]
    lines += ['#include "runtime/integer.h"', "int failures = 0;"]
    lines += ["void Check(int i, int64_t expected, int64_t got) {"]
    lines += ["  if (expected != got) ++failures, std::printf("]
    lines += ['"%d %lld %lld\\n", i, (long long)expected, (long long)got);', "}"]
    functions = {code: i for i, code in enumerate(dict.fromkeys(code for _, code, _, _ in checks))}
    for code, i in functions.items():
        unused = "".join(f"(void){name}; " for name in SYMBOLS)
        parameters = ", ".join(f"int64_t {name}" for name in SYMBOLS)
        lines.append(f"int64_t F{i}({parameters}) {{ {unused}return {code}; }}")
    lines.append("int main() {")
    for i, (_, code, arguments, expected) in enumerate(checks):
        literal = "INT64_MIN" if expected == expression.INT64_MIN else f"INT64_C({expected})"
        lines.append(f"  Check({i}, {literal}, F{functions[code]}({arguments}));")
    lines += ["  return failures != 0;", "}"]
    source = tmp_path / "check.cc"
    source.write_text("\n".join(lines))
    program = tmp_path / "check"
    # Undefined behaviour, such as an overflow, ends the program.
    sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
    cpp.run(["g++", *cpp.FLAGS, *sanitize, f"-I{cpp.ROOT}", source, "-o", program])
    cpp.run([program])


def _fits(code: str, values: dict[str, int]) -> bool:
    """Whether the C++, read as Python, stays within 64 bits: sympy adds and multiplies in an order
    of its own, so that parts may be larger than in the text."""
    python = code.replace("INT64_MIN", str(expression.INT64_MIN))
    for name in ("aoti::", "std::", "<int64_t>"):
        python = python.replace(name, "")
    functions = {
        "FloorDivide": lambda a, b: a // b,
        "Modulo": lambda a, b: a % b,
        "Power": lambda a, b: a**b,
        "Absolute": abs,
        "min": min,
        "max": max,
        "int64_t": lambda value: value,
    }
    python = python.replace("int64_t{", "int64_t(").replace("}", ")")
    checked = {name: _Checked(value) for name, value in values.items()}
    try:
        eval(python, {"__builtins__": {}}, functions | checked)  # our own printer's text
    except OverflowError:
        return False
    return True


class _Checked(int):
    """An integer whose every operation raises ``OverflowError`` beyond 64 bits."""

    def _wrap(self, value: int) -> _Checked:
        if not expression.INT64_MIN <= value <= expression.INT64_MAX:
            raise OverflowError
        return _Checked(value)

    def __add__(self, other: int) -> _Checked:
        return self._wrap(int(self) + int(other))

    def __radd__(self, other: int) -> _Checked:
        return self._wrap(int(other) + int(self))

    def __sub__(self, other: int) -> _Checked:
        return self._wrap(int(self) - int(other))

    def __rsub__(self, other: int) -> _Checked:
        return self._wrap(int(other) - int(self))

    def __mul__(self, other: int) -> _Checked:
        return self._wrap(int(self) * int(other))

    __rmul__ = __mul__

    def __floordiv__(self, other: int) -> _Checked:
        return self._wrap(int(self) // int(other))

    def __rfloordiv__(self, other: int) -> _Checked:
        return self._wrap(int(other) // int(self))

    def __mod__(self, other: int) -> _Checked:
        return self._wrap(int(self) % int(other))

    def __rmod__(self, other: int) -> _Checked:
        return self._wrap(int(other) % int(self))

    def __pow__(self, other: int) -> _Checked:  # type: ignore[override]
        return self._wrap(int(self) ** int(other))

    def __neg__(self) -> _Checked:
        return self._wrap(-int(self))

    def __abs__(self) -> _Checked:
        return self._wrap(abs(int(self)))


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
        ("s0 // 1 + 0 % s1", "s0"),
        ("(s0 + 1) * s1", "s1 * (s0 + 1)"),
        ("s0 - s1", "s0 - s1"),
        ("-s0", "-s0"),
        ("2 - 3 * s0", "2 - 3 * s0"),
        ("s0 ** 2", "aoti::Power(s0, 2)"),
        ("max(s1, s0, 4)", "std::max<int64_t>(4, std::max<int64_t>(s0, s1))"),
        ("abs(s0 - s1) % s1", "aoti::Modulo(aoti::Absolute(s0 - s1), s1)"),
        ("s0 + 4294967296", "s0 + int64_t{4294967296}"),
    ],
)
def test_printed_code(text: str, code: str) -> None:
    assert expr.cpp(expr.parse(text)) == code


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
        ("s0 ** s1", "an exponent is a literal"),
        ("2 ** 64", "an exponent is a literal"),
        ("s0 ** -1", "an exponent is a literal"),
        ("9223372036854775808", "does not fit 64 bits"),
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
        ("9 ** 63 ** 1", "does not fit|exponent"),
    ],
)
def test_without_a_value(text: str, fault: str) -> None:
    with pytest.raises(expression.ExpressionError, match=fault):
        expression.evaluate(text)
    if "s0" not in text:
        with pytest.raises(CodegenError, match=f"{fault}|zero|64 bits"):
            expr.cpp(expr.parse(text))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("s0 == s1 // 2", True),
        ("s0 != 4", False),
        ("s0 < 5", True),
        ("s0 <= min(s1, 4)", True),
        ("s0 > 3", True),
        ("s0 * 2 >= s1 + 1", False),
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
