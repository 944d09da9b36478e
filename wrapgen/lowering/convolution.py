"""Rewrites of convolutions in the exported graph.

``fold_batch_norms`` runs on the exported graph, ``decompose`` is a decomposition of
``aten.convolution``, ``prepare`` runs on the decomposed graph. What they compute from weights
depends on weights alone, so it is folded later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

_TRANSPOSED: Final = (
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)

_GROUP_WIDTH: Final = {torch.float16: 64, torch.bfloat16: 64, torch.float32: 16}
"""Channels of a group up to which groups are merged. By the cost model the best or near it for
ResNeXt's layers on an H100; in float32 there are no tensor cores that idle."""


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
            conv.target not in (*_CONVOLUTIONS, *_TRANSPOSED)
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
            weight, bias = _scaled(
                graph, names, operands, (gamma, beta, mean, var), eps, _transposed_groups(conv)
            )
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


def _transposed_groups(conv: Node) -> int:
    """The groups of a transposed convolution; 0 of others."""
    arguments: tuple[Any, ...] = tuple(conv.args)
    if conv.target in _TRANSPOSED:
        return int(arguments[6]) if len(arguments) > 6 else 1
    if conv.target is aten.convolution.default and arguments[6]:
        return int(arguments[8])
    return 0


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
    transposed_groups: int,
) -> tuple[Node, Node]:
    """Inserts the folded weight and bias.

    The weight of a transposed convolution is [input channels, output channels / groups, ...], so
    the scale is per column, and another for each group; that of others has the output channels
    first.
    """
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
    ones = [1] * (value.dim() - 1)
    if transposed_groups:
        inputs, outputs, *_ = value.shape
        within = inputs // transposed_groups
        column = call(aten.view.default, scale, [transposed_groups, 1, outputs])
        column = call(aten.expand.default, column, [transposed_groups, within, outputs])
        column = call(aten.reshape.default, column, [inputs, outputs, *ones[1:]])
    else:
        column = call(aten.view.default, scale, [-1, *ones])
    new_weight = call(aten.mul.Tensor, float32(weight), column)
    shift = call(aten.neg.default, float32(mean))
    if bias is not None:
        shift = call(aten.add.Tensor, float32(bias), shift)
    shift = call(aten.mul.Tensor, shift, scale)
    if beta is not None:
        shift = call(aten.add.Tensor, shift, float32(beta))
    convert = prims.convert_element_type.default
    return call(convert, new_weight, value.dtype), call(convert, shift, value.dtype)


def decompose(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    """``aten.convolution`` by such as the templates compute.

    - Transposed ones become ordinary ones (``_transposed``).
    - Narrow groups are merged (``_merged_groups``).

    ``NotImplemented`` for those that are left as they are.
    """
    rank = weight.dim() - 2
    stride, padding, dilation, output_padding = (
        list(values) if len(values) == rank else [*values] * rank
        for values in (stride, padding, dilation, output_padding)
    )
    if transposed:
        return _transposed(x, weight, bias, stride, padding, dilation, output_padding, groups)
    merged = _mergeable(weight, groups)
    if merged > 1:
        weight = _merged_groups(weight, groups, merged)
        return aten.convolution.default(
            x, weight, bias, stride, padding, dilation, False, output_padding, groups // merged
        )
    return NotImplemented


def _transposed(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    output_padding: list[int],
    groups: int,
) -> torch.Tensor:
    """A transposed convolution as an ordinary one and a rearrangement of its result.

    ``y[o]`` is the sum of ``x[i] w[t]`` over ``o + padding = stride i + dilation t``. Write
    ``o + padding = stride q + r``: each phase ``r`` of the result is an ordinary convolution of
    ``x``, with every ``stride``-th tap, in reverse (the polyphase decomposition of an interpolation
    filter: Crochiere and Rabiner, "Multirate Digital Signal Processing", 1983, section 3.3). All
    phases are computed at once, as that many times the channels: with ``kernel == stride`` this is
    a matrix product. Then pixels take their places, and what ``padding`` cuts off is left out.

    Taps are padded with zeros to a multiple of ``stride``. With ``stride`` > 1, gaps of a dilated
    kernel are taps that are zero. Extents may be symbolic.
    """
    rank = weight.dim() - 2
    reach = [dilation[i] * (weight.shape[2 + i] - 1) for i in range(rank)]
    # The result's extent is stride (extent - 1) + extra.
    extra = [reach[i] + output_padding[i] + 1 - 2 * padding[i] for i in range(rank)]
    dilation = list(dilation)
    for i in range(rank):
        if stride[i] > 1 and dilation[i] > 1:
            weight, dilation[i] = _spread(weight, 2 + i, dilation[i]), 1
    weight = _phases(weight, stride, groups)
    phases = math.prod(stride)
    if bias is not None:
        bias = bias.view(groups, 1, -1).expand(-1, phases, -1).reshape(-1)
    reach = [dilation[i] * (weight.shape[2 + i] - 1) for i in range(rank)]
    # The first q wanted is padding // stride, the last this far past the last pixel:
    past = [(extra[i] + padding[i] - 1) // stride[i] for i in range(rank)]
    around = [max(0, reach[i] - padding[i] // stride[i], past[i]) for i in range(rank)]
    ones, zeros = [1] * rank, [0] * rank
    y = aten.convolution.default(x, weight, bias, ones, around, dilation, False, zeros, groups)
    if phases > 1:
        y = _interleaved(y, stride, groups)
    for i in range(rank):
        # The first q computed is reach - around.
        first = padding[i] - stride[i] * (reach[i] - around[i])
        rest = stride[i] * (around[i] + 1) - padding[i] - extra[i]
        if first or rest:
            y = aten.slice.Tensor(y, 2 + i, first, y.shape[2 + i] - rest)
    return y


def _spread(weight: torch.Tensor, axis: int, dilation: int) -> torch.Tensor:
    """Puts ``dilation`` - 1 zeros between neighbours along an axis."""
    extent = weight.shape[axis]
    pads = [0, 0] * (weight.dim() - axis - 1) + [0, dilation - 1]
    spread = torch.nn.functional.pad(weight.unsqueeze(axis + 1), pads)
    return spread.flatten(axis, axis + 1).narrow(axis, 0, dilation * (extent - 1) + 1)


def _phases(weight: torch.Tensor, stride: Sequence[int], groups: int) -> torch.Tensor:
    """The weight of the ordinary convolution that computes all phases of a transposed one.

    From [groups x inputs, outputs, taps...] to [groups x phases x outputs, inputs, taps...], where
    phase ``r`` has the taps ``r``, ``r + stride``, ... in reverse.
    """
    rank = len(stride)
    taps = [-(-weight.shape[2 + i] // stride[i]) for i in range(rank)]
    missing = [taps[i] * stride[i] - weight.shape[2 + i] for i in range(rank)]
    if any(missing):
        pads = [pad for amount in reversed(missing) for pad in (0, amount)]
        weight = torch.nn.functional.pad(weight, pads)
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    split = [extent for i in range(rank) for extent in (taps[i], stride[i])]
    weight = weight.reshape(groups, inputs, outputs, *split)
    along, across = range(3, 3 + 2 * rank, 2), range(4, 4 + 2 * rank, 2)
    reversed_axes = [axis for axis, extent in zip(along, taps, strict=True) if extent > 1]
    if reversed_axes:
        weight = weight.flip(reversed_axes)
    weight = weight.permute(0, *across, 2, 1, *along)
    return weight.reshape(groups * math.prod(stride) * outputs, inputs, *taps)


def _interleaved(y: torch.Tensor, stride: Sequence[int], groups: int) -> torch.Tensor:
    """From [batch, groups x phases x channels, ...] to [batch, groups x channels, ...]."""
    rank = len(stride)
    batch, channels, *size = y.shape
    outputs = channels // (groups * math.prod(stride))
    y = y.reshape(batch, groups, *stride, outputs, *size)
    axes = [axis for i in range(rank) for axis in (3 + rank + i, 2 + i)]
    y = y.permute(0, 1, 2 + rank, *axes)
    return y.reshape(batch, groups * outputs, *(size[i] * stride[i] for i in range(rank)))


def _mergeable(weight: torch.Tensor, groups: int) -> int:
    """How many neighbouring groups to merge into one; 1 for none."""
    outputs, inputs = weight.shape[0] // max(1, groups), weight.shape[1]
    limit = _GROUP_WIDTH.get(weight.dtype, 0)
    if groups == 1 or inputs == 1:
        return 1  # depthwise ones are no matrix products
    fitting = (n for n in range(groups, 1, -1) if groups % n == 0)
    return next((n for n in fitting if n * max(inputs, outputs) <= limit), 1)


def _merged_groups(weight: torch.Tensor, groups: int, merged: int) -> torch.Tensor:
    """The weight of a convolution with ``merged`` neighbouring groups in one.

    It is block-diagonal: what one group's outputs took of another's inputs is zero. The matrix
    product has blocks as large as the hardware's then. An input that is no finite number reaches
    the outputs of the groups it is merged with, too (as NaN).
    """
    outputs, inputs, *kernel = weight.shape
    outputs //= groups
    weight = weight.reshape(groups // merged, merged, outputs, 1, inputs, *kernel)
    block = torch.arange(merged, device=weight.device)
    own = (block[:, None] == block[None, :]).view(1, merged, 1, merged, 1, *[1] * len(kernel))
    weight = torch.where(own, weight, weight.new_zeros(()))
    return weight.reshape(groups * outputs, merged * inputs, *kernel)


def prepare(module: GraphModule, mode: Any) -> None:
    """Brings convolutions of a decomposed graph into the layouts that templates compute fast.

    Every node has its ``meta["val"]``, before and afterwards.
    """
    if not module.graph.find_nodes(op="call_function", target=aten.convolution.default):
        return
    if rewrite.widen_narrow_convolutions(module.graph, ORIGIN):
        propagate(module, mode)
    channels_last_weights(module.graph)
    loosen_views(module.graph)
    propagate(module, mode)
    tighten_views(module.graph)


def channels_last_weights(graph: Graph) -> None:
    """Gives each convolution a copy of its weight in the order in which kernels read it.

    That is channels last; of a depthwise one, output channels last. The copy depends on weights
    alone, so it is made once, at load. 1x1 kernels need none: both layouts are the same memory.
    """
    copies: dict[tuple[Node, bool], Node] = {}
    for node in list(graph.find_nodes(op="call_function", target=aten.convolution.default)):
        weight = node.args[1]
        shape = weight.meta["val"].shape
        if node.args[6] or all(extent == 1 for extent in shape[2:]):
            continue
        depthwise = node.args[8] > 1 and shape[1] == 1
        if (weight, depthwise) not in copies:
            copies[weight, depthwise] = _copied(graph, weight, depthwise, origins(node))
        node.replace_input_with(weight, copies[weight, depthwise])


_FORMATS: Final = {4: torch.channels_last, 5: torch.channels_last_3d}


def _copied(graph: Graph, weight: Node, depthwise: bool, names: tuple[str, ...]) -> Node:
    """Inserts a copy of a weight: channels last, or output channels last."""
    rank = weight.meta["val"].dim()
    after = weight

    def call(target: Any, *args: Any, **kwargs: Any) -> Node:
        nonlocal after
        with graph.inserting_after(after):
            after = graph.call_function(target, args, kwargs)
        after.meta["custom"] = {ORIGIN: names}
        return after

    if rank in _FORMATS and not depthwise:
        return call(aten.clone.default, weight, memory_format=_FORMATS[rank])
    there = [*range(1, rank), 0] if depthwise else [0, *range(2, rank), 1]
    turned = call(aten.permute.default, weight, there)
    copy = call(aten.clone.default, turned, memory_format=torch.contiguous_format)
    return call(aten.permute.default, copy, [there.index(axis) for axis in range(rank)])


def loosen_views(graph: Graph) -> None:
    """Makes views ``reshape``, which copies where a new layout does not allow a view."""
    for node in graph.find_nodes(op="call_function", target=aten.view.default):
        node.target = aten.reshape.default


def tighten_views(graph: Graph) -> None:
    """Makes each ``reshape`` that shares its operand's memory a view again."""
    for node in graph.find_nodes(op="call_function", target=aten.reshape.default):
        own, source = node.meta["val"], node.args[0].meta["val"]
        if torch._C._is_alias_of(own, source):
            node.target = aten.view.default
