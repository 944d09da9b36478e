"""Attention that a model writes out: softmax(scale * q k^T + mask) v.

``join`` makes one ``scaled_dot_product_attention`` of it. That is what the "eager" attention of
many models is, and that of models whose scores have a bias (T5). Nothing in between may be wanted
by anyone else. Scores are not rounded to half precision any more, which eager does.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

PLAIN_SOFTMAX: Final = "wrapgen.plain_softmax"
"""Key in ``meta``: a row that sees no key is not a number, as softmax has it."""

_PRODUCTS: Final = (aten.matmul.default, aten.bmm.default)
_SOFTMAX: Final = (aten.softmax.int, aten._softmax.default)
_CONVERSIONS: Final = (
    aten.to.dtype,
    aten.to.dtype_layout,
    aten.to.other,
    aten._to_copy.default,
    aten.type_as.default,
    aten.float.default if hasattr(aten, "float") else aten.to.dtype,
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.clone.default,
)
_FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32)


@dataclasses.dataclass
class _Scores:
    """What is done to a product before the softmax: ``scale * product + masks``."""

    product: Node
    scale: float
    masks: list[Node]
    factors: list[tuple[Any, Node]]
    """Operations with a tensor of no dimensions, to be done to q instead."""


def join(graph: Graph) -> int:
    """Joins each attention that is written out; returns how many."""
    joined = 0
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _PRODUCTS and _join(graph, node):
            joined += 1
    if joined:
        graph.eliminate_dead_code()
    return joined


def _join(graph: Graph, node: Node) -> bool:
    weights, value = node.args[:2]
    softmax = _through(weights)
    if softmax is None or softmax.target not in _SOFTMAX or not isinstance(value, Node):
        return False
    dims = softmax.meta["val"].dim()
    if dims < 3 or softmax.args[1] not in (-1, dims - 1) or len(_users(softmax)) != 1:
        return False
    scores = _scores(softmax.args[0])
    if scores is None:
        return False
    query, key = scores.product.args[:2]
    if not isinstance(query, Node) or not isinstance(key, Node):
        return False
    tensors = [each.meta["val"] for each in (query, key, value)]
    if any(t.dim() != dims or t.dtype not in _FLOATS for t in tensors):
        return False
    if len({t.dtype for t in tensors}) != 1 or node.meta["val"].dtype != tensors[0].dtype:
        return False
    # What broadcasts to the scores; a mask may not make them larger.
    shape = scores.product.meta["val"].shape
    if any(tuple(torch.broadcast_shapes(m.meta["val"].shape, shape)) != tuple(shape)
           for m in scores.masks):  # fmt: skip
        return False

    def add(target: Any, *args: Any, **kwargs: Any) -> Node:
        made = graph.call_function(target, args, kwargs)
        made.meta = {k: v for k, v in node.meta.items() if k not in ("val", "tensor_meta")}
        plain = [a.meta["val"] if isinstance(a, Node) else a for a in args]
        with tensors[0].fake_mode:
            made.meta["val"] = target(*plain, **kwargs)
        return made

    with graph.inserting_before(node):
        for target, factor in scores.factors:
            query = add(target, query, factor)
            if query.meta["val"].dtype != tensors[0].dtype:
                return False
        mask = None
        for other in scores.masks:
            mask = other if mask is None else add(aten.add.Tensor, mask, other)
        key = add(aten.transpose.int, key, -2, -1)
        new = add(
            aten.scaled_dot_product_attention.default,
            query, key, value, _float(add, mask), 0.0, False, scale=scores.scale,
        )  # fmt: skip
        new.meta["val"] = node.meta["val"]
        new.meta[PLAIN_SOFTMAX] = True
    node.replace_all_uses_with(new)
    return True


def _float(add: Any, mask: Node | None) -> Node | None:
    if mask is None or mask.meta["val"].dtype.is_floating_point:
        return mask
    return add(aten.to.dtype, mask, torch.float32)


def _users(node: Node) -> list[Node]:
    """Those who read a value, and not only its type."""
    return [
        user
        for user in node.users
        if not (user.target is aten.type_as.default and user.args[0] is not node)
    ]


def _through(node: Any) -> Node | None:
    """What ``node`` is a conversion of, or a dropout that does nothing."""
    while isinstance(node, Node) and node.op == "call_function":
        no_dropout = node.target is aten.dropout.default and not node.args[2]
        if not (no_dropout or node.target in _CONVERSIONS):
            return node
        if len(_users(node)) != 1:
            return None
        dtype = node.meta["val"].dtype
        if dtype not in _FLOATS:
            return None
        node = node.args[0]
    return None


def _scores(node: Any) -> _Scores | None:
    """Takes apart what a softmax is taken of."""
    found = _Scores(node, 1.0, [], [])
    while True:
        node = _through(node)
        if node is None or len(_users(node)) != 1:
            return None
        left, right = (*node.args[:2], None, None)[:2]
        if node.target in _PRODUCTS:
            found.product = node
            return found
        if node.target in (aten.add.Tensor, aten.add_.Tensor) and not node.kwargs:
            # Either may be the scores; those have been made from a product, and have all dims.
            if not isinstance(right, Node) or found.scale != 1.0 or found.factors:
                return None
            if not _is_scores(left):
                left, right = right, left
            if not isinstance(right, Node) or right.meta["val"].dim() == 0:
                return None
            found.masks.append(right)
            node = left
        elif node.target in _SCALINGS and isinstance(right, (int, float)):
            inverse = node.target in _DIVISIONS
            if inverse and right == 0:
                return None
            found.scale *= 1.0 / right if inverse else float(right)
            node = left
        elif node.target in _SCALINGS and isinstance(right, Node):
            if right.meta["val"].dim() != 0:
                return None
            target = aten.div.Tensor if node.target in _DIVISIONS else aten.mul.Tensor
            found.factors.append((target, right))
            node = left
        else:
            return None


_DIVISIONS: Final = (aten.div.Tensor, aten.div_.Tensor, aten.div.Scalar, aten.div_.Scalar)
_SCALINGS: Final = (
    *_DIVISIONS, aten.mul.Tensor, aten.mul_.Tensor, aten.mul.Scalar, aten.mul_.Scalar,
)  # fmt: skip


def _is_scores(node: Any) -> bool:
    """Whether a product is all that ``node`` is made of, conversions and scalings apart."""
    while isinstance(node, Node) and node.op == "call_function":
        if node.target in _PRODUCTS:
            return True
        if node.target not in (*_CONVERSIONS, *_SCALINGS, aten.add.Tensor, aten.add_.Tensor):
            return False
        node = node.args[0]
    return False
