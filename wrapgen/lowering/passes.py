"""Rewrites of the exported graph before it is divided and lowered.

In order: batch norms are folded into convolutions, the graph is decomposed into what Inductor
lowers, devices are rewritten to the declared GPU, convolution weights get channels-last copies.
All of it is symbolic: weights have shapes here and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch._inductor.lowering  # Inductor's decompositions look it up as an attribute
from torch._inductor.decomposition import select_decomp_table
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from wrapgen.lowering.declared_device import CUDA

aten = torch.ops.aten
prims = torch.ops.prims

ORIGIN: Final = "wrapgen.origin"
"""Key in a node's ``meta["custom"]``: names of the exported nodes it comes from."""

_CONVOLUTIONS: Final = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
    aten.convolution.default,
)


LABEL: Final = "wrapgen.label"
"""Key in a node's ``meta["custom"]``: a readable name of a value computed from weights."""


def mark_origins(module: GraphModule) -> None:
    """Writes each node's own name into its metadata; decomposition hands it on.

    Nodes of a graph inside (a ``with`` block, say) get the name of the node that calls it.
    """
    for node in module.graph.nodes:
        if node.op == "call_function":
            _mark(node, module, (node.name,))


def _mark(node: Node, module: GraphModule, names: tuple[str, ...]) -> None:
    node.meta["custom"] = {ORIGIN: names}
    for operand in node.all_input_nodes:
        inner = getattr(module, str(operand.target), None) if operand.op == "get_attr" else None
        if isinstance(inner, GraphModule):
            for inside in inner.graph.nodes:
                if inside.op == "call_function":
                    _mark(inside, inner, names)


def origins(node: Node) -> tuple[str, ...]:
    """The names of the exported nodes that ``node`` comes from; empty where nobody recorded it."""
    custom = node.meta.get("custom") or {}
    found: tuple[str, ...] = custom.get(ORIGIN, ())
    return found


def label(node: Node) -> str:
    """The readable name that was given to the value ``node`` computes; empty where none was."""
    custom = node.meta.get("custom") or {}
    found: str = custom.get(LABEL, "")
    return found


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


def decompose(program: ExportedProgram) -> ExportedProgram:
    """Decomposes a program into the operations that Inductor lowers, without in-place ones."""
    table: dict[Any, Callable[..., Any]] = dict(select_decomp_table())
    # Left alone it becomes flash attention, which on the CPU, where models are exported, is a
    # library call. The table's other entries know no device.
    table[aten.scaled_dot_product_attention.default] = _attention
    decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``scaled_dot_product_attention`` as its documentation defines it."""
    result, _ = aten._scaled_dot_product_attention_math.default(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )
    assert isinstance(result, torch.Tensor)
    return result


def drop_effects(program: ExportedProgram) -> None:
    """Removes what orders the error checks of linear algebra, and the results that are no user's.

    Whatever is checked has no kernel and is reported itself. Other effects are left in.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.higher_order.with_effects:
            token, op = node.args[:2]
            if op is aten._linalg_check_errors.default:
                for user in list(node.users):
                    user.replace_all_uses_with(token)
                    graph.erase_node(user)
                graph.erase_node(node)
    (output,) = graph.find_nodes(op="output")
    specs = program.graph_signature.output_specs
    output.args = (
        tuple(
            result
            for result, spec in zip(output.args[0], specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT
        ),
    )


def higher_order(graph: Graph) -> list[Node]:
    """The nodes that call a graph (branches, loops) or have an effect (printing)."""
    return [node for node in graph.nodes if isinstance(node.target, torch._ops.HigherOrderOperator)]


def move_to_gpu(graph: Graph) -> None:
    """Rewrites every device in the graph to the declared GPU and drops checks of devices."""
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
            continue
        node.args = _on_gpu(node.args)
        node.kwargs = _on_gpu(node.kwargs)


def _on_gpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return CUDA
    if isinstance(value, (list, tuple)):
        return type(value)(_on_gpu(item) for item in value)
    if isinstance(value, dict):
        return {key: _on_gpu(item) for key, item in value.items()}
    return value


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


def dense_outputs(graph: Graph) -> list[tuple[int, ...]]:
    """Copies outputs that are views with gaps or overlaps, so that each fills its own memory.

    Returns the outputs' strides as exported; row-major for those that are copied.
    """
    (output,) = graph.find_nodes(op="output")
    results, strides = [], []
    for result in output.args[0]:
        if not torch._prims_common.is_non_overlapping_and_dense_or_false(result.meta["val"]):
            value = result.meta["val"]
            with graph.inserting_before(output):
                copy = graph.call_function(
                    aten.clone.default, (result,), {"memory_format": torch.contiguous_format}
                )
            copy.meta["custom"] = {ORIGIN: origins(result)}
            copy.meta["val"] = torch.empty_like(value, memory_format=torch.contiguous_format)
            result = copy
        results.append(result)
        strides.append(tuple(result.meta["val"].stride()))
    output.args = (tuple(results),)
    return strides


def propagate(module: GraphModule, mode: Any) -> list[torch.Tensor]:
    """Recomputes shapes, strides and devices with every input on the GPU; returns the inputs."""
    with mode:
        inputs = [
            _fake_on_gpu(node.meta.get("val")) for node in module.graph.find_nodes(op="placeholder")
        ]
    FakeTensorProp(module, mode).propagate_dont_convert_inputs(*inputs)
    return inputs


def _fake_on_gpu(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)
