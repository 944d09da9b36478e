"""What an export relied on: from the guards in the archive to conditions over sizes.

Guards are comparisons in Python's syntax, ``L['x'].size()[1] <= L['y'][0].size()[0]``, where ``L``
holds the arguments of ``forward`` by name. They are parsed here and never evaluated; the split step
lets nothing else through (wrapgen/intake/guards.py).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, Final

import sympy
import torch
from torch.utils._sympy import functions

from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.symbols import expression_of


def condition(text: str, arguments: Mapping[str, Any]) -> sympy.Basic:
    """Reads one guard.

    Args:
      text: the guard.
      arguments: the arguments of ``forward`` by name, nested as there, fake tensors as leaves.

    Raises:
      LoweringError: the guard says something that is not about sizes.
    """
    try:
        return _Reader(arguments).read(ast.parse(text, mode="eval").body)
    except (SyntaxError, _UnknownGuardError) as error:
        raise LoweringError(
            f"cannot lower the model: the export relied on {text!r}, which is not understood:"
            f" {error}. Export with a fixed size there, or without what needs this"
        ) from error


class _UnknownGuardError(ValueError):
    """Something that a guard may not have."""


_COMPARISONS: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: sympy.Eq,
    ast.NotEq: sympy.Ne,
    ast.Lt: sympy.Lt,
    ast.LtE: sympy.Le,
    ast.Gt: sympy.Gt,
    ast.GtE: sympy.Ge,
}

_OPERATIONS: Final[dict[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: functions.FloorDiv,
    ast.Mod: functions.PythonMod,
    ast.Pow: functions.PowByNatural,
}


class _Reader:
    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self._arguments = arguments

    def read(self, node: ast.expr) -> Any:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                return sympy.And(*map(self.read, values))
            case ast.BoolOp(op=ast.Or(), values=values):
                return sympy.Or(*map(self.read, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return sympy.Not(self.read(operand))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                sides = [self._number(side) for side in (left, *rights)]
                return sympy.And(
                    *(
                        _COMPARISONS[type(op)](a, b)
                        for op, a, b in zip(ops, sides, sides[1:], strict=False)
                    )
                )
        raise _UnknownGuardError(f"{ast.unparse(node)} is no comparison")

    def _number(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=int() as value):
                return sympy.Integer(value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATIONS:
                return _OPERATIONS[type(op)](self._number(left), self._number(right))
            case ast.Call(func=ast.Name(id="min"), args=args):
                return functions.Min(*map(self._number, args))
            case ast.Call(func=ast.Name(id="max"), args=args):
                return functions.Max(*map(self._number, args))
            case ast.Call(func=ast.Name(id="abs"), args=[arg]):
                return sympy.Abs(self._number(arg))
            case ast.Subscript(
                value=ast.Call(func=ast.Attribute(value=tensor, attr=("size" | "stride") as what)),
                slice=ast.Constant(value=int() as axis),
            ):
                value = self._argument(tensor)
                if not isinstance(value, torch.Tensor) or not 0 <= axis < value.dim():
                    raise _UnknownGuardError(
                        f"{ast.unparse(tensor)} is no tensor of that many dimensions"
                    )
                return expression_of(value.shape[axis] if what == "size" else value.stride(axis))
            case ast.Call(func=ast.Attribute(value=tensor, attr="storage_offset"), args=[]):
                return expression_of(self._argument(tensor).storage_offset())
            case ast.Subscript():
                value = self._argument(node)
                if isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool):
                    return expression_of(value)
        raise _UnknownGuardError(f"{ast.unparse(node)} is no integer")

    def _argument(self, node: ast.expr) -> Any:
        match node:
            case ast.Subscript(value=ast.Name(id="L"), slice=ast.Constant(value=str() as name)):
                found: Any = self._arguments
                key: Any = name
            case ast.Subscript(value=value, slice=ast.Constant(value=(str() | int()) as key)):
                found = self._argument(value)
            case _:
                raise _UnknownGuardError(f"{ast.unparse(node)} is no argument")
        try:
            return found[key]
        except (KeyError, IndexError, TypeError):
            raise _UnknownGuardError(f"there is no argument {ast.unparse(node)}") from None
