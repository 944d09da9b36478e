"""What follows for an expression from the ranges of its symbols: between which numbers its value
lies, whether 64 bits suffice for computing it in C++, and by which number it is divisible.

Everything is on the safe side: symbols are taken to vary independently of one another, so the true
bounds may be narrower.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

import sympy

from wrapgen import expression
from wrapgen.codegen import expr as cpp_expr
from wrapgen.codegen.expr import (
    NO_VALUE,
    BitAnd,
    BitOr,
    BitXor,
    FloorDivide,
    Modulo,
    Power,
    Select,
    ShiftLeft,
    ShiftRight,
)
from wrapgen.expression import INT64_MAX, INT64_MIN
from wrapgen.program import Dim


@dataclasses.dataclass(frozen=True)
class Bounds:
    """All integers from ``minimum`` to ``maximum``, both included."""

    minimum: int
    maximum: int

    @property
    def magnitude(self) -> int:
        """The greatest absolute value."""
        return max(abs(self.minimum), abs(self.maximum))

    def within(self, minimum: int, maximum: int) -> bool:
        """Whether all of them lie in a range."""
        return minimum <= self.minimum and self.maximum <= maximum


Ranges = Mapping[str, Bounds]
"""Of each symbol, by name."""


_BEYOND: Final = 64
"""By so much, or more, a number that is not 0 cannot be shifted, nor one beyond 1 be raised to this
power, and the result fit 64 bits: then there is no value, and no bound to keep."""


def bounds(expr: Any, ranges: Ranges) -> Bounds:
    """Bounds of the value, where there is one, of an expression that ``expr.parse`` made."""
    if isinstance(expr, sympy.Integer):
        return Bounds(int(expr), int(expr))
    if expr == NO_VALUE:
        return Bounds(INT64_MIN, INT64_MAX)
    if isinstance(expr, sympy.Symbol):
        return ranges[str(expr.name)]
    parts = expr.args[1:] if isinstance(expr, Select) else expr.args
    args = [bounds(arg, ranges) for arg in parts]
    for kind, rule in _RULES:
        if isinstance(expr, kind):
            return rule(*args)
    raise AssertionError(f"no bounds for {sympy.srepr(expr)}")


def _corners(a: Bounds, b: Bounds, operation: Any) -> Bounds:
    """Of an operation that is monotone in each operand."""
    values = [operation(x, y) for x in (a.minimum, a.maximum) for y in (b.minimum, b.maximum)]
    return Bounds(min(values), max(values))


def _sum(*args: Bounds) -> Bounds:
    return Bounds(sum(arg.minimum for arg in args), sum(arg.maximum for arg in args))


def _product(*args: Bounds) -> Bounds:
    return functools.reduce(lambda a, b: _corners(a, b, operator.mul), args)


def _largest(*args: Bounds) -> Bounds:
    return Bounds(max(arg.minimum for arg in args), max(arg.maximum for arg in args))


def _smallest(*args: Bounds) -> Bounds:
    return Bounds(min(arg.minimum for arg in args), min(arg.maximum for arg in args))


def _either(*args: Bounds) -> Bounds:
    return Bounds(min(arg.minimum for arg in args), max(arg.maximum for arg in args))


def _absolute(arg: Bounds) -> Bounds:
    least = 0 if arg.minimum <= 0 <= arg.maximum else min(abs(arg.minimum), abs(arg.maximum))
    return Bounds(least, arg.magnitude)


def _quotient(a: Bounds, b: Bounds) -> Bounds:
    if b.minimum <= 0 <= b.maximum:
        return Bounds(-a.magnitude, a.magnitude)
    return _corners(a, b, operator.floordiv)


def _modulo(a: Bounds, b: Bounds) -> Bounds:
    if a.minimum >= 0 and a.maximum < b.minimum:
        return a
    low, high = min(b.minimum + 1, 0), max(b.maximum - 1, 0)
    if a.minimum >= 0 and b.minimum > 0:
        high = min(high, a.maximum)
    return Bounds(low, high)


def _count(count: int) -> int:
    """A shift or an exponent within what results of 64 bits can have."""
    return min(max(count, 0), _BEYOND)


def _power(base: Bounds, exponent: Bounds) -> Bounds:
    if exponent.minimum == exponent.maximum:
        powers = [side ** _count(exponent.minimum) for side in (base.minimum, base.maximum)]
        inside = [0] if exponent.minimum % 2 == 0 and base.minimum < 0 < base.maximum else []
        return Bounds(min(powers + inside), max(powers))
    # An exponent of 0 gives 1, whatever the base.
    greatest = max(base.magnitude, 1) ** _count(exponent.maximum)
    return Bounds(0 if base.minimum >= 0 else -greatest, greatest)


def _left(a: Bounds, count: Bounds) -> Bounds:
    return _corners(a, count, lambda x, n: x << _count(n))


def _right(a: Bounds, count: Bounds) -> Bounds:
    return _corners(a, count, lambda x, n: x >> _count(n))


def _bits(a: Bounds, b: Bounds) -> Bounds:
    length = max(side.bit_length() for one in (a, b) for side in (one.minimum, one.maximum))
    positive = a.minimum >= 0 and b.minimum >= 0
    return Bounds(0 if positive else -(1 << length), (1 << length) - 1)


def _bits_of_both(a: Bounds, b: Bounds) -> Bounds:
    positive = [one.maximum for one in (a, b) if one.minimum >= 0]
    return Bounds(0, min(positive)) if positive else _bits(a, b)


_RULES: Final[tuple[tuple[Any, Callable[..., Bounds]], ...]] = (
    (sympy.Add, _sum),
    (sympy.Mul, _product),
    (sympy.Pow | Power, _power),
    (sympy.Max, _largest),
    (sympy.Min, _smallest),
    (sympy.Abs, _absolute),
    (FloorDivide, _quotient),
    (Modulo, _modulo),
    (ShiftLeft, _left),
    (ShiftRight, _right),
    (BitAnd, _bits_of_both),
    (BitXor | BitOr, _bits),
    (Select, _either),
)


def fits(dim: Dim, ranges: Ranges) -> bool:
    """Whether C++ that computes with 64 bits is right for all values in range: no part of the
    expression leaves them, no divisor can be 0, no exponent or shift be negative. What a condition
    excludes is asked the same."""
    return _fits(cpp_expr.tree(dim), ranges)


def _fits(node: ast.expr, ranges: Ranges) -> bool:
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    if not negated and not isinstance(node, ast.Compare | ast.BoolOp):
        if not expression.names(node):
            return _has_value(node)
        # -2**63 is left to what is checked: its absolute value is none of 64 bits.
        if bounds(cpp_expr.simplified(node), ranges).magnitude > INT64_MAX:
            return False
    children = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
    parts = [part for part in children if isinstance(part, ast.expr)]
    if not all(_fits(part, ranges) for part in parts):
        return False
    if isinstance(node, ast.BinOp):
        right = bounds(cpp_expr.simplified(node.right), ranges)
        if isinstance(node.op, ast.FloorDiv | ast.Mod):
            return not right.minimum <= 0 <= right.maximum
        if isinstance(node.op, ast.Pow | ast.RShift):
            return right.minimum >= 0
        if isinstance(node.op, ast.LShift):
            return right.within(0, _BEYOND - 1)
    return True


def _has_value(node: ast.expr) -> bool:
    try:
        return abs(expression.evaluate_tree(node)) <= INT64_MAX
    except expression.ExpressionError:
        return False


def divisor(expr: Any) -> int:
    """A number that divides the value, whatever the symbols are; 0 for the value 0."""
    if isinstance(expr, sympy.Integer):
        return abs(int(expr))
    if isinstance(expr, sympy.Mul):
        return math.prod(divisor(arg) for arg in expr.args)
    if isinstance(expr, sympy.Add | sympy.Max | sympy.Min | sympy.Abs | Modulo):
        return math.gcd(*(divisor(arg) for arg in expr.args))
    if isinstance(expr, sympy.Pow):
        return int(divisor(expr.base) ** int(expr.exp))
    if isinstance(expr, FloorDivide) and isinstance(expr.args[1], sympy.Integer):
        by = abs(int(expr.args[1]))
        whole = divisor(expr.args[0])
        return whole // by if by and whole % by == 0 else 1
    if isinstance(expr, Select):
        return math.gcd(*(divisor(arg) for arg in expr.args[1:]))
    if isinstance(expr, ShiftLeft):
        return divisor(expr.args[0])
    return 1
