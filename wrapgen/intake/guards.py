"""The guards of an exported program: comparisons of sizes, and nothing else.

PyTorch would compile them with ``exec``. Here they are parsed, and each must consist of
comparisons, ``and``, ``or``, ``not``, integers, ``+ - * // % **``, ``min``, ``max``, ``abs``, and
places among the arguments: ``L['x'].size()[1]``, ``L['pair'][0].stride()[1]``, ``L['n']``.
"""

from __future__ import annotations

import ast
from typing import Final

_MAX_LENGTH: Final = 20_000  # characters
_MAX_EXPONENT: Final = 64
_COMPARISONS: Final = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_OPERATORS: Final = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)


def fault(text: str) -> str | None:
    """Says what in a guard is not allowed, or ``None``."""
    if len(text) > _MAX_LENGTH:
        return f"it has {len(text)} characters"
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError):
        return "it is no expression"
    return _condition(tree.body)


def _condition(node: ast.expr) -> str | None:
    match node:
        case ast.BoolOp(values=values):
            return _first(*map(_condition, values))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return _condition(operand)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            if not all(isinstance(op, _COMPARISONS) for op in ops):
                return f"{_short(node)} compares no numbers"
            return _first(*map(_number, (left, *rights)))
    return f"{_short(node)} is no comparison"


def _number(node: ast.expr) -> str | None:
    match node:
        case ast.Constant(value=value) if type(value) is int and abs(value) < 1 << 63:
            return None
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _number(operand)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OPERATORS):
            return _number(left) or _number(right)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=value)):
            small = type(value) is int and 0 <= value <= _MAX_EXPONENT
            return _number(left) if small else f"{_short(node)} has a large exponent"
        case ast.Call(func=ast.Name(id="min" | "max" | "abs"), args=args, keywords=[]) if args:
            return _first(*map(_number, args))
        case ast.Subscript(
            value=ast.Call(func=ast.Attribute(value=place, attr="size" | "stride"), args=[]),
            slice=ast.Constant(value=axis),
        ) if type(axis) is int:
            return _place(place)
        case ast.Call(func=ast.Attribute(value=place, attr="storage_offset"), args=[]):
            return _place(place)
        case ast.Subscript():
            return _place(node)
    return f"{_short(node)} is neither an integer nor a size"


def _place(node: ast.expr) -> str | None:
    match node:
        case ast.Subscript(value=ast.Name(id="L"), slice=ast.Constant(value=str())):
            return None
        case ast.Subscript(value=value, slice=ast.Constant(value=key)) if type(key) in (str, int):
            return _place(value)
    return f"{_short(node)} is no argument"


def _first(*faults: str | None) -> str | None:
    return next((found for found in faults if found), None)


def _short(node: ast.expr) -> str:
    return repr(ast.unparse(node)[:80])
