"""Masks of attention, without the dimensions along which they say nothing.

A mask of padding is made from [batch, keys] and often spread over rows and heads before attention
sees it. Attention takes masks of one element along a dimension, so that the rest need never be in
memory. ``Narrowing`` finds out along which dimensions a value does not vary. ``take_apart`` finds
what is but a comparison of positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

aten = torch.ops.aten
prims = torch.ops.prims

_MADE_EQUAL: Final = (aten.full.default, aten.scalar_tensor.default, aten.full_like.default)


def source(mask: Node) -> Node:
    """What a mask was expanded from."""
    while mask.target is aten.expand.default and isinstance(mask.args[0], Node):
        mask = mask.args[0]
    return mask


class Narrowing:
    """Narrows masks of one graph, equal ones to one node."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._varying: dict[Node, tuple[bool, ...]] = {}
        self._made: dict[tuple[Node, tuple[int, ...]], Node] = {}

    def apply(self, node: Node, position: int) -> bool:
        """Narrows the argument at ``position``; returns whether it changed."""
        mask = node.args[position]
        assert isinstance(mask, Node)
        base = source(mask)
        if base.meta["val"].dim() != mask.meta["val"].dim():
            base = mask
        shape = base.meta["val"].shape
        axes = tuple(
            axis
            for axis, varies in enumerate(self._of(base))
            if not varies and not statically_known_true(shape[axis] == 1)
        )
        if not axes and base is mask:
            return False
        key = (base, axes)
        if key not in self._made:
            self._made[key] = self._first(base, axes)
        args = list(node.args)
        args[position] = self._made[key]
        node.args = tuple(args)
        return True

    def _first(self, base: Node, axes: Sequence[int]) -> Node:
        """``base`` at 0 along ``axes``; a copy, so that no more of ``base`` need be computed."""
        made = base
        for target, args in [
            *((aten.slice.Tensor, (axis, 0, 1)) for axis in axes),
            *([(aten.clone.default, ())] if axes else []),
        ]:
            with self._graph.inserting_after(made):
                added = self._graph.call_function(target, (made, *args))
            added.meta = {k: v for k, v in base.meta.items() if k in ("custom", "stack_trace")}
            made = added
        return made

    def _of(self, node: Node) -> tuple[bool, ...]:
        """For each dimension, whether the value may differ along it."""
        if node not in self._varying:
            self._varying[node] = self._find(node)
        return self._varying[node]

    def _find(self, node: Node) -> tuple[bool, ...]:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return ()
        everything = tuple(not statically_known_true(extent == 1) for extent in value.shape)
        if node.op != "call_function":
            return everything
        target: Any = node.target
        if target in _MADE_EQUAL:
            return (False,) * value.dim()
        if target is aten.expand.default:
            return self._broadcast(node.args[0], value.dim())
        if target is aten.unsqueeze.default:
            axis = int(node.args[1]) % value.dim()
            inner = list(self._broadcast(node.args[0], value.dim() - 1))
            return (*inner[:axis], False, *inner[axis:])
        if target is aten.slice.Tensor:
            return self._both(self._broadcast(node.args[0], value.dim()), everything)
        if target is aten.index.Tensor:
            return self._index(node, value.dim()) or everything
        if (
            target is prims.convert_element_type.default
            or torch.Tag.pointwise in getattr(target, "tags", ())
            or target in (aten.clone.default, aten._to_copy.default)
        ):
            varying = (False,) * value.dim()
            for operand in node.all_input_nodes:
                theirs = self._broadcast(operand, value.dim())
                varying = tuple(a or b for a, b in zip(varying, theirs, strict=True))
            return varying
        return everything

    def _index(self, node: Node, dims: int) -> tuple[bool, ...] | None:
        """Of ``x[i, j]`` where every dimension of x has an index."""
        base, indices = node.args[:2]
        if not isinstance(base, Node) or not isinstance(indices, Sequence):
            return None
        if len(indices) != base.meta["val"].dim():
            return None
        varying = (False,) * dims
        for index in indices:
            if not isinstance(index, Node) or index.meta["val"].dtype == torch.bool:
                return None
            theirs = self._broadcast(index, dims)
            varying = tuple(a or b for a, b in zip(varying, theirs, strict=True))
        return varying

    def _broadcast(self, operand: Any, dims: int) -> tuple[bool, ...]:
        """An operand's, as dimensions of a result of ``dims``: those it lacks do not vary."""
        if not isinstance(operand, Node):
            return (False,) * dims
        own = self._of(operand)
        return (False,) * (dims - len(own)) + own

    @staticmethod
    def _both(a: tuple[bool, ...], b: tuple[bool, ...]) -> tuple[bool, ...]:
        return tuple(x and y for x, y in zip(a, b, strict=True))


@dataclasses.dataclass(frozen=True)
class _Position:
    """The index along ``axis`` (counted from the last, -1) and ``offset``."""

    axis: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Parts:
    """A boolean mask as a conjunction: key <= row, if it is ``causal``, and the others."""

    causal: bool
    others: tuple[Node, ...]


def take_apart(mask: Node) -> Parts | None:
    """Parts of a boolean mask, without those that are always true; ``None`` if nothing is gained.

    Masks are made by comparing positions with one another. What is known to be key <= row need not
    be in memory, and halves the work.
    """
    if mask.meta["val"].dtype != torch.bool:
        return None
    causal, others, gained = False, [], False
    pending = [mask]
    while pending:
        node = pending.pop()
        target: Any = node.target
        if target in (aten.bitwise_and.Tensor, aten.logical_and.default, aten.expand.default):
            operands = [operand for operand in node.args[:2] if isinstance(operand, Node)]
            count = 1 if target is aten.expand.default else 2
            # What is lost by leaving out an expansion is put back by broadcasting.
            if len(operands) == count and all(o.meta["val"].dtype == torch.bool for o in operands):
                pending += reversed(operands)
                continue
        known = _known(node)
        if known is _CAUSAL:
            causal = gained = True
        elif known is True:
            gained = True
        elif node not in others:
            others.append(node)
    return Parts(causal, tuple(others)) if gained else None


_CAUSAL: Final = "key <= row"
_SAME: Final = (
    aten.alias.default,
    aten.clone.default,
    aten.expand.default,
    aten._to_copy.default,
    prims.convert_element_type.default,
)
_ORDER: Final[dict[Any, tuple[bool, bool]]] = {
    aten.le.Tensor: (False, False),
    aten.lt.Tensor: (False, True),
    aten.ge.Tensor: (True, False),
    aten.gt.Tensor: (True, True),
    aten.le.Scalar: (False, False),
    aten.lt.Scalar: (False, True),
    aten.ge.Scalar: (True, False),
    aten.gt.Scalar: (True, True),
}
"""Comparison: whether it is that of the operands turned round, and whether equality is false."""


def _known(node: Any) -> _Position | bool | int | str | None:
    """What a value certainly is: a position, a constant, or ``_CAUSAL``; ``None`` if not known."""
    if isinstance(node, (bool, int)):
        return node
    if not isinstance(node, Node) or node.op != "call_function":
        return None
    target: Any = node.target
    if target is prims.iota.default:
        start, step = node.kwargs.get("start", 0), node.kwargs.get("step", 1)
        return _Position(-1, start) if step == 1 and isinstance(start, int) else None
    if target in _MADE_EQUAL:
        value = node.args[0 if target is aten.scalar_tensor.default else 1]
        return value if isinstance(value, (bool, int)) else None
    if target in _SAME:
        inner = _known(node.args[0])
        value = node.meta["val"]
        narrow = value.dtype not in (torch.int32, torch.int64, torch.bool)
        return None if isinstance(inner, _Position) and narrow else inner
    if target in (aten.unsqueeze.default, aten.view.default):
        return _moved(node)
    if target in (aten.add.Tensor, aten.sub.Tensor) and not node.kwargs:
        left, right = (_known(operand) for operand in node.args)
        if target is aten.add.Tensor and isinstance(right, _Position):
            left, right = right, left
        if isinstance(left, _Position) and isinstance(right, int):
            sign = 1 if target is aten.add.Tensor else -1
            return _Position(left.axis, left.offset + sign * right)
        return None
    if target in _ORDER:
        return _compared(node)
    return None


def _moved(node: Node) -> _Position | bool | int | str | None:
    """Through a view that adds or drops dimensions of 1."""
    inner = _known(node.args[0])
    if not isinstance(inner, _Position):
        return inner if isinstance(inner, (bool, int)) else None
    shape = node.meta["val"].shape
    long = [axis for axis, extent in enumerate(shape) if not statically_known_true(extent == 1)]
    if len(long) != 1:
        return None
    return _Position(long[0] - len(shape), inner.offset)


def _compared(node: Node) -> bool | str | None:
    turned, strict = _ORDER[node.target]
    left, right = (_known(operand) for operand in node.args)
    if turned:
        left, right = right, left
    if isinstance(left, _Position) and isinstance(right, _Position):
        # key + a <= row + b, or key + a < row + b
        distance = right.offset - left.offset - int(strict)
        if (left.axis, right.axis, distance) == (-1, -2, 0):
            return _CAUSAL
        return None
    if isinstance(right, _Position) and isinstance(left, int):
        # constant <= position + offset, and positions begin at 0
        return True if left + int(strict) <= right.offset else None
    return None
