"""Size expressions: Python text to sympy to C++ over ``int64_t``.

The C++ value equals Python's wherever no intermediate result leaves 64 bits; division and remainder
go through ``runtime/integer.h``, as C++ rounds them the other way for negative operands. Where that
may happen, the same is computed with ``aoti::Checked``, which tells.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sympy
from sympy.core.sorting import default_sort_key

from wrapgen import expression
from wrapgen.codegen.errors import CodegenError


class FloorDivide(sympy.Function):  # type: ignore[misc]
    """``a // b``. Not ``floor(a / b)``: sympy would go through rationals and rewrite it."""

    nargs = 2
    is_integer = True

    @classmethod
    def eval(cls, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
        """Simplifies, as sympy asks when it makes one; ``None`` leaves it as it is."""
        if b.is_zero:
            raise ZeroDivisionError
        if a.is_Integer and b.is_Integer:
            return sympy.Integer(int(a) // int(b))
        if a.is_zero or b == 1:
            return a
        return None


class Modulo(sympy.Function):  # type: ignore[misc]
    """``a % b``; sympy's own ``Mod`` rewrites sums and products into other ones."""

    nargs = 2
    is_integer = True

    @classmethod
    def eval(cls, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
        """Simplifies, as sympy asks when it makes one; ``None`` leaves it as it is."""
        if b.is_zero:
            raise ZeroDivisionError
        if a.is_Integer and b.is_Integer:
            return sympy.Integer(int(a) % int(b))
        if a.is_zero or b == 1:
            return sympy.Integer(0)
        return None


def parse(value: int | str) -> sympy.Expr:
    """Turns a ``Dim`` into a simplified sympy expression over integer symbols."""
    if isinstance(value, int):
        return sympy.Integer(value)
    try:
        return _to_sympy(expression.parse(value))
    except expression.ExpressionError as error:
        raise CodegenError(str(error)) from error
    except ZeroDivisionError as error:
        raise CodegenError(f"{value!r} divides by zero") from error


def _to_sympy(node: ast.expr) -> sympy.Expr:
    match node:
        case ast.Constant(value=int() as value):
            return sympy.Integer(value)
        case ast.Name(id=name):
            return sympy.Symbol(name, integer=True)
        case ast.UnaryOp(operand=operand):
            return -_to_sympy(operand)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _to_sympy(left), _to_sympy(right)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return FloorDivide(a, b)
                case ast.Mod():
                    return Modulo(a, b)
                case ast.Pow():
                    return a**b
        case ast.Call(func=ast.Name(id=name), args=args):
            functions = {"abs": sympy.Abs, "max": sympy.Max, "min": sympy.Min}
            return functions[name](*[_to_sympy(arg) for arg in args])
    raise AssertionError(f"the grammar let {ast.dump(node)} through")


_SUM: Final = 0
_PRODUCT: Final = 1
_UNARY: Final = 2
_ATOM: Final = 3


def cpp(expr: sympy.Expr, names: Mapping[str, str] | None = None, *, checked: bool = False) -> str:
    """Prints a C++ expression of type ``int64_t``, or ``aoti::Checked`` if it has symbols and is to
    be ``checked``. Symbols are variables of type ``int64_t``, called as ``names`` says.

    Raises ``CodegenError`` for a constant that does not fit 64 bits.
    """
    return _Printer(names or {}, checked).print(sympy.sympify(expr))[0]


class _Printer:
    def __init__(self, names: Mapping[str, str], checked: bool) -> None:
        self._names = names
        self._checked = checked

    def print(self, expr: Any) -> tuple[str, int]:
        """Returns C++ and how tightly its outermost operator binds."""
        if isinstance(expr, sympy.Integer):
            return _literal(int(expr))
        if isinstance(expr, sympy.Symbol):
            name = self._names.get(str(expr.name), str(expr.name))
            return f"aoti::Checked({name})" if self._checked else name, _ATOM
        if isinstance(expr, sympy.Add):
            return self._sum(expr.as_ordered_terms()), _SUM
        if isinstance(expr, sympy.Mul):
            coefficient, rest = expr.as_coeff_Mul()
            if coefficient == -1:
                return "-" + self._within(rest, _UNARY), _UNARY
            factors = [self._within(factor, _UNARY) for factor in expr.as_ordered_factors()]
            return " * ".join(factors), _PRODUCT
        if isinstance(expr, sympy.Pow) and isinstance(expr.exp, sympy.Integer) and expr.exp > 0:
            return self._call("aoti::Power", expr.args), _ATOM
        for kind, function in _FUNCTIONS:
            if isinstance(expr, kind):
                return self._call(function, expr.args), _ATOM
        if isinstance(expr, sympy.Max | sympy.Min):
            largest = isinstance(expr, sympy.Max)
            if self._checked:
                function = "aoti::Max" if largest else "aoti::Min"
            else:
                function = "std::max<int64_t>" if largest else "std::min<int64_t>"
            # sympy keeps these arguments in a set, whose order depends on the hash seed.
            return self._nested(function, sorted(expr.args, key=default_sort_key)), _ATOM
        raise AssertionError(f"no C++ for {sympy.srepr(expr)}")

    def _call(self, function: str, args: Sequence[Any]) -> str:
        return f"{function}({', '.join(self.print(arg)[0] for arg in args)})"

    def _within(self, expr: Any, binding: int) -> str:
        text, own = self.print(expr)
        return text if own >= binding else f"({text})"

    def _sum(self, terms: Sequence[Any]) -> str:
        text = ""
        for term in terms:
            coefficient, rest = term.as_coeff_Mul()
            if not text:
                text = self._within(term, _SUM)
            elif coefficient < 0 and not (rest == 1 and coefficient == expression.INT64_MIN):
                text += " - " + self._within(-term, _PRODUCT)
            else:
                text += " + " + self._within(term, _SUM)
        return text

    def _nested(self, function: str, args: Sequence[Any]) -> str:
        first = self.print(args[0])[0]
        if len(args) == 1:
            return first
        return f"{function}({first}, {self._nested(function, args[1:])})"


_FUNCTIONS: Final[tuple[tuple[Any, str], ...]] = (
    (FloorDivide, "aoti::FloorDivide"),
    (Modulo, "aoti::Modulo"),
    (sympy.Abs, "aoti::Absolute"),
)


def _literal(value: int) -> tuple[str, int]:
    if not expression.INT64_MIN <= value <= expression.INT64_MAX:
        raise CodegenError(f"the constant {value} does not fit 64 bits")
    if value == expression.INT64_MIN:
        return "INT64_MIN", _ATOM
    # Wide enough on its own: two `int` operands would be computed in 32 bits.
    return f"int64_t{{{value}}}" if abs(value) > 1 << 30 else str(
        value
    ), _ATOM if value >= 0 else _UNARY
