"""Integer expressions in program files: what may stand in one, and its value.

The grammar is a small part of Python's, and so is the meaning:

    expression: INTEGER | NAME | "-" e | "~" e | e "+" e | e "-" e | e "*" e | e "//" e | e "%" e
              | e "**" e | e "<<" e | e ">>" e | e "&" e | e "^" e | e "|" e | "(" e ")"
              | "min(" e "," e... ")" | "max(" e "," e... ")" | "abs(" e ")" | e "if" c "else" e
    c:          e "==" e | e "!=" e | e "<" e | e "<=" e | e ">" e | e ">=" e
              | c "and" c | c "or" c | "not" c | "(" c ")"

Names are the program's symbols; division rounds down and a remainder has the divisor's sign, as in
Python. An exponent or the count of a shift is not negative. What a condition excludes is not
computed: ``a // b if b != 0 else 0`` has a value whatever ``b`` is.

Every number is one of 64 bits. An expression has a value if it has one in Python and no part that
is computed on the way to it leaves 64 bits.

A constraint's condition is two expressions with one comparison between them:

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

_WIDEST: Final = 63
"""The largest exponent of 2, and the longest shift of 1, whose result may fit 64 bits."""


def _power(base: int, exponent: int) -> int:
    if exponent < 0:
        raise ExpressionError(f"{base} to the power of {exponent} is no integer")
    if exponent > _WIDEST and abs(base) > 1:
        raise OverflowError(f"{base} to the power of {exponent} does not fit 64 bits")
    return int(base**exponent)


def _shift_left(value: int, count: int) -> int:
    if count < 0:
        raise ExpressionError(f"{value} is shifted by {count}")
    if count > _WIDEST and value != 0:
        raise OverflowError(f"{value} shifted by {count} does not fit 64 bits")
    return value << count if value else 0


def _shift_right(value: int, count: int) -> int:
    if count < 0:
        raise ExpressionError(f"{value} is shifted by {count}")
    return value >> min(count, _WIDEST)


OPERATIONS: Final[dict[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.LShift: _shift_left,
    ast.RShift: _shift_right,
    ast.BitAnd: operator.and_,
    ast.BitXor: operator.xor,
    ast.BitOr: operator.or_,
}
"""What an operator does with numbers of 64 bits; the result may be longer."""

COMPARISONS: Final[dict[type[ast.cmpop], tuple[str, Callable[[int, int], bool]]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
"""By operator, how it is written, in C++ as in Python, and what it says."""


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
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            _checked(left, text)
            _checked(right, text)
            return Condition(left, COMPARISONS[type(op)][0], right)
    known = " ".join(sign for sign, _ in COMPARISONS.values())
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
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)) if value == -INT64_MIN:
            pass  # the one literal that only fits with its sign
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            if value > INT64_MAX:
                raise ExpressionError(f"{text!r}: {value} does not fit 64 bits")
        case ast.Name(id=name):
            if name in FUNCTIONS:
                raise ExpressionError(f"{text!r}: {name} is a function, not a symbol")
        case ast.UnaryOp(op=ast.USub() | ast.Invert(), operand=operand):
            _check(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
            _check(left, text)
            _check(right, text)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            if len(args) != 1 if name == "abs" else len(args) < 2:
                raise ExpressionError(f"{text!r}: wrong number of arguments for {name}")
            for arg in args:
                _check(arg, text)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            _check_condition(test, text)
            _check(body, text)
            _check(orelse, text)
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            raise ExpressionError(
                f"{text!r}: a condition is not allowed where a number is expected; write 1 if ... "
                "else 0"
            )
        case _:
            raise ExpressionError(
                f"{text!r}: {type(node).__name__} is not allowed; an expression consists of "
                f"integers, symbols, + - * // % ** << >> & ^ | ~, {', '.join(FUNCTIONS)}, "
                "... if ... else ... and parentheses"
            )


def _check_condition(node: ast.expr, text: str) -> None:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            _check(left, text)
            _check(right, text)
        case ast.BoolOp(values=values):
            for value in values:
                _check_condition(value, text)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check_condition(operand, text)
        case _:
            raise ExpressionError(
                f"{text!r}: {type(node).__name__} is not allowed as a condition, which consists of "
                "comparisons of two expressions, and, or, not"
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
    zero, a negative exponent or shift, and a result, also of a part, that does not fit 64 bits.
    """
    tree = ast.Constant(value) if isinstance(value, int) else parse(value)
    return _evaluate(tree, symbols or {}, value)


def evaluate_tree(tree: ast.expr) -> int:
    """The same of a parsed expression that has no symbols."""
    return _evaluate(tree, {}, unparse(tree))


def holds(condition: str, symbols: Mapping[str, int]) -> bool:
    """Whether a condition is fulfilled; raises ``ExpressionError`` as ``evaluate`` does."""
    parsed = parse_condition(condition)
    left, right = (_evaluate(side, symbols, condition) for side in (parsed.left, parsed.right))
    return dict(COMPARISONS.values())[parsed.comparison](left, right)


def _evaluate(tree: ast.expr, symbols: Mapping[str, int], value: int | str) -> int:
    """Evaluates what was parsed from ``value``, which messages quote."""
    quoted = "" if isinstance(value, int) else f"{value!r}: "
    try:
        return _bounded(_value(tree, symbols))
    except ZeroDivisionError as error:
        raise ExpressionError(f"{value!r} divides by zero") from error
    except KeyError as error:
        raise ExpressionError(f"{value!r}: symbol {error.args[0]!r} has no value") from error
    except (OverflowError, ExpressionError) as error:
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
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~_value(operand, symbols)
        case ast.UnaryOp(operand=operand):
            return _bounded(-_value(operand, symbols))
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, symbols), _value(right, symbols)
            return _bounded(OPERATIONS[type(op)](a, b))
        case ast.Call(func=ast.Name(id="abs"), args=[arg]):
            return _bounded(abs(_value(arg, symbols)))
        case ast.Call(func=ast.Name(id=name), args=args):
            values = [_value(arg, symbols) for arg in args]
            return max(values) if name == "max" else min(values)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _truth(test, symbols) else orelse, symbols)
    raise AssertionError(f"parse() let {ast.dump(node)} through")


def _truth(node: ast.expr, symbols: Mapping[str, int]) -> bool:
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return COMPARISONS[type(op)][1](_value(left, symbols), _value(right, symbols))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_truth(value, symbols) for value in values)
        case ast.BoolOp(values=values):
            return any(_truth(value, symbols) for value in values)
        case ast.UnaryOp(operand=operand):
            return not _truth(operand, symbols)
    raise AssertionError(f"parse() let {ast.dump(node)} through")
