"""The grid of a kernel call, from the code that Inductor would launch it with.

Inductor writes a grid as Python over the call's arguments, ``-((xnumel) // -(1024))``. The few
forms that it uses are read here, because sizes may be symbolic.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import sympy
from torch._inductor.runtime.triton_heuristics import GridExpr
from torch.utils._sympy.functions import FloorDiv, Max, Min

from wrapgen.lowering.errors import LoweringError


def evaluate(
    meta: Mapping[str, Any], config: Mapping[str, Any], scope: Mapping[str, Any]
) -> tuple[sympy.Expr, sympy.Expr, sympy.Expr]:
    """The number of programs in x, y and z.

    Args:
      meta: Inductor's metadata of the kernel.
      config: the constants of its configuration.
      scope: its integer arguments and constants by name.
    """
    grid = GridExpr.from_meta(dict(meta), dict(config))
    known: dict[str, Any] = dict(scope)
    for line in grid.prefix:
        match ast.parse(line).body:
            case [ast.Assign(targets=[ast.Name(id=name)], value=value)]:
                known[name] = _value(value, known)
            case _:
                raise LoweringError(f"a grid is computed in a way that is not supported: {line}")
    x, y, z = (
        _value(ast.parse(str(extent), mode="eval").body, known)
        for extent in (grid.x_grid, grid.y_grid, grid.z_grid)
    )
    return x, y, z


def _value(node: ast.expr, known: Mapping[str, Any]) -> sympy.Expr:
    def of(part: ast.expr) -> sympy.Expr:
        return _value(part, known)

    match node:
        case ast.Constant(value=int() as value):
            return sympy.Integer(value)
        case ast.Name(id=name) if name in known:
            return sympy.sympify(known[name])
        # Inductor rounds up by dividing downwards by a negative number.
        case ast.UnaryOp(
            op=ast.USub(),
            operand=ast.BinOp(
                left=number, op=ast.FloorDiv(), right=ast.UnaryOp(op=ast.USub(), operand=divisor)
            ),
        ):
            return FloorDiv(of(number) + of(divisor) - 1, of(divisor))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return of(left) * of(right)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return of(left) + of(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return of(left) - of(right)
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=right):
            return FloorDiv(of(left), of(right))
        case ast.Call(func=ast.Name(id="max"), args=args):
            return Max(*map(of, args))
        case ast.Call(func=ast.Name(id="min"), args=args):
            return Min(*map(of, args))
        # Nothing divided by nothing: there is nothing to launch.
        case ast.IfExp(
            test=ast.Compare(left=ast.Name(id=name), ops=[ast.Eq()], comparators=[_]),
            body=ast.Constant(value=0),
            orelse=other,
        ):
            return _value(other, {**known, name: Max(1, sympy.sympify(known[name]))})
    raise LoweringError(f"a grid is computed in a way that is not supported: {ast.unparse(node)}")
