"""Size expressions: Python text to C++ over ``int64_t``, and to sympy where two are compared.

The C++ is the text, operator by operator. Its value equals Python's wherever no part of the
expression leaves 64 bits; division, remainder, powers and shifts go through ``runtime/integer.h``,
as C++ rounds the other way for negative operands, or leaves the result undefined. Where a part may
leave 64 bits, or a divisor be 0, the same is computed with ``aoti::Checked``, which has a value
exactly where ``expression.evaluate`` has one, and the same.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sympy

from wrapgen import expression
from wrapgen.codegen.errors import CodegenError
from wrapgen.program import Dim

NO_VALUE: Final = sympy.Symbol("(no value)", integer=True)
"""What stands for a part without symbols that has no value, such as ``1 // 0``."""


class FloorDivide(sympy.Function):  # type: ignore[misc]
    """``a // b``. Not ``floor(a / b)``: sympy would go through rationals and rewrite it."""

    nargs = 2
    is_integer = True

    @classmethod
    def eval(cls, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
        """Simplifies, as sympy asks when it makes one; ``None`` leaves it as it is."""
        if b.is_zero:
            return NO_VALUE  # which is told where it is computed
        if a.is_Integer and b.is_Integer:
            return sympy.Integer(int(a) // int(b))
        if b == 1 or (a.is_zero and b.is_nonzero):
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
            return NO_VALUE
        if a.is_Integer and b.is_Integer:
            return sympy.Integer(int(a) % int(b))
        if b == 1 or (a.is_zero and b.is_nonzero):
            return sympy.Integer(0)
        return None


class _Operation(sympy.Function):  # type: ignore[misc]
    """An operator that sympy knows nothing of: only numbers are computed."""

    nargs = 2
    is_integer = True
    operator: type[ast.operator]

    @classmethod
    def eval(cls, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
        """Simplifies, as sympy asks when it makes one; ``None`` leaves it as it is."""
        if not (a.is_Integer and b.is_Integer):
            return None
        try:
            return sympy.Integer(expression.OPERATIONS[cls.operator](int(a), int(b)))
        except (OverflowError, expression.ExpressionError):
            return NO_VALUE


class Power(_Operation):
    """``a ** b`` where ``b`` is no literal."""

    operator = ast.Pow


class ShiftLeft(_Operation):
    """``a << b``."""

    operator = ast.LShift


class ShiftRight(_Operation):
    """``a >> b``."""

    operator = ast.RShift


class BitAnd(_Operation):
    """``a & b``."""

    operator = ast.BitAnd


class BitXor(_Operation):
    """``a ^ b``."""

    operator = ast.BitXor


class BitOr(_Operation):
    """``a | b``."""

    operator = ast.BitOr


class Select(sympy.Function):  # type: ignore[misc]
    """``a if c else b``, whose arguments are c, a and b."""

    nargs = 3
    is_integer = True

    @classmethod
    def eval(cls, c: Any, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr | None:
        """Simplifies, as sympy asks when it makes one; ``None`` leaves it as it is."""
        if c in (sympy.true, sympy.false):
            return a if c is sympy.true else b
        return None


_BY_OPERATOR: Final[dict[type[ast.operator], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: FloorDivide,
    ast.Mod: Modulo,
    ast.Pow: Power,
    ast.LShift: ShiftLeft,
    ast.RShift: ShiftRight,
    ast.BitAnd: BitAnd,
    ast.BitXor: BitXor,
    ast.BitOr: BitOr,
}

_BY_COMPARISON: Final[dict[type[ast.cmpop], Any]] = {
    ast.Eq: sympy.Eq,
    ast.NotEq: sympy.Ne,
    ast.Lt: sympy.Lt,
    ast.LtE: sympy.Le,
    ast.Gt: sympy.Gt,
    ast.GtE: sympy.Ge,
}


def tree(value: Dim) -> ast.expr:
    """Parses a ``Dim``; one without symbols is its value, as one number.

    Raises ``CodegenError`` for what is no expression, or has no symbols and no value.
    """
    try:
        parsed = ast.Constant(value) if isinstance(value, int) else expression.parse(value)
        if not expression.names(parsed):
            return ast.Constant(expression.evaluate(value))
    except expression.ExpressionError as error:
        raise CodegenError(str(error)) from error
    return parsed


def parse(value: Dim) -> sympy.Expr:
    """Turns a ``Dim`` into a sympy expression over integer symbols, simplified, so that two that
    mean the same are often equal. Raises ``CodegenError`` as ``tree`` does."""
    return simplified(tree(value))


def simplified(node: ast.expr) -> sympy.Expr:
    """The same of a part of what ``tree`` returns."""
    match node:
        case ast.Constant(value=int() as value):
            return sympy.Integer(value)
        case ast.Name(id=name):
            return sympy.Symbol(name, integer=True)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return -simplified(operand) - 1
        case ast.UnaryOp(operand=operand):
            return -simplified(operand)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = simplified(left), simplified(right)
            if isinstance(op, ast.Pow) and b.is_Integer and 0 <= b < 64:
                return a**b
            return _BY_OPERATOR[type(op)](a, b)
        case ast.Call(func=ast.Name(id=name), args=args):
            functions = {"abs": sympy.Abs, "max": sympy.Max, "min": sympy.Min}
            return functions[name](*[simplified(arg) for arg in args])
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return Select(_condition(test), simplified(body), simplified(orelse))
    raise AssertionError(f"the grammar let {ast.dump(node)} through")


def _condition(node: ast.expr) -> Any:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _BY_COMPARISON[type(op)](simplified(left), simplified(right))
        case ast.BoolOp(op=op, values=values):
            combine = sympy.And if isinstance(op, ast.And) else sympy.Or
            return combine(*[_condition(value) for value in values])
        case ast.UnaryOp(operand=operand):
            return sympy.Not(_condition(operand))
    raise AssertionError(f"the grammar let {ast.dump(node)} through")


_CHOICE: Final = 0
_LOGIC: Final = 1
_COMPARISON: Final = 2
_BITS: Final = 3
_SUM: Final = 4
_PRODUCT: Final = 5
_UNARY: Final = 6
_ATOM: Final = 7

_INFIX: Final[dict[type[ast.operator], tuple[str, int]]] = {
    ast.Add: ("+", _SUM),
    ast.Sub: ("-", _SUM),
    ast.Mult: ("*", _PRODUCT),
    ast.BitAnd: ("&", _BITS),
    ast.BitXor: ("^", _BITS),
    ast.BitOr: ("|", _BITS),
}

_FUNCTIONS: Final[dict[type[ast.operator], str]] = {
    ast.FloorDiv: "aoti::FloorDivide",
    ast.Mod: "aoti::Modulo",
    ast.Pow: "aoti::Power",
    ast.LShift: "aoti::ShiftLeft",
    ast.RShift: "aoti::ShiftRight",
}

_CHECKED_COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, bool]]] = {
    ast.Eq: ("aoti::Equal", False),
    ast.NotEq: ("aoti::Unequal", False),
    ast.Lt: ("aoti::Less", False),
    ast.LtE: ("aoti::LessOrEqual", False),
    ast.Gt: ("aoti::Less", True),
    ast.GtE: ("aoti::LessOrEqual", True),
}
"""Function, and whether its arguments change places."""


def cpp(value: Dim, names: Mapping[str, str] | None = None, *, checked: bool = False) -> str:
    """Prints a C++ expression of type ``int64_t``, or ``aoti::Checked`` if it has symbols and is to
    be ``checked``. Symbols are variables of type ``int64_t``, called as ``names`` says.

    Raises ``CodegenError`` as ``tree`` does.
    """
    return _Printer(names or {}, checked).print(tree(value))[0]


class _Printer:
    def __init__(self, names: Mapping[str, str], checked: bool) -> None:
        self._names = names
        self._checked = checked

    def print(self, node: ast.expr) -> tuple[str, int]:
        """Returns C++ and how tightly its outermost operator binds."""
        if not expression.names(node):
            return self._number(node)
        match node:
            case ast.Name(id=name):
                variable = self._names.get(name, name)
                return f"aoti::Checked({variable})" if self._checked else variable, _ATOM
            case ast.UnaryOp(op=op, operand=operand):
                sign = "~" if isinstance(op, ast.Invert) else "-"
                text, binding = self.print(operand)
                # Two minus signs would be another operator.
                return sign + (text if binding == _ATOM else f"({text})"), _UNARY
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _INFIX:
                sign, binding = _INFIX[type(op)]
                # Operands of operators on bits are put in brackets: few know how tightly they bind.
                bits = binding == _BITS
                a = self._within(left, _UNARY if bits else binding)
                b = self._within(right, _UNARY if bits else binding + 1)
                return f"{a} {sign} {b}", binding
            case ast.BinOp(left=left, op=op, right=right):
                return self._call(_FUNCTIONS[type(op)], [left, right]), _ATOM
            case ast.Call(func=ast.Name(id="abs"), args=args):
                return self._call("aoti::Absolute", args), _ATOM
            case ast.Call(func=ast.Name(id=name)):
                operands = [self.print(arg)[0] for arg in _operands(node, name)]
                if self._checked:
                    function = "aoti::Max" if name == "max" else "aoti::Min"
                    return self._nested(function, operands), _ATOM
                listed = ", ".join(operands)
                arguments = listed if len(operands) == 2 else f"{{{listed}}}"
                return f"std::{name}<int64_t>({arguments})", _ATOM
            case ast.IfExp(test=test, body=body, orelse=orelse):
                if self._checked:
                    branches = [self.print(branch)[0] for branch in (body, orelse)]
                    arguments = ", ".join([self._condition(test)[0], *branches])
                    return f"aoti::Select({arguments})", _ATOM
                condition = self._condition_within(test, _LOGIC)
                first, second = self._wide(body), self._within(orelse, _LOGIC)
                return f"{condition} ? {first} : {second}", _CHOICE
        raise AssertionError(f"no C++ for {ast.dump(node)}")

    def _number(self, node: ast.expr) -> tuple[str, int]:
        try:
            return _literal(expression.evaluate_tree(node))
        except expression.ExpressionError:
            assert self._checked, f"{expression.unparse(node)} has no value"
            return "aoti::Checked::None()", _ATOM

    def _wide(self, node: ast.expr) -> str:
        """A branch that gives both 64 bits."""
        text, binding = self.print(node)
        if isinstance(node, ast.Constant) or not expression.names(node):
            return text if "INT64_MIN" in text or "{" in text else f"int64_t{{{text}}}"
        return text if binding >= _LOGIC else f"({text})"

    def _condition(self, node: ast.expr) -> tuple[str, int]:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if self._checked:
                function, swapped = _CHECKED_COMPARISONS[type(op)]
                return self._call(function, [right, left] if swapped else [left, right]), _ATOM
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                sign = expression.COMPARISONS[type(op)][0]
                return f"{self._within(left, _SUM)} {sign} {self._within(right, _SUM)}", _COMPARISON
            case ast.BoolOp(op=op, values=values) if self._checked:
                function = "aoti::And" if isinstance(op, ast.And) else "aoti::Or"
                return self._nested(function, [self._condition(v)[0] for v in values]), _ATOM
            case ast.BoolOp(op=op, values=values):
                sign = " && " if isinstance(op, ast.And) else " || "
                return sign.join(self._condition_within(v, _COMPARISON) for v in values), _LOGIC
            case ast.UnaryOp(operand=operand) if self._checked:
                return f"aoti::Not({self._condition(operand)[0]})", _ATOM
            case ast.UnaryOp(operand=operand):
                return f"!({self._condition(operand)[0]})", _UNARY
        raise AssertionError(f"no C++ for {ast.dump(node)}")

    def _condition_within(self, node: ast.expr, binding: int) -> str:
        text, own = self._condition(node)
        return text if own >= binding else f"({text})"

    def _call(self, function: str, args: Sequence[ast.expr]) -> str:
        return f"{function}({', '.join(self.print(arg)[0] for arg in args)})"

    def _within(self, node: ast.expr, binding: int) -> str:
        text, own = self.print(node)
        return text if own >= binding else f"({text})"

    def _nested(self, function: str, args: Sequence[str]) -> str:
        if len(args) == 1:
            return args[0]
        return f"{function}({args[0]}, {self._nested(function, args[1:])})"


def _operands(node: ast.expr, name: str) -> list[ast.expr]:
    """Those of ``max(a, max(b, c))`` or of the like with ``min``."""
    match node:
        case ast.Call(func=ast.Name(id=function), args=args) if function == name:
            return [operand for arg in args for operand in _operands(arg, name)]
    return [node]


def _literal(value: int) -> tuple[str, int]:
    if value == expression.INT64_MIN:
        return "INT64_MIN", _ATOM
    # Wide enough on its own: two `int` operands would be computed in 32 bits.
    text = f"int64_t{{{value}}}" if abs(value) > 1 << 30 else str(value)
    return text, _ATOM if value >= 0 or text[0] == "i" else _UNARY
