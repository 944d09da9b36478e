"""Sizes known only at run time: from an exported program's symbols to those of the program file.

``torch.export`` describes sizes by sympy expressions over its symbols, with a range each and
guards: conditions that the export relied on. ``declare`` makes symbols of our own from them, in a
``ShapeEnv`` that assumes nothing but those ranges and guards. Whatever PyTorch decides about sizes
while the graph is decomposed and lowered becomes a guard there; ``Symbols.check`` refuses those
that do not hold for every size in range. So a program is right for all of them, or there is none.

Decisions about speed (tiles, the number of parts of a reduction) need one number for each symbol.
It is the largest in range or, where conditions exclude that, the next below it that they allow
(``_hints``): no choice depends on the sizes that the model was exported with.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StrictMinMaxConstraint
from torch.utils._sympy import functions
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from wrapgen import expression
from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.size_text import UnknownExpression, condition_of, text_of
from wrapgen.program import Constraint, Dim, Symbol

_ENUMERATED: Final = 1 << 22
"""Combinations of sizes up to which a condition is checked for each of them."""

_EXACT: Final = 1 << 62
"""Numbers below it are computed in 64 bits without overflow."""


class Symbols:
    """The symbols of one model.

    Attributes:
      env: the ``ShapeEnv`` whose symbols sizes are expressions of.
      public: the symbols as the program file has them, in order.
      constraints: what callers must fulfil beyond ranges and shapes.
      hints: the number each of ``public`` is taken for where speed is decided.
    """

    def __init__(self) -> None:
        self.env: ShapeEnv = _Env()
        self.public: tuple[Symbol, ...] = ()
        self.constraints: tuple[Constraint, ...] = ()
        self.hints: tuple[int, ...] = ()
        self._ranges: dict[sympy.Symbol, _Range] = {}
        self._texts: dict[sympy.Symbol, str] = {}
        self._places: dict[str, str] = {}
        self._sizes: dict[sympy.Expr, str] = {}
        self._assumed: list[sympy.Basic] = []
        self._seen = 0

    def dim(self, value: Any) -> Dim:
        """A size, stride, offset or number of elements for the program file.

        Args:
          value: an ``int``, ``torch.SymInt`` or sympy expression.

        Raises:
          UnknownExpression: the file's expressions cannot say it.
        """
        expr = expression_of(value)
        if expr.is_Integer:
            return int(expr)
        text = self._sizes.get(expr) or text_of(expr, self._texts, self._ranges)
        try:
            expression.parse(text)
        except expression.ExpressionError as error:
            raise UnknownExpression(f"a size has no expression: {error}") from error
        return text

    def fake_mode(self) -> FakeTensorMode:
        """A mode for fake tensors with these sizes."""
        # Results remembered from before would be those of another device.
        FakeTensorMode.cache_clear()
        mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=self.env)
        # It asks more about sizes than the operations do.
        mode.cache_enabled = not self.public
        return mode

    def size(self, expr: sympy.Expr) -> int | torch.SymInt:
        """A size of a fake tensor from an expression over the symbols."""
        if expr.is_Integer:
            return int(expr)
        hint = expr.xreplace(self.env.backed_var_to_val)
        made: int | torch.SymInt = self.env.create_symintnode(expr, hint=int(hint))
        return made

    def always(self, condition: Any) -> bool:
        """Whether a sympy condition holds for all sizes that callers may give."""
        return _always(condition, self._ranges, self._assumed)

    def check(self, doing: str) -> None:
        """Refuses what was assumed about sizes since the last call and does not always hold.

        Raises:
          LoweringError: quotes each such assumption; ``doing`` says what made it.
        """
        new, self._seen = self.env.guards[self._seen :], len(self.env.guards)
        faults = [
            f"  {_shown(guard.expr, self._shown())}{_place(guard.sloc)}"
            for guard in new
            if not self.always(guard.expr)
        ]
        if faults:
            listed = "\n".join(dict.fromkeys(faults))
            raise LoweringError(
                f"cannot lower the model for all sizes in range: {doing} assumed\n{listed}\n"
                f"with {self._legend()}. Choose ranges of the torch.export.Dim for which this"
                " always holds, state it with torch._check(...) in forward, or make a dimension"
                " static"
            )

    def _shown(self) -> dict[sympy.Symbol, str]:
        """Symbols as errors call them: by their place among the inputs."""
        return {
            symbol: functools.reduce(
                lambda text, name: re.sub(rf"\b{name}\b", self._places[name], text),
                self._places,
                text,
            )
            for symbol, text in self._texts.items()
        }

    def _legend(self) -> str:
        return ", ".join(
            f"{self._places[symbol.name]} from {symbol.minimum} to {symbol.maximum}"
            for symbol in self.public
        )


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of the exported program: its name, where it stands in the call, its fake value."""

    name: str
    path: str
    value: Any


def declare(
    inputs: Sequence[Input],
    ranges: Mapping[Any, Any],
    guards: Sequence[sympy.Basic],
) -> tuple[Symbols, dict[sympy.Symbol, Any]]:
    """Makes symbols of our own for those of an exported program.

    Args:
      inputs: the inputs, with values of the exported program's own ``ShapeEnv``.
      ranges: range of each of its symbols, ``ExportedProgram.range_constraints``.
      guards: what the export relied on, over its symbols.

    Returns:
      the symbols, and for each of the export's what takes its place.

    Raises:
      LoweringError: a size has no maximum, or a condition cannot be said in the program file.
    """
    return _Declaration(inputs, ranges, guards).run()


class _Declaration:
    def __init__(
        self, inputs: Sequence[Input], ranges: Mapping[Any, Any], guards: Sequence[sympy.Basic]
    ) -> None:
        self._inputs = inputs
        self._ranges = ranges
        self._guards = guards
        self._symbols = Symbols()
        self._dims = list(_dims(inputs))
        self._old: list[sympy.Symbol] = []
        for _, _, expr in self._dims:
            for symbol in sorted(expr.free_symbols, key=lambda symbol: symbol.name):
                if symbol not in self._old:
                    self._old.append(symbol)

    def run(self) -> tuple[Symbols, dict[sympy.Symbol, Any]]:
        bounds = {symbol: self._bounds(symbol) for symbol in self._old}
        fixed = {
            symbol: sympy.Integer(low) for symbol, (low, high) in bounds.items() if low == high
        }
        free = [symbol for symbol in self._old if symbol not in fixed]
        stand_ins = {symbol: sympy.Dummy(symbol.name, integer=True) for symbol in free}
        conditions = [guard.xreplace({**fixed, **stand_ins}) for guard in self._guards]
        boxes = {stand_ins[symbol]: _Range(*bounds[symbol]) for symbol in free}
        open_conditions = [
            condition
            for guard in conditions
            for condition in _conjuncts(guard)
            if not _always(condition, boxes, ())
        ]
        hints = _hints(boxes, open_conditions)
        made: dict[sympy.Symbol, Any] = dict(fixed)
        for symbol in free:
            low, high = bounds[symbol]
            made[symbol] = _new_symbol(
                self._symbols.env, symbol.name, low, high, hints[stand_ins[symbol]]
            )
        result = self._symbols
        result._ranges = {made[symbol]: _Range(*bounds[symbol]) for symbol in free}
        back = {stand_ins[symbol]: made[symbol] for symbol in free}
        self._publish(made, free, {made[symbol]: hints[stand_ins[symbol]] for symbol in free})
        for condition in open_conditions:
            condition = condition.xreplace(back)
            result._assumed.append(condition)
            result.constraints += (
                Constraint(
                    condition=condition_of(condition, result._texts, result._ranges),
                    text=_shown(condition, result._shown()),
                ),
            )
            # From here on PyTorch knows it too.
            result.env.evaluate_expr(condition)
        result._seen = len(result.env.guards)
        return result, made

    def _bounds(self, symbol: sympy.Symbol) -> tuple[int, int]:
        name, path, expr = next(dim for dim in self._dims if symbol in dim[2].free_symbols)
        found = self._ranges.get(symbol)
        low, high = (found.lower, found.upper) if found is not None else (None, None)
        scalar = not path
        if not isinstance(high, (int, sympy.Integer)) or not isinstance(low, (int, sympy.Integer)):
            if scalar:
                raise LoweringError(
                    f"cannot lower the model: input {name} is an integer without bounds: state"
                    f" them in forward, torch._check({name} >= 0) and torch._check({name} <= ...),"
                    " or fix it: export without dynamic_shapes for it"
                )
            raise LoweringError(
                f"cannot lower the model: input {name}: {path} ({expr}) has no maximum: memory is"
                " planned for the largest size. Bound it in dynamic_shapes:"
                f' torch.export.Dim("{name}_{path[6:-1]}", max=...)'
            )
        return int(low), int(high)

    def _publish(
        self,
        made: Mapping[sympy.Symbol, Any],
        free: Sequence[sympy.Symbol],
        hints: Mapping[sympy.Symbol, int],
    ) -> None:
        """Gives each symbol an input to be read from, as the program file asks for."""
        result = self._symbols
        dims = [(name, path, expression_of(expr.xreplace(made))) for name, path, expr in self._dims]
        for old in free:
            symbol = made[old]
            size = result._ranges[symbol]
            bare = next(((name, path) for name, path, expr in dims if expr == symbol), None)
            text, (name, path), factor, rest = symbol.name, bare or ("", ""), 1, 0
            if bare is None:
                name, path, expr, factor, rest = self._linear(symbol, dims)
                shifted = f"({text} {'-' if rest > 0 else '+'} {abs(rest)})" if rest else text
                result._sizes[expr] = text
                if factor > 1:
                    result.constraints += (
                        Constraint(
                            condition=f"{shifted} % {factor} == 0",
                            text=f"{shifted} % {factor} == 0".replace(text, f"{name}.{path}"),
                        ),
                    )
                    result._texts[symbol] = f"({shifted} // {factor})"
                else:
                    result._texts[symbol] = shifted
            else:
                result._texts[symbol] = text
            result._places[text] = f"{name}.{path}" if path else name
            result.public += (
                Symbol(
                    name=text,
                    minimum=factor * size.minimum + rest,
                    maximum=factor * size.maximum + rest,
                ),
            )
            result.hints += (factor * hints[symbol] + rest,)

    def _linear(
        self, symbol: sympy.Symbol, dims: Sequence[tuple[str, str, sympy.Expr]]
    ) -> tuple[str, str, sympy.Expr, int, int]:
        """The first size that is ``factor * symbol + rest``, for a positive integer factor."""
        for name, path, expr in dims:
            if expr.free_symbols == {symbol}:
                rest = expr.xreplace({symbol: sympy.Integer(0)})
                factor = sympy.expand(expr - rest) / symbol
                if rest.is_Integer and factor.is_Integer and factor > 0:
                    return name, path, expr, int(factor), int(rest)
        name, path, expr = next(dim for dim in dims if symbol in dim[2].free_symbols)
        raise LoweringError(
            f"cannot lower the model: input {name}: {path} is {expr}, and no input has {symbol}, or"
            " a multiple of it, for a size: it cannot be known at run time. Pass a tensor that has"
            " such a dimension, or a dimension of its own (torch.export.Dim) in place of this one"
        )


def _dims(inputs: Sequence[Input]) -> Iterator[tuple[str, str, sympy.Expr]]:
    """Each size of each input that is not a number: input, ``shape[i]`` (empty: a scalar), size."""
    for one in inputs:
        if isinstance(one.value, torch.SymInt):
            yield one.name, "", expression_of(one.value)
        elif isinstance(one.value, torch.Tensor):
            for i, extent in enumerate(one.value.shape):
                if not isinstance(extent, int):
                    yield one.name, f"shape[{i}]", expression_of(extent)


def expression_of(value: Any) -> sympy.Expr:
    """The sympy expression of a size."""
    if isinstance(value, torch.SymInt):
        return sympy.sympify(value.node.expr)
    return sympy.sympify(value)


class _Declared(ConstantSource):
    """Where a symbol of ours comes from."""


class _Env(ShapeEnv):
    """Numbers symbols in the order in which they are made (PyTorch's numbers are digests), and
    records also what is decided where PyTorch asks not to be told."""

    def __init__(self) -> None:
        super().__init__(specialize_zero_one=False, duck_shape=False)
        self._numbers = itertools.count()

    def create_symbol(self, val: Any, source: Any, *args: Any, **options: Any) -> Any:
        """A symbol for a declared size; whatever else PyTorch asks for is a constant argument."""
        if isinstance(source, _Declared):
            return super().create_symbol(val, source, *args, **options)
        return sympy.sympify(int(val) if isinstance(val, int) else val)

    def _generate_unique_id(self, _source_name: str) -> int:
        number = next(self._numbers)
        self.unique_ids.add(number)
        return number

    def _suppress_guards_tls(self) -> bool:
        return False


def _new_symbol(env: ShapeEnv, source: str, low: int, high: int, hint: int) -> Any:
    symbol = env.create_symbol(
        hint,
        _Declared(source),
        dynamic_dim=DimDynamic.DYNAMIC,
        constraint_dim=StrictMinMaxConstraint(vr=ValueRanges(low, high), warn_only=False),
        positive=True if low > 0 else None,
        do_not_specialize_zero_one=True,
    )
    env.size_like.add(symbol)
    return symbol


@dataclasses.dataclass(frozen=True)
class _Range:
    """Both inclusive."""

    minimum: int
    maximum: int


_Ranges = Mapping[sympy.Symbol, _Range]


def _hints(ranges: _Ranges, conditions: Sequence[sympy.Basic]) -> dict[sympy.Symbol, int]:
    """The largest sizes that fulfil the conditions: of the first symbol, then of the second, ..."""
    hints = {symbol: size.maximum for symbol, size in ranges.items()}
    if all(_holds(condition, hints) for condition in conditions):
        return hints
    bound = [symbol for symbol in ranges if any(symbol in c.free_symbols for c in conditions)]
    grid = _grid({symbol: ranges[symbol] for symbol in bound})
    if grid is not None:
        fulfilled = np.ones_like(next(iter(grid.values())), dtype=bool)
        for condition in conditions:
            fulfilled &= np.asarray(_evaluate(condition, grid), dtype=bool)
        found = np.flatnonzero(fulfilled)
        if len(found):
            return hints | {symbol: int(values[found[-1]]) for symbol, values in grid.items()}
        raise LoweringError(
            "cannot lower the model: no sizes in range fulfil what the export relied on: "
            + ", ".join(str(condition) for condition in conditions)
        )
    for step in itertools.chain(range(4096)):
        tried = {s: max(ranges[s].minimum, ranges[s].maximum - step) for s in ranges}
        if all(_holds(condition, tried) for condition in conditions):
            return tried
    raise LoweringError(
        "cannot lower the model: found no sizes in range that fulfil what the export relied on: "
        + ", ".join(str(condition) for condition in conditions)
    )


def _holds(condition: sympy.Basic, values: Mapping[sympy.Symbol, int]) -> bool:
    return bool(_evaluate(condition, values))


def _conjuncts(condition: sympy.Basic) -> Iterator[sympy.Basic]:
    if isinstance(condition, sympy.And):
        for part in sorted(condition.args, key=str):
            yield from _conjuncts(part)
    elif isinstance(condition, sympy.Not) and isinstance(condition.args[0], sympy.Rel):
        yield condition.args[0].negated
    else:
        yield condition


def _always(condition: Any, ranges: _Ranges, assumed: Sequence[sympy.Basic]) -> bool:
    """Whether a condition holds for all numbers in range that fulfil ``assumed``.

    Decided by interval arithmetic or, where there are few enough combinations, for each of them.
    ``False`` also where it cannot be decided.
    """
    condition = sympy.sympify(condition)
    if condition in (sympy.true, sympy.false):
        return condition is sympy.true
    if isinstance(condition, sympy.And):
        return all(_always(part, ranges, assumed) for part in condition.args)
    if condition in assumed or not condition.free_symbols <= set(ranges):
        return condition in assumed
    if isinstance(condition, sympy.Rel) and _by_intervals(condition, ranges):
        return True
    involved = set(condition.free_symbols)
    related = [other for other in assumed if other.free_symbols & involved]
    for other in related:
        involved |= other.free_symbols
    for symbols, known in ((involved, related), (condition.free_symbols, [])):
        grid = _grid({symbol: ranges[symbol] for symbol in ranges if symbol in symbols})
        if grid is None:
            continue
        try:
            excluded = np.zeros_like(next(iter(grid.values())), dtype=bool)
            for other in known:
                excluded |= ~np.asarray(_evaluate(other, grid), dtype=bool)
            return bool(np.all(excluded | np.asarray(_evaluate(condition, grid), dtype=bool)))
        except (UnknownExpression, FloatingPointError):
            return False
    return False


def _by_intervals(condition: sympy.Rel, ranges: _Ranges) -> bool:
    try:
        boxes: Any = {s: ValueRanges(r.minimum, r.maximum) for s, r in ranges.items()}
        difference = bound_sympy(sympy.expand(condition.lhs - condition.rhs), boxes)
    except Exception:  # it has no rule for some functions, and says so in many ways
        return False
    low, high = difference.lower, difference.upper
    decided = {
        sympy.Ne: low > 0 or high < 0,
        sympy.Eq: low == high == 0,
        sympy.Lt: high < 0,
        sympy.Le: high <= 0,
        sympy.Gt: low > 0,
        sympy.Ge: low >= 0,
    }
    return bool(decided.get(type(condition), False))


def _grid(ranges: _Ranges) -> dict[sympy.Symbol, npt.NDArray[np.int64]] | None:
    """All combinations, the last symbol varying fastest; ``None`` if they are too many."""
    sizes = [one.maximum - one.minimum + 1 for one in ranges.values()]
    if math.prod(sizes) > _ENUMERATED:
        return None
    axes = [np.arange(one.minimum, one.maximum + 1, dtype=np.int64) for one in ranges.values()]
    mesh = np.meshgrid(*axes, indexing="ij")
    return {symbol: values.ravel() for symbol, values in zip(ranges, mesh, strict=True)}


def _evaluate(expr: Any, values: Mapping[sympy.Symbol, Any]) -> Any:
    """The value of an expression or condition: of Python integers, or of arrays at once.

    Raises:
      UnknownExpression: it has a function that is not known.
      FloatingPointError: a division by zero, or numbers beyond 62 bits.
    """
    if isinstance(expr, sympy.Symbol):
        return values[expr]
    if expr.is_Integer:
        return int(expr)
    if expr.is_Float:
        return float(expr)
    if expr in (sympy.true, sympy.false):
        return bool(expr)
    if isinstance(expr, functions.Where):
        return np.where(*[_evaluate(operand, values) for operand in expr.args])
    if isinstance(expr, functions.ModularIndexing):
        base, divisor, modulus = (_evaluate(operand, values) for operand in expr.args)
        return _remainder(_divide(base, divisor), modulus)
    if isinstance(expr, (sympy.Add, sympy.Mul)) and expr.atoms(sympy.Rational) != expr.atoms(
        sympy.Integer
    ):
        above, below = sympy.fraction(sympy.together(expr))
        return _evaluate(functions.FloorDiv(above, below, evaluate=False), values)
    operation = _OPERATIONS.get(type(expr))
    if operation is None:
        raise UnknownExpression(f"{type(expr).__name__} in {expr}")
    operands = [_evaluate(operand, values) for operand in expr.args]
    result = functools.reduce(operation, operands[1:], operands[0])
    if len(operands) == 1:
        result = operation(operands[0], None)
    if np.any(np.abs(np.asarray(result, dtype=np.float64)) >= _EXACT):
        raise FloatingPointError(f"{expr} exceeds 62 bits")
    return result


def _divide(a: Any, b: Any) -> Any:
    if np.any(np.asarray(b) == 0):
        raise FloatingPointError("division by zero")
    return a // b


def _quotient(a: Any, b: Any) -> Any:
    if np.any(np.asarray(b) == 0):
        raise FloatingPointError("division by zero")
    return np.asarray(a, dtype=np.float64) / b


def _remainder(a: Any, b: Any) -> Any:
    if np.any(np.asarray(b) == 0):
        raise FloatingPointError("division by zero")
    return a % b


_OPERATIONS: Final[dict[Any, Callable[[Any, Any], Any]]] = {
    sympy.Add: lambda a, b: a + b,
    sympy.Mul: lambda a, b: a * b,
    sympy.Pow: lambda a, b: a**b,
    functions.PowByNatural: lambda a, b: a**b,
    functions.FloorDiv: _divide,
    functions.CleanDiv: _divide,
    functions.CeilDiv: lambda a, b: -_divide(-a, b),
    # As Python computes them: with numbers of 53 bits, which integers become first.
    functions.ToFloat: lambda a, _: np.asarray(a, dtype=np.float64),
    functions.IntTrueDiv: lambda a, b: _quotient(a, b),
    functions.FloatTrueDiv: lambda a, b: _quotient(a, b),
    functions.FloorToInt: lambda a, _: np.floor(a).astype(np.int64),
    functions.CeilToInt: lambda a, _: np.ceil(a).astype(np.int64),
    functions.TruncToInt: lambda a, _: np.trunc(a).astype(np.int64),
    functions.RoundToInt: lambda a, _: np.rint(a).astype(np.int64),
    functions.BitwiseFn_bitwise_and: lambda a, b: a & b,
    functions.BitwiseFn_bitwise_or: lambda a, b: a | b,
    functions.BitwiseFn_bitwise_xor: lambda a, b: a ^ b,
    functions.Mod: _remainder,
    functions.PythonMod: _remainder,
    sympy.Mod: _remainder,
    functions.Max: np.maximum,
    functions.Min: np.minimum,
    sympy.Max: np.maximum,
    sympy.Min: np.minimum,
    sympy.Abs: lambda a, _: abs(a),
    functions.Identity: lambda a, _: a,
    sympy.Eq: lambda a, b: a == b,
    sympy.Ne: lambda a, b: a != b,
    sympy.Lt: lambda a, b: a < b,
    sympy.Le: lambda a, b: a <= b,
    sympy.Gt: lambda a, b: a > b,
    sympy.Ge: lambda a, b: a >= b,
    sympy.And: np.logical_and,
    sympy.Or: np.logical_or,
    sympy.Not: lambda a, _: np.logical_not(a),
}


def _place(sloc: Any) -> str:
    """Where in the model's code an assumption comes from, if PyTorch knows."""
    user = getattr(sloc, "maybe_user_loc", None)
    return f" (at {user})" if user else ""


def _shown(condition: Any, names: Mapping[sympy.Symbol, str]) -> str:
    """A condition for an error; as sympy spells it, where the program file has no words."""
    try:
        return condition_of(condition, names)
    except LoweringError:
        return str(condition.xreplace({s: sympy.Symbol(name) for s, name in names.items()}))
