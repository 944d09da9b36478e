"""What follows for an expression from the ranges of its symbols: between which numbers its value
lies, whether 64 bits suffice for computing it in C++, and by which number it is divisible.

Everything is on the safe side: symbols are taken to vary independently of one another, so the true
bounds may be narrower.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import sympy

from wrapgen.codegen.expr import FloorDivide, Modulo
from wrapgen.expression import INT64_MAX


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


def bounds(expr: Any, ranges: Ranges) -> Bounds:
    """Bounds of the value of an expression that ``expr.parse`` made."""
    if isinstance(expr, sympy.Integer):
        return Bounds(int(expr), int(expr))
    if isinstance(expr, sympy.Symbol):
        return ranges[str(expr.name)]
    args = [bounds(arg, ranges) for arg in expr.args]
    lows, highs = [arg.minimum for arg in args], [arg.maximum for arg in args]
    if isinstance(expr, sympy.Add):
        return Bounds(sum(lows), sum(highs))
    if isinstance(expr, sympy.Mul):
        product = args[0]
        for arg in args[1:]:
            product = _corners(product, arg, lambda a, b: a * b)
        return product
    if isinstance(expr, sympy.Pow):
        base, exponent = args[0], int(expr.exp)
        powers = [base.minimum**exponent, base.maximum**exponent]
        inside = [0] if exponent % 2 == 0 and base.minimum < 0 < base.maximum else []
        return Bounds(min(powers + inside), max(powers))
    if isinstance(expr, sympy.Max):
        return Bounds(max(lows), max(highs))
    if isinstance(expr, sympy.Min):
        return Bounds(min(lows), min(highs))
    if isinstance(expr, sympy.Abs):
        (arg,) = args
        least = 0 if arg.minimum <= 0 <= arg.maximum else min(abs(arg.minimum), abs(arg.maximum))
        return Bounds(least, arg.magnitude)
    if isinstance(expr, FloorDivide):
        a, b = args
        if b.minimum <= 0 <= b.maximum:
            return Bounds(-a.magnitude, a.magnitude)
        return _corners(a, b, lambda x, y: x // y)
    if isinstance(expr, Modulo):
        return _modulo(*args)
    raise AssertionError(f"no bounds for {sympy.srepr(expr)}")


def _corners(a: Bounds, b: Bounds, operation: Any) -> Bounds:
    """Of an operation that is monotone in each operand."""
    values = [operation(x, y) for x in (a.minimum, a.maximum) for y in (b.minimum, b.maximum)]
    return Bounds(min(values), max(values))


def _modulo(a: Bounds, b: Bounds) -> Bounds:
    if a.minimum >= 0 and a.maximum < b.minimum:
        return a
    low, high = min(b.minimum + 1, 0), max(b.maximum - 1, 0)
    if a.minimum >= 0 and b.minimum > 0:
        high = min(high, a.maximum)
    return Bounds(low, high)


def fits(expr: Any, ranges: Ranges) -> bool:
    """Whether C++ that computes with 64 bits is right for all values in range: no part of the
    expression, in whatever order its terms are added and its factors multiplied, leaves them, and
    no divisor can be 0."""
    if isinstance(expr, sympy.Integer | sympy.Symbol):
        return bounds(expr, ranges).magnitude <= INT64_MAX
    if isinstance(expr, sympy.Pow):
        base = bounds(expr.base, ranges).magnitude
        return bool(base ** int(expr.exp) <= INT64_MAX) and fits(expr.base, ranges)
    if not all(fits(arg, ranges) for arg in expr.args):
        return False
    magnitudes = [bounds(arg, ranges).magnitude for arg in expr.args]
    if isinstance(expr, sympy.Add):
        return sum(magnitudes) <= INT64_MAX
    if isinstance(expr, sympy.Mul):
        return math.prod(max(magnitude, 1) for magnitude in magnitudes) <= INT64_MAX
    if isinstance(expr, FloorDivide | Modulo):
        divisor = bounds(expr.args[1], ranges)
        return not divisor.minimum <= 0 <= divisor.maximum
    return True


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
    return 1
