"""Which values of a model's symbols are run. The standard library alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from wrapgen import expression

ODD: Final = 37
"""The middle size of a sweep: no multiple of a tile's extent."""

LARGE: Final = 64
"""The largest size of a sweep, where nobody asks for more."""


class InputsError(ValueError):
    """Inputs cannot be made. The message names the attribute to change."""


class Symbol(Protocol):
    """A number known only at run time, with its range; both bounds are inclusive."""

    @property
    def name(self) -> str:
        """Of the symbol, in expressions."""

    @property
    def minimum(self) -> int:
        """The least."""

    @property
    def maximum(self) -> int:
        """The greatest."""


class Constraint(Protocol):
    """What symbols must fulfil beyond their ranges."""

    @property
    def condition(self) -> str:
        """As an expression."""

    @property
    def text(self) -> str:
        """For a reader."""


def combinations(
    symbols: Sequence[Symbol],
    constraints: Sequence[Constraint],
    asked: Mapping[str, Sequence[int]],
) -> list[dict[str, int]]:
    """Lists values of the symbols: ``[{}]`` where there are none.

    For each symbol the sizes ``asked`` for; by default the least, an odd one, a large one or the
    greatest. Several symbols go through their lists side by side, a shorter list repeats itself.
    Combinations that violate a constraint are left out.

    Raises:
      InputsError: a size is out of range, a name is no symbol, or no combination is permitted.
    """
    known = {symbol.name: symbol for symbol in symbols}
    for name in asked:
        if name not in known:
            names = ", ".join(known) or "none"
            raise InputsError(f"sizes: there is no symbol {name!r}; the program's are: {names}")
    lists: list[list[int]] = []
    for symbol in symbols:
        default = [
            symbol.minimum,
            max(symbol.minimum, min(ODD, symbol.maximum)),
            max(symbol.minimum, min(LARGE, symbol.maximum)),
        ]
        values = list(asked.get(symbol.name) or dict.fromkeys(default))
        for value in values:
            if not symbol.minimum <= value <= symbol.maximum:
                raise InputsError(
                    f"sizes: {symbol.name} = {value} is not in its range,"
                    f" {symbol.minimum} to {symbol.maximum}"
                )
        lists.append(values)
    count = max((len(values) for values in lists), default=1)
    found: list[dict[str, int]] = []
    for i in range(count):
        sizes = {
            symbol.name: values[i % len(values)]
            for symbol, values in zip(symbols, lists, strict=True)
        }
        if all(expression.holds(constraint.condition, sizes) for constraint in constraints):
            found.append(sizes)
    if not found:
        texts = "; ".join(constraint.text for constraint in constraints)
        raise InputsError(
            f"sizes: none of {count} combinations keeps the model's constraints ({texts}): name"
            " some that do"
        )
    return found
