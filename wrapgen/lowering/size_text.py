"""Sizes of PyTorch, which are sympy expressions, in the program file's grammar.

PyTorch computes some sizes with floating-point numbers: ``int(n / 2)``, ``math.ceil(n * 1.5)``. The
program file has integers alone. Such a size is written as the exact quotient of two integers,
rounded as PyTorch rounds it. It is accepted where the two cannot differ for sizes in range:

- A product or sum of floating-point numbers is exact where its numerator, over a denominator that
  is a power of two, has at most 53 bits.
- ``a / b`` of integers is rounded once, to the nearest of 53 bits. Next to an integer, or to the
  middle of two, quotients are at least ``1 / (2 * abs(b))`` away, or on it; so with
  ``abs(a) + abs(b) < 2**51`` rounding carries none there, and the integer below, above or nearest
  is that of the exact quotient.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import sympy
from torch.utils._sympy import functions
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from wrapgen.lowering.errors import LoweringError


class UnknownExpression(LoweringError):  # noqa: N818 (a LoweringError by nature)
    """A size that the program file has no expression for."""


class Range(Protocol):
    """Between what a symbol lies, both inclusive."""

    @property
    def minimum(self) -> int:
        """The least value."""

    @property
    def maximum(self) -> int:
        """The greatest value."""


def text_of(
    expr: Any,
    names: Mapping[sympy.Symbol, str],
    ranges: Mapping[sympy.Symbol, Range] | None = None,
) -> str:
    """An integer expression in the program file's grammar.

    Args:
      expr: the expression, of value integer for all values of its symbols.
      names: what to write for each symbol.
      ranges: of each symbol; without them no floating-point number is accepted.

    Raises:
      UnknownExpression: it has a symbol or function that the grammar lacks.
    """
    return _Writer(names, ranges or {}).integer(sympy.sympify(expr))[0]


def condition_of(
    condition: Any,
    names: Mapping[sympy.Symbol, str],
    ranges: Mapping[sympy.Symbol, Range] | None = None,
) -> str:
    """A condition as the program file's constraints have it, which is one comparison.

    Raises:
      UnknownExpression: it is no condition, or has a symbol or function that the grammar lacks.
    """
    writer = _Writer(names, ranges or {})
    text = writer.condition(sympy.sympify(condition))[0]
    return text if isinstance(condition, _COMPARED) else f"(1 if {text} else 0) == 1"


# How tightly an operator binds, as in Python.
(
    _CHOICE,
    _OR,
    _AND,
    _NOT,
    _COMPARISON,
    _BIT_OR,
    _BIT_XOR,
    _BIT_AND,
    _SHIFT,
    _SUM,
    _PRODUCT,
    _POWER,
    _ATOM,
) = range(13)

_COMPARISONS: Final[dict[Any, str]] = {
    sympy.Eq: "==",
    sympy.Ne: "!=",
    sympy.Lt: "<",
    sympy.Le: "<=",
    sympy.Gt: ">",
    sympy.Ge: ">=",
}
_COMPARED: Final = tuple(_COMPARISONS)

_BITS: Final[dict[Any, tuple[str, int]]] = {
    functions.BitwiseFn_bitwise_and: ("&", _BIT_AND),
    functions.BitwiseFn_bitwise_or: ("|", _BIT_OR),
    functions.BitwiseFn_bitwise_xor: ("^", _BIT_XOR),
}

_EXACT: Final = 1 << 53
"""Integers below it, positive or negative, are floating-point numbers."""

_CLEAR: Final = 1 << 51
"""Quotients of integers whose absolute values have a smaller sum round to the right integer."""

_Text = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class _Quotient:
    """A number: two integers, and whether floating point has the number itself or the nearest."""

    above: Any
    below: Any
    exact: bool


class _Writer:
    def __init__(
        self, names: Mapping[sympy.Symbol, str], ranges: Mapping[sympy.Symbol, Range]
    ) -> None:
        self._names = names
        self._ranges = ranges

    def integer(self, expr: Any) -> _Text:
        """The text of an integer, and how tightly its outermost operator binds."""
        if isinstance(expr, sympy.Symbol):
            if expr not in self._names:
                raise UnknownExpression(
                    f"cannot lower the model: a size depends on the values of a tensor ({expr});"
                    " sizes must follow from those of the inputs"
                )
            return self._names[expr], _ATOM
        if expr.is_Integer:
            return (str(expr), _ATOM) if expr >= 0 else (str(expr), _SUM)
        for kinds, write in self._writers():
            if isinstance(expr, kinds):
                return write(expr)
        raise UnknownExpression(
            f"cannot lower the model: a size has {type(expr).__name__} in {expr}; sizes may have"
            " + - * // % << >> & | ^, min, max, abs, powers, choices, and quotients that are"
            " rounded to an integer"
        )

    def _writers(self) -> Iterable[tuple[Any, Callable[[Any], _Text]]]:
        return (
            ((sympy.Add, sympy.Mul), self._sum_or_product),
            ((sympy.Pow, functions.PowByNatural), self._power),
            # functions.CeilDiv makes one of these.
            ((functions.FloorDiv, functions.CleanDiv), lambda e: self._floor(*e.args)),
            ((functions.Mod, functions.PythonMod, sympy.Mod), lambda e: self._remainder(*e.args)),
            (functions.ModularIndexing, self._modular_indexing),
            ((functions.Max, sympy.Max), lambda e: self._extreme("max", e)),
            ((functions.Min, sympy.Min), lambda e: self._extreme("min", e)),
            (sympy.Abs, lambda e: (f"abs({self.integer(e.args[0])[0]})", _ATOM)),
            (functions.Identity, lambda e: self.integer(e.args[0])),
            (functions.Where, lambda e: self._choice(*e.args)),
            (sympy.Piecewise, self._piecewise),
            (functions.LShift, lambda e: self._infix("<<", _SHIFT, *e.args)),
            (functions.RShift, lambda e: self._infix(">>", _SHIFT, *e.args)),
            (tuple(_BITS), lambda e: self._infix(*_BITS[type(e)], *e.args)),
            ((functions.FloorToInt, sympy.floor), self._rounded_down),
            ((functions.CeilToInt, sympy.ceiling), self._rounded_up),
            (functions.TruncToInt, self._truncated),
            (functions.RoundToInt, self._rounded),
        )

    def _within(self, expr: Any, least: int) -> str:
        text, binds = self.integer(expr)
        return text if binds >= least else f"({text})"

    def _infix(self, sign: str, binds: int, a: Any, b: Any) -> _Text:
        return f"{self._within(a, binds)} {sign} {self._within(b, binds + 1)}", binds

    def _floor(self, a: Any, b: Any) -> _Text:
        return f"{self._within(a, _POWER)} // {self._within(b, _POWER)}", _PRODUCT

    def _remainder(self, a: Any, b: Any) -> _Text:
        return f"{self._within(a, _POWER)} % {self._within(b, _POWER)}", _PRODUCT

    def _modular_indexing(self, expr: Any) -> _Text:
        base, divisor, modulus = expr.args
        return f"{self._floor(base, divisor)[0]} % {self._within(modulus, _POWER)}", _PRODUCT

    def _sum_or_product(self, expr: Any) -> _Text:
        above, below = _fraction(expr)
        if below != 1:
            if not below.is_Integer:
                raise UnknownExpression(f"cannot lower the model: no exact expression of {expr}")
            return f"{self._within(above, _PRODUCT)} // {below}", _PRODUCT
        return self._sum(expr) if isinstance(expr, sympy.Add) else self._product(expr)

    def _sum(self, expr: Any) -> _Text:
        terms = sorted(expr.args, key=lambda term: (bool(term.is_Integer), str(term)))
        # Subtractions last: nothing in between is negative that need not be.
        terms.sort(key=lambda term: bool(term.could_extract_minus_sign()))
        text = self._within(terms[0], _SUM)
        for term in terms[1:]:
            negative = term.could_extract_minus_sign()
            text += " - " if negative else " + "
            text += self._within(-term if negative else term, _PRODUCT)
        return text, _SUM

    def _product(self, expr: Any) -> _Text:
        factors = sorted(expr.args, key=lambda factor: (not factor.is_Integer, str(factor)))
        if factors[0] == -1:
            rest = sympy.Mul(*factors[1:], evaluate=False) if len(factors) > 2 else factors[1]
            return f"-{self._within(rest, _POWER)}", _SUM
        # A division in a product is put in brackets, as it does not commute with it.
        return " * ".join(self._within(factor, _POWER) for factor in factors), _PRODUCT

    def _power(self, expr: Any) -> _Text:
        base, exponent = expr.args
        if isinstance(expr, sympy.Pow) and not (exponent.is_Integer and exponent >= 0):
            raise UnknownExpression(f"cannot lower the model: no exact expression of {expr}")
        return f"{self._within(base, _ATOM)} ** {self._within(exponent, _ATOM)}", _POWER

    def _extreme(self, name: str, expr: Any) -> _Text:
        operands = sorted(self.integer(operand)[0] for operand in expr.args)
        return f"{name}({', '.join(operands)})", _ATOM

    def _choice(self, condition: Any, a: Any, b: Any) -> _Text:
        test, first = self._condition_within(condition, _OR), self._within(a, _OR)
        return f"{first} if {test} else {self.integer(b)[0]}", _CHOICE

    def _piecewise(self, expr: Any) -> _Text:
        *cases, (otherwise, last) = expr.args
        if last is not sympy.true:
            raise UnknownExpression(
                f"cannot lower the model: a size is {expr}, which has no value where no condition"
                " holds"
            )
        text, binds = self.integer(otherwise)
        for value, condition in reversed(cases):
            test = self._condition_within(condition, _OR)
            text, binds = f"{self._within(value, _OR)} if {test} else {text}", _CHOICE
        return text, binds

    def condition(self, expr: Any) -> _Text:
        """The text of a condition, and how tightly its outermost operator binds."""
        if type(expr) in _COMPARISONS:
            sides = [self._within(side, _BIT_OR) for side in expr.args]
            return f" {_COMPARISONS[type(expr)]} ".join(sides), _COMPARISON
        for kind, word, binds in ((sympy.And, " and ", _AND), (sympy.Or, " or ", _OR)):
            if isinstance(expr, kind):
                parts = sorted(self._condition_within(part, binds + 1) for part in expr.args)
                return word.join(parts), binds
        if isinstance(expr, sympy.Not):
            return f"not {self._condition_within(expr.args[0], _COMPARISON)}", _NOT
        raise UnknownExpression(
            f"cannot lower the model: a condition on sizes is {expr}; conditions may have"
            " comparisons, and, or, not"
        )

    def _condition_within(self, expr: Any, least: int) -> str:
        text, binds = self.condition(expr)
        return text if binds >= least else f"({text})"

    # Numbers that are no integers, which something around them makes one.

    def _rounded_down(self, expr: Any) -> _Text:
        quotient = self._quotient(expr.args[0])
        if quotient.below == 1:
            return self.integer(quotient.above)
        return self._floor(quotient.above, quotient.below)

    def _rounded_up(self, expr: Any) -> _Text:
        quotient = self._quotient(expr.args[0])
        if quotient.below == 1:
            return self.integer(quotient.above)
        return f"-({self._floor(-quotient.above, quotient.below)[0]})", _SUM

    def _truncated(self, expr: Any) -> _Text:
        quotient = self._quotient(expr.args[0])
        above, below = quotient.above, quotient.below
        if below == 1:
            return self.integer(above)
        least_above, least_below = self._bounds(above)[0], self._bounds(below)[0]
        if least_above >= 0 and least_below > 0:
            return self._floor(above, below)
        a, b = self._within(above, _BIT_OR), self._within(below, _BIT_OR)
        if least_below > 0:
            down, up = self._floor(above, below)[0], self._floor(-above, below)[0]
            return f"{down} if {a} >= 0 else -({up})", _CHOICE
        size = f"abs({self.integer(above)[0]}) // abs({self.integer(below)[0]})"
        positive = f"{a} >= 0 and {b} > 0 or {a} <= 0 and {b} < 0"
        return f"{size} if {positive} else -({size})", _CHOICE

    def _rounded(self, expr: Any) -> _Text:
        """To the nearest integer, and to the even one of two."""
        quotient = self._quotient(expr.args[0])
        above, below = quotient.above, quotient.below
        if below == 1:
            return self.integer(above)
        down, rest = self._floor(above, below)[0], self._remainder(above, below)[0]
        if self._bounds(below)[0] <= 0:
            raise UnknownExpression(
                f"cannot lower the model: a size is {expr}, whose divisor may be negative"
            )
        b = self._within(below, _BIT_OR)
        up = f"2 * ({rest}) > {b} or 2 * ({rest}) == {b} and {down} % 2 == 1"
        return f"{down} + (1 if {up} else 0)", _SUM

    def _quotient(self, expr: Any) -> _Quotient:
        """A number that is no integer by nature, as a quotient of integers."""
        if isinstance(expr, (functions.IntTrueDiv, functions.FloatTrueDiv)):
            a, b = (self._quotient(side) for side in expr.args)
            if not (a.exact and b.exact):
                raise self._inexact(expr)
            above, below = a.above * b.below, a.below * b.above
            self._demand(expr, self._magnitude(above) + self._magnitude(below), _CLEAR)
            return _Quotient(above, below, exact=False)
        if isinstance(expr, functions.ToFloat):
            self._demand(expr, self._magnitude(expr.args[0]), _EXACT)
            return _Quotient(expr.args[0], sympy.Integer(1), exact=True)
        if isinstance(expr, functions.TruncToFloat):
            return _Quotient(functions.TruncToInt(expr.args[0]), sympy.Integer(1), exact=True)
        if isinstance(expr, sympy.Float):
            above, below = float(expr).as_integer_ratio()
            return _Quotient(sympy.Integer(above), sympy.Integer(below), exact=True)
        if expr.is_Rational:
            exact = expr.q & (expr.q - 1) == 0
            return _Quotient(sympy.Integer(expr.p), sympy.Integer(expr.q), exact)
        if isinstance(expr, (sympy.Add, sympy.Mul)) and not expr.is_integer:
            return self._of_parts(expr)
        if not expr.is_integer:
            raise self._inexact(expr)
        return _Quotient(expr, sympy.Integer(1), exact=True)

    def _of_parts(self, expr: Any) -> _Quotient:
        """A sum or product that is no integer."""
        if not expr.atoms(*_FLOATING):
            # Only sympy's own rewriting: the number was never computed in floating point.
            above, below = _fraction(expr)
            return _Quotient(above, below, exact=False)
        parts = [self._quotient(part) for part in expr.args]
        if not all(part.exact for part in parts):
            raise self._inexact(expr)
        sizes = [self._magnitude(part.above) for part in parts]
        below = math.prod(int(part.below) for part in parts)
        # Whatever the order of the operations, none has a larger numerator.
        if isinstance(expr, sympy.Add):
            largest = sum(
                size * (below // int(part.below)) for size, part in zip(sizes, parts, strict=True)
            )
            above = sympy.Add(*(part.above * (below // int(part.below)) for part in parts))
        else:
            largest = math.prod(max(size, 1) for size in sizes)
            above = sympy.Mul(*(part.above for part in parts))
        self._demand(expr, largest, _EXACT)
        return _Quotient(above, sympy.Integer(below), exact=True)

    def _inexact(self, expr: Any) -> UnknownExpression:
        return UnknownExpression(
            f"cannot lower the model: a size is computed with the floating-point number {expr},"
            " which is no quotient of two integers. Compute it with integers, such as n // 2 for"
            " int(n / 2), -(-n // 2) for math.ceil(n / 2), n * 3 // 2 for int(n * 1.5)"
        )

    def _demand(self, expr: Any, magnitude: int, limit: int) -> None:
        if magnitude >= limit:
            raise UnknownExpression(
                f"cannot lower the model: a size is computed with the floating-point number {expr},"
                " which is rounded for some sizes in range. Compute it with integers, such as"
                " n // 2 for int(n / 2), or choose smaller maxima"
            )

    def _magnitude(self, expr: Any) -> int:
        return max(abs(bound) for bound in self._bounds(expr))

    def _bounds(self, expr: Any) -> tuple[int, int]:
        """Between what an integer lies; 64 bits where that is not known."""
        try:
            boxes: Any = {s: ValueRanges(r.minimum, r.maximum) for s, r in self._ranges.items()}
            found = bound_sympy(sympy.sympify(expr), boxes)
            return int(found.lower), int(found.upper)
        except Exception:  # it has no rule for some functions, and says so in many ways
            return -(1 << 63), (1 << 63) - 1


def _fraction(expr: Any) -> tuple[Any, Any]:
    """A sum or product as one quotient; sympy makes ``n / 2 + m / 2`` of what is an integer."""
    divided = [
        part
        for term in sympy.Add.make_args(expr)
        for part in sympy.Mul.make_args(term)
        if (part.is_Rational and not part.is_Integer) or (part.is_Pow and part.exp.is_negative)
    ]
    above, below = sympy.fraction(sympy.together(expr)) if divided else (expr, sympy.Integer(1))
    return above, below


_FLOATING: Final = (
    sympy.Float,
    functions.ToFloat,
    functions.TruncToFloat,
    functions.IntTrueDiv,
    functions.FloatTrueDiv,
)
