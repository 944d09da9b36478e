"""The values of a run: what symbols are, and all that is computed from them, in one array of
``int64_t`` whose indices have names.

Those that shapes, strides and constraints need are the model's (namespace ``sizes``), the first of
them its symbols; those that launches need in addition are a target's (namespace ``values``).
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wrapgen import expression
from wrapgen.codegen import expr as cpp_expr
from wrapgen.codegen import text
from wrapgen.codegen.bounds import Bounds, Ranges, bounds, divisor, fits
from wrapgen.codegen.names import Namer, pascal
from wrapgen.program import Dim, Program

SIZES: Final = "sizes"
VALUES: Final = "values"

ARENA: Final = "kArena"
"""The value that is the size of the arena, where sizes of temporaries depend on the inputs."""

COUNT: Final = "kCount"
"""Behind the last enumerator."""

_LONGEST_NAME: Final = 40


@dataclasses.dataclass(frozen=True)
class Value:
    """One entry of the array: its enumerator, and the expression it is computed from, simplified
    and as the program has it."""

    name: str
    expr: Any
    text: str


@dataclasses.dataclass(frozen=True)
class Computation:
    """Statements, and the expressions in them."""

    lines: tuple[str, ...]
    dims: tuple[Dim, ...] = ()


@dataclasses.dataclass(frozen=True)
class Limit:
    """A value that must be in a range and a multiple of something when a run begins."""

    index: str
    minimum: int
    maximum: int
    multiple_of: int
    what: str
    expression: str


class Values:
    """The values of a model or, given the model's as ``known``, of a target."""

    def __init__(self, program: Program, known: Values | None = None) -> None:
        self.namespace: Final = SIZES if known is None else VALUES
        self.ranges: Final[Ranges] = {
            symbol.name: Bounds(symbol.minimum, symbol.maximum) for symbol in program.symbols
        }
        self._known = known
        self._namer = Namer(frozenset({COUNT, ARENA}))
        self._values: dict[Any, Value] = {}
        self._limits: dict[tuple[Any, ...], Limit] = {}
        if known is None:
            for symbol in program.symbols:
                self.index(symbol.name)

    def number(self, dim: Dim) -> int | None:
        """The value of what is the same in all runs, else ``None``."""
        parsed = cpp_expr.parse(dim)
        return int(parsed) if parsed.is_Integer else None

    def bounds(self, dim: Dim) -> Bounds:
        """Between what a value lies."""
        return bounds(cpp_expr.parse(dim), self.ranges)

    def index(self, dim: Dim) -> str:
        """The enumerator of a value's index. Equal values have one index."""
        parsed = cpp_expr.parse(dim)
        found = self._known.find(parsed) if self._known else None
        if found is None:
            found = self.find(parsed)
        if found is None:
            name = self._namer.name(str(parsed), "k" + _readable(str(dim)))
            self._values[parsed] = Value(name, parsed, str(dim))
            found = f"{self.namespace}::{name}"
        return found

    def find(self, parsed: Any) -> str | None:
        """The enumerator of an expression that has one."""
        value = self._values.get(parsed)
        return f"{self.namespace}::{value.name}" if value else None

    def at(self, dim: Dim) -> str:
        """C++ of a number or value, of type ``int64_t``, where ``at`` is the launcher's
        ``Addresses``."""
        number = self.number(dim)
        return f"at.values[{self.index(dim)}]" if number is None else str(number)

    def limit(self, dim: Dim, what: str, minimum: int, maximum: int, multiple_of: int = 1) -> None:
        """Has a value checked when a run begins, unless it is right in every run. ``what`` says
        what it is."""
        parsed = cpp_expr.parse(dim)
        within = bounds(parsed, self.ranges).within(minimum, maximum)
        # Every value has 64 bits, however it is computed.
        within = within or (minimum, maximum) == (expression.INT64_MIN, expression.INT64_MAX)
        if within and divisor(parsed) % multiple_of == 0:
            return
        key = (parsed, minimum, maximum, multiple_of)
        limit = Limit(self.index(dim), minimum, maximum, multiple_of, what, str(dim))
        self._limits.setdefault(key, limit)

    def slot(self, i: int) -> str:
        """The enumerator of where a slot of the arena begins."""
        return self._namer.name(f"slot {i}", f"kSlot{i}")

    def limits(self) -> list[Limit]:
        """What ``limit`` was asked to have checked."""
        return list(self._limits.values())

    def enumerators(self) -> list[tuple[str, str]]:
        """The names of the indices, with comments, in the order of the array."""
        rows = []
        for value in self._values.values():
            note = value.text
            if value.expr.is_Symbol:
                range_ = self.ranges[str(value.expr.name)]
                note = f"{value.text}: {range_.minimum} to {range_.maximum}"
            rows.append((value.name, note))
        return rows

    def computations(self) -> list[Computation]:
        """How all but symbols are computed, in a function that has the array as ``value`` and
        returns the expression that has no value."""
        names = self.locals()
        found = []
        for value in self._values.values():
            if value.expr.is_Symbol:
                continue
            at = f"value[{self.namespace}::{value.name}]"
            if fits(value.text, self.ranges):
                code = f"{at} = {cpp_expr.cpp(value.text, names)};"
                lines = [*text.comment(2, value.text), *text.statements(2, [code])]
            else:
                lines = self._checked(value, at, names)
            found.append(Computation(tuple(lines), (value.text,)))
        return found

    def function(
        self, declaration: str, computations: Sequence[Computation], *, end: str
    ) -> list[str]:
        """A function of some computations, with the symbols that they use as local variables,
        called as ``locals`` says; ``end`` is its last statement."""
        names = self.locals()
        used = {
            name
            for computation in computations
            for dim in computation.dims
            for name in expression.names(cpp_expr.tree(dim))
        }
        declarations = [
            f"  const int64_t {names[name]} = value[{self.index(name)}];"
            for name in self.ranges
            if name in used
        ]
        lines = [line for computation in computations for line in computation.lines]
        return text.function_lines(declaration, [*declarations, *lines], unused="value", end=end)

    def _checked(self, value: Value, at: str, names: Mapping[str, str]) -> list[str]:
        """Statements for what may have no value of 64 bits."""
        code = cpp_expr.cpp(value.text, names, checked=True)
        variable = f"checked_{value.name}"
        return [
            *text.comment(2, value.text),
            *text.statements(
                2,
                [
                    f"const aoti::Checked {variable} = {code};",
                    f"if (!{variable}.ok()) return {text.string(value.text)};",
                    f"{at} = {variable}.value();",
                ],
            ),
        ]

    def locals(self) -> dict[str, str]:
        """Names of local variables for symbols."""
        namer = Namer(frozenset({"aoti", "end", "sizes", "std", "value", "values"}))
        return {name: namer.name(name, name) for name in self.ranges}


def _readable(source: str) -> str:
    """A name after an expression: ``(s0 + 7) // 8`` is ``S0Plus7Over8``; ``Value`` for what would
    be long."""
    name = _spell(expression.parse(source))
    return name if 0 < len(name) <= _LONGEST_NAME else "Value"


_WORDS: Final[dict[type[ast.operator], str]] = {
    ast.Add: "Plus",
    ast.Sub: "Minus",
    ast.Mult: "Times",
    ast.FloorDiv: "Over",
    ast.Mod: "Modulo",
    ast.Pow: "ToThe",
    ast.LShift: "LeftBy",
    ast.RShift: "RightBy",
    ast.BitAnd: "BitAnd",
    ast.BitXor: "BitXor",
    ast.BitOr: "BitOr",
}


def _spell(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.Name(id=name):
            return pascal(name) or "Symbol"
        case ast.UnaryOp(op=op, operand=operand):
            return ("Not" if isinstance(op, ast.Invert) else "Minus") + _spell(operand)
        case ast.BinOp(left=left, op=op, right=right):
            return _spell(left) + _WORDS[type(op)] + _spell(right)
        case ast.Call(func=ast.Name(id=name), args=args):
            return pascal(name) + "Of" + "And".join(map(_spell, args))
        case ast.IfExp(body=body, orelse=orelse):
            return f"{_spell(body)}Or{_spell(orelse)}"
    raise AssertionError(ast.dump(node))
