"""Masks of attention, without the dimensions along which they say nothing.

A mask of padding is made from [batch, keys] and often spread over rows and heads before attention
sees it. Attention takes masks of one element along a dimension, so that the rest need never be in
memory. ``Narrowing`` finds out along which dimensions a value does not vary.
"""

from __future__ import annotations

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
