"""Rewrites of the graph that suit the templates, made before weights' part of it is divided off."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, Final

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten

_VECTOR: Final = 16
"""Bytes of the widest load."""

_RUNS: Final = (32, 16)
"""Preferred divisors of the length of a run, in elements: steps the tensor cores take along k."""


def widen_narrow_convolutions(graph: Graph, origin: str) -> int:
    """Pads images of few channels, as a network's first ones, for wide loads; returns how many.

    Channels last, the pixels under one row of the kernel are a run of kernel width x channels
    neighbours in memory. With 3 channels of half precision no run begins at a multiple of 16 bytes.
    So channels are padded with zeros until horizontal strides are multiples of 16 bytes, the kernel
    with zero columns until a run is whole steps of 32 or 16 elements, and the image by what the
    convolution would have padded. What is left is a convolution with no padding whose loads are all
    16 bytes wide and need no mask. The weight's padding is folded; the image's joins the kernel
    that changes its layout.

    Args:
      graph: a graph with ``meta["val"]`` on every node. Nodes that are added have none: propagate.
      origin: key in ``meta["custom"]`` under which nodes say where they come from; added nodes
        inherit it from their convolution.
    """
    widened = 0
    for node in list(graph.find_nodes(op="call_function", target=aten.convolution.default)):
        plan = _plan(node)
        if plan is None:
            continue
        pads, weight_pads = plan
        x, weight = node.args[0], node.args[1]
        with graph.inserting_before(node):
            wide_x = _call(graph, node, aten.constant_pad_nd.default, (x, pads, 0.0))
            wide_weight = _call(
                graph, node, aten.constant_pad_nd.default, (weight, weight_pads, 0.0)
            )
            for added in (wide_x, wide_weight):
                added.meta["custom"] = {origin: (node.meta.get("custom") or {}).get(origin, ())}
        node.args = (wide_x, wide_weight, *node.args[2:4], [0, 0], *node.args[5:])
        widened += 1
    return widened


def _call(graph: Graph, node: Node, target: Any, args: tuple[Any, ...]) -> Node:
    added = graph.call_function(target, args)
    added.meta["stack_trace"] = node.meta.get("stack_trace")
    added.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
    return added


def _plan(node: Node) -> tuple[list[int], list[int]] | None:
    """Gives the paddings of image and weight (``constant_pad_nd``'s order), or ``None``."""
    arguments: tuple[Any, ...] = tuple(node.args)
    x, weight, _, stride, padding, dilation, transposed, _, groups = arguments
    if transposed or groups != 1 or not isinstance(x, Node) or not isinstance(weight, Node):
        return None
    image, kernel = x.meta["val"], weight.meta["val"]
    sizes: Collection[Any] = (*image.shape, *kernel.shape)
    if image.dim() != 4 or not all(isinstance(size, int) for size in sizes):
        return None
    if image.dtype not in (torch.float16, torch.bfloat16) or dilation[1] != 1:
        return None
    vector = _VECTOR // image.dtype.itemsize
    channels, width, taps = image.shape[1], image.shape[3], kernel.shape[3]
    step = vector // math.gcd(vector, stride[1])
    if channels % vector == 0 or step > vector or taps * kernel.shape[2] == 1:
        return None
    wide = -(-channels // step) * step
    if wide > 2 * channels + vector // 2:
        return None  # more zeros than data
    run = next(
        (
            columns
            for divisor in _RUNS
            for columns in range(taps, taps + 1 + taps // 3)
            if columns * wide % divisor == 0
        ),
        None,
    )
    if run is None:
        return None
    out = (width + 2 * padding[1] - taps) // stride[1] + 1
    right = (out - 1) * stride[1] + run - width - padding[1]
    if right < 0:
        right = 0  # pixels that no output reads may stay
    # One more column, if that aligns rows and makes no further output.
    while (width + padding[1] + right) * wide % vector and (
        width + padding[1] + right + 1 - run
    ) // stride[1] + 1 == out:
        right += 1
    if (width + padding[1] + right) * wide % vector:
        return None
    pads = [padding[1], right, padding[0], padding[0], 0, wide - channels]
    return pads, [0, run - taps, 0, 0, 0, wide - channels]
