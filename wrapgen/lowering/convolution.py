"""Rewrites of convolutions in the exported graph.

``fold_batch_norms`` runs on the exported graph, ``prepare`` on the decomposed one. What they
compute from weights depends on weights alone, so it is folded later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.fx import Graph, GraphModule, Node

from wrapgen.lowering.passes import LABEL, ORIGIN, origins, propagate
from wrapgen.lowering.templates import rewrite

aten = torch.ops.aten
prims = torch.ops.prims

_CONVOLUTIONS: Final = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
    aten.convolution.default,
)


def fold_batch_norms(graph: Graph, weights: Mapping[str, str]) -> int:
    """Folds each batch norm in evaluation mode into the convolution before it; returns how many.

    ``conv(x, w, b)`` followed by ``batch_norm(y, gamma, beta, mean, var, eps)`` becomes
    ``conv(x, w * s, (b - mean) * s + beta)`` with ``s = gamma / sqrt(var + eps)`` per output
    channel (Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2017, section 3.2). ``s`` and the products are computed in
    float32 and rounded to the convolution's dtype once. They depend on weights alone, so the
    constant-folding program computes them.

    Args:
      graph: an exported graph, not decomposed or decomposed into core ATen.
      weights: placeholder name to qualified name of each weight.
    """
    folded = 0
    for node in list(graph.nodes):
        parts = _batch_norm(node)
        if parts is None:
            continue
        conv, gamma, beta, mean, var, eps = parts
        operands = (conv.args[1], conv.args[2] if len(conv.args) > 2 else None)
        constants = (*operands, gamma, beta, mean, var)
        if (
            conv.target not in _CONVOLUTIONS
            or (conv.target is aten.convolution.default and conv.args[6])
            or len(conv.users) != 1
            or conv.kwargs
            or not all(c is None or (isinstance(c, Node) and c.name in weights) for c in constants)
        ):
            continue
        result = _result(node)
        if result is None:
            continue
        names = (*origins(conv), *origins(node))
        with graph.inserting_before(conv):
            weight, bias = _scaled(graph, names, operands, (gamma, beta, mean, var), eps)
            assert isinstance(conv.args[1], Node)
            fqn = weights[conv.args[1].name]
            weight.meta["custom"][LABEL] = f"{fqn}.folded"
            bias.meta["custom"][LABEL] = f"{fqn.removesuffix('.weight')}.bias.folded"
            merged = graph.call_function(conv.target, (conv.args[0], weight, bias, *conv.args[3:]))
        merged.meta = dict(conv.meta)
        merged.meta["val"] = result.meta["val"]
        merged.meta["custom"] = {ORIGIN: names}
        result.replace_all_uses_with(merged)
        for dead in dict.fromkeys((result, node, conv)):
            graph.erase_node(dead)
        folded += 1
    graph.lint()
    return folded


def _batch_norm(node: Node) -> tuple[Node, Any, Any, Any, Any, float] | None:
    """Takes a batch norm in evaluation mode apart: input, gamma, beta, mean, variance, epsilon."""
    if node.op != "call_function" or node.kwargs or not node.args:
        return None
    source = node.args[0]
    if not isinstance(source, Node) or source.op != "call_function":
        return None
    if node.target is aten.batch_norm.default and not node.args[5]:
        _, gamma, beta, mean, var, _, _, eps, *_ = node.args
    elif node.target is aten._native_batch_norm_legit_no_training.default:
        _, gamma, beta, mean, var, _, eps = node.args
    else:
        return None
    assert isinstance(eps, float)
    return source, gamma, beta, mean, var, eps


def _result(node: Node) -> Node | None:
    """The node that holds the normalised tensor; ``None`` if other results are used too."""
    if node.target is aten.batch_norm.default:
        return node
    users = list(node.users)
    if len(users) == 1 and users[0].args[1:] == (0,):
        return users[0]
    return None


def _scaled(
    graph: Graph,
    names: tuple[str, ...],
    operands: tuple[Any, Any],
    statistics: tuple[Any, Any, Any, Any],
    eps: float,
) -> tuple[Node, Node]:
    """Inserts the folded weight and bias."""
    weight, bias = operands
    gamma, beta, mean, var = statistics
    value = weight.meta["val"]

    def call(target: Any, *args: Any) -> Node:
        node = graph.call_function(target, args)
        node.meta["custom"] = {ORIGIN: names}
        return node

    def float32(node: Node) -> Node:
        return call(prims.convert_element_type.default, node, torch.float32)

    scale = call(aten.rsqrt.default, call(aten.add.Scalar, float32(var), eps))
    if gamma is not None:
        scale = call(aten.mul.Tensor, scale, float32(gamma))
    column = call(aten.view.default, scale, [-1] + [1] * (value.dim() - 1))
    new_weight = call(aten.mul.Tensor, float32(weight), column)
    shift = call(aten.neg.default, float32(mean))
    if bias is not None:
        shift = call(aten.add.Tensor, float32(bias), shift)
    shift = call(aten.mul.Tensor, shift, scale)
    if beta is not None:
        shift = call(aten.add.Tensor, shift, float32(beta))
    convert = prims.convert_element_type.default
    return call(convert, new_weight, value.dtype), call(convert, shift, value.dtype)


def prepare(module: GraphModule, mode: Any) -> None:
    """Brings convolutions of a decomposed graph into the forms that templates compute fast.

    Every node has its ``meta["val"]``, before and afterwards.
    """
    if rewrite.widen_narrow_convolutions(module.graph, ORIGIN):
        propagate(module, mode)
    channels_last_weights(module.graph)
    propagate(module, mode)


def channels_last_weights(graph: Graph) -> None:
    """Gives each convolution a channels-last copy of its weight, as Inductor's templates read it.

    The copy depends on weights alone, so it is made once, at load. 1x1 kernels need none: both
    layouts are the same memory.
    """
    copies: dict[Node, Node] = {}
    for node in list(graph.nodes):
        if node.target is not aten.convolution.default or node.args[6]:
            continue
        weight = node.args[1]
        shape = weight.meta["val"].shape
        if len(shape) != 4 or all(extent == 1 for extent in shape[2:]):
            continue
        if weight not in copies:
            with graph.inserting_after(weight):
                copy = graph.call_function(
                    aten.clone.default, (weight,), {"memory_format": torch.channels_last}
                )
            copy.meta["custom"] = {ORIGIN: origins(node)}
            copies[weight] = copy
        node.replace_input_with(weight, copies[weight])
