"""Integer expressions in program files: what may stand in one, and its value.

The grammar is a small part of Python's, and so is the meaning:

    expression: INTEGER | NAME | "-" e | e "+" e | e "-" e | e "*" e | e "//" e | e "%" e
              | e "**" INTEGER | "(" e ")" | "min(" e "," e... ")" | "max(" e "," e... ")"
              | "abs(" e ")"

Names are the program's symbols; division rounds down and a remainder has the divisor's sign, as in
Python; an exponent is a literal between 0 and 63.

A condition is two expressions with one comparison between them:

    condition: e "==" e | e "!=" e | e "<" e | e "<=" e | e ">" e | e ">=" e
"""

from __future__ import annotations

import ast
import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Final

MAX_LENGTH: Final = 4096
"""Characters. Longer expressions are refused before they are parsed."""

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1

FUNCTIONS: Final = ("abs", "max", "min")

_OPERATIONS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


_COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, Callable[[int, int], bool]]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}


class ExpressionError(ValueError):
    """A text that is not an expression, or one without a value; the message quotes it."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """A parsed comparison of two expressions; ``comparison`` is written alike in C++."""

    left: ast.expr
    comparison: str
    right: ast.expr


def parse(text: str) -> ast.expr:
    """Parses ``text`` and checks it against the grammar; raises ``ExpressionError``."""
    tree = _parse(text)
    _checked(tree, text)
    return tree


def parse_condition(text: str) -> Condition:
    """Parses ``e < e`` and its like; raises ``ExpressionError``."""
    match _parse(text):
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
            _checked(left, text)
            _checked(right, text)
            return Condition(left, _COMPARISONS[type(op)][0], right)
    known = " ".join(sign for sign, _ in _COMPARISONS.values())
    raise ExpressionError(f"{text!r} is not two expressions with one of {known} between them")


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"expression of {len(text)} characters, {MAX_LENGTH} is the limit")
    if not text.isascii():
        raise ExpressionError(f"{text!r} has characters that are not ASCII")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{text!r} is not an expression: {error}") from error


def _checked(tree: ast.expr, text: str) -> None:
    try:
        _check(tree, text)
    except RecursionError as error:
        raise ExpressionError(f"{text!r} is not an expression: {error}") from error


def _check(node: ast.expr, text: str) -> None:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            if value > INT64_MAX:
                raise ExpressionError(f"{text!r}: {value} does not fit 64 bits")
        case ast.Name(id=name):
            if name in FUNCTIONS:
                raise ExpressionError(f"{text!r}: {name} is a function, not a symbol")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _check(operand, text)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            _check(left, text)
            if not isinstance(right, ast.Constant) or right.value not in range(64):
                raise ExpressionError(f"{text!r}: an exponent is a literal between 0 and 63")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
            _check(left, text)
            _check(right, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            if len(args) != 1 if name == "abs" else len(args) < 2:
                raise ExpressionError(f"{text!r}: wrong number of arguments for {name}")
            for arg in args:
                _check(arg, text)
        case _:
            raise ExpressionError(
                f"{text!r}: {type(node).__name__} is not allowed; an expression consists of "
                f"integers, symbols, + - * // % **, {', '.join(FUNCTIONS)} and parentheses"
            )


def unparse(tree: ast.expr) -> str:
    """The text of a parsed expression."""
    return ast.unparse(tree)


def names(tree: ast.expr) -> list[str]:
    """The symbols of a parsed expression, sorted."""
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return sorted(found - set(FUNCTIONS))


def evaluate(value: int | str, symbols: Mapping[str, int] | None = None) -> int:
    """The value of an integer or expression.

    Raises ``ExpressionError`` for a malformed expression, a symbol with no value, a division by
    zero and a result, also of a part, that does not fit 64 bits.
    """
    tree = ast.Constant(value) if isinstance(value, int) else parse(value)
    return _evaluate(tree, symbols or {}, value)


def holds(condition: str, symbols: Mapping[str, int]) -> bool:
    """Whether a condition is fulfilled; raises ``ExpressionError`` as ``evaluate`` does."""
    parsed = parse_condition(condition)
    left, right = (_evaluate(side, symbols, condition) for side in (parsed.left, parsed.right))
    return dict(_COMPARISONS.values())[parsed.comparison](left, right)


def _evaluate(tree: ast.expr, symbols: Mapping[str, int], value: int | str) -> int:
    """Evaluates what was parsed from ``value``, which messages quote."""
    try:
        return _bounded(_value(tree, symbols))
    except ZeroDivisionError as error:
        raise ExpressionError(f"{value!r} divides by zero") from error
    except KeyError as error:
        raise ExpressionError(f"{value!r}: symbol {error.args[0]!r} has no value") from error
    except OverflowError as error:
        quoted = "" if isinstance(value, int) else f"{value!r}: "
        raise ExpressionError(f"{quoted}{error}") from error


def _bounded(value: int) -> int:
    if not INT64_MIN <= value <= INT64_MAX:
        raise OverflowError(f"{value} does not fit 64 bits")
    return value


def _value(node: ast.expr, symbols: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            return _bounded(symbols[name])
        case ast.UnaryOp(operand=operand):
            return _bounded(-_value(operand, symbols))
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, symbols), _value(right, symbols)
            return _bounded(_OPERATIONS[type(op)](a, b))
        case ast.Call(func=ast.Name(id="abs"), args=[arg]):
            return _bounded(abs(_value(arg, symbols)))
        case ast.Call(func=ast.Name(id=name), args=args):
            values = [_value(arg, symbols) for arg in args]
            return max(values) if name == "max" else min(values)
    raise AssertionError(f"parse() let {ast.dump(node)} through")
