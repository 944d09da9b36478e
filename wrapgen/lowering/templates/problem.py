"""What a template computes at one site, so that it can be computed again in a graph of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wrapgen.lowering.sites import typical


@dataclasses.dataclass(frozen=True)
class Operand:
    """A tensor. Sizes and strides are numbers: of symbolic ones, what they are taken for."""

    dtype: Any
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A call: ``target`` is what FX calls, ``arguments`` gives its arguments for the operands."""

    target: Any
    operands: tuple[Operand, ...]
    arguments: Callable[..., tuple[Any, ...]]

    @classmethod
    def of(
        cls,
        target: Any,
        operands: Sequence[Any],
        arguments: Callable[..., tuple[Any, ...]],
        strides: Mapping[int, Sequence[int]] | None = None,
    ) -> Problem:
        """Makes one of Inductor's tensors. ``strides`` replaces those of some, by position."""
        others = strides or {}
        return cls(
            target,
            tuple(
                Operand(
                    node.get_dtype(),
                    tuple(map(typical, node.get_size())),
                    tuple(map(typical, others.get(i, node.get_stride()))),
                )
                for i, node in enumerate(operands)
            ),
            arguments,
        )


def channels_last(size: Sequence[int], first: int) -> list[int]:
    """Strides of a tensor [a, b, ...] with b innermost; ``first`` is that of a."""
    _, inner, *rest = size
    strides = [first, 1]
    step = inner
    for extent in reversed(rest):
        strides.insert(2, step)
        step *= extent
    return strides
