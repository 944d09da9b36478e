"""Attention as one operation, from the exported graph to our own lowering.

``keep`` runs on the exported graph: it makes ``wrapgen::attention`` of every
``scaled_dot_product_attention``, of the library calls that PyTorch decomposes it into, and of
softmax(q k^T) v written out (attention_patterns.py). The operation is left alone by decomposition;
templates/attention_lowering.py lowers it to one kernel, or to two where keys are divided.
``narrow`` runs on the decomposed graph: masks lose what attention does itself (key <= row) and the
dimensions along which they say nothing, keys and values the copies that repeated them for the heads
of a group.

What is not taken stays as it was, and PyTorch's definition with matrix products and a softmax is
lowered: dropout, float64, head dimensions over 256, sizes of 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.symbolic_shapes import statically_known_true

from wrapgen.lowering import attention_masks, attention_patterns
from wrapgen.lowering.passes import propagate

aten = torch.ops.aten

_LIBRARY: Final = torch.library.Library("wrapgen", "DEF")
_LIBRARY.define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? mask, bool causal, float scale,"
    " bool rows_first, bool zero_rows) -> Tensor"
)

ATTENTION: Final = torch.ops.wrapgen.attention.default
"""Attention of [batch, heads, rows, head] to keys [batch, heads_kv, keys, head] and values
[batch, heads_kv, keys, head_v], heads a multiple of heads_kv: [batch, heads, rows, head_v].

``mask`` is boolean (true: looked at) or added to the scaled scores, of four dimensions that are 1
or the full extent. ``causal``: row i sees keys 0 to i. ``rows_first``: the result lies in memory as
[batch, rows, heads, head_v], else as its shape says. ``zero_rows``: a row that sees no key is zero
as ``scaled_dot_product_attention`` defines it, else not a number as softmax does.
"""

_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)
_MAX_HEAD: Final = 256


@torch.library.register_fake("wrapgen::attention", lib=_LIBRARY)
def _shape(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    rows_first: bool,
    zero_rows: bool,
) -> torch.Tensor:
    del key, mask, causal, scale, zero_rows
    batch, heads, rows, _ = query.shape
    head = value.shape[-1]
    if rows_first:
        return query.new_empty((batch, rows, heads, head)).transpose(1, 2)
    return query.new_empty((batch, heads, rows, head))


@torch.library.impl(_LIBRARY, "attention", "CompositeExplicitAutograd")
def _reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    scale: float,
    rows_first: bool,
    zero_rows: bool,
) -> torch.Tensor:
    """What the operation means, for those who run a graph eagerly."""
    wide = torch.promote_types(query.dtype, torch.float32)
    group = query.shape[1] // key.shape[1]
    q, k, v = (x.to(wide) for x in (query, key, value))
    scores = q @ k.repeat_interleave(group, 1).transpose(-2, -1) * scale
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask.to(wide)
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    weights = torch.softmax(scores, -1)
    if zero_rows:
        weights = weights.masked_fill((scores == -math.inf).all(-1, keepdim=True), 0.0)
    result = (weights @ v.repeat_interleave(group, 1)).to(query.dtype)
    if rows_first:
        return result.transpose(1, 2).contiguous().transpose(1, 2)
    return result.contiguous()


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call's operands, as ``scaled_dot_product_attention`` takes them."""

    query: Node
    key: Node
    value: Node
    mask: Node | None
    causal: bool
    scale: Any
    result: Node
    """The node whose value is the attention's result."""


def keep(graph: Graph, _weights: Mapping[str, str]) -> int:
    """Makes one operation of each attention in an exported graph; returns how many.

    Graphs that it calls (``with`` blocks) are included.
    """
    module = graph.owning_module
    modules = [m for m in module.modules() if isinstance(m, GraphModule)] if module else []
    kept = 0
    for inner in [m.graph for m in modules] or [graph]:
        for check in inner.find_nodes(
            op="call_function", target=aten._assert_tensor_metadata.default
        ):
            inner.erase_node(check)  # of what may be about to go
        attention_patterns.join(inner)
        for node in list(inner.nodes):
            call = _call(node)
            if call is not None and _supported(call):
                _replace(inner, call)
                kept += 1
        if kept:
            inner.eliminate_dead_code()
    if module is not None and kept:
        for inner_module in modules:
            inner_module.recompile()
    return kept


def _call(node: Node) -> _Call | None:
    """Takes the ways of writing attention apart."""
    if node.op != "call_function":
        return None
    target = node.target
    names = _ARGUMENTS.get(target)
    if names is None:
        return None
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if given.get("dropout_p", 0.0) != 0.0 or given.get("dropout_mask") is not None:
        return None
    result = node
    if target is not aten.scaled_dot_product_attention.default:
        users = list(node.users)
        if len(users) != 1 or users[0].args[1:] != (0,):
            return None  # somebody wants the logarithms too
        result = users[0]
    return _Call(
        query=given["query"],
        key=given["key"],
        value=given["value"],
        mask=given.get("mask"),
        causal=bool(given.get("is_causal", False)),
        scale=given.get("scale"),
        result=result,
    )


_QKV: Final = ("query", "key", "value")
_ARGUMENTS: Final[dict[Any, tuple[str, ...]]] = {
    aten.scaled_dot_product_attention.default: (*_QKV, "mask", "dropout_p", "is_causal"),
    aten._scaled_dot_product_attention_math.default: (
        *_QKV, "mask", "dropout_p", "is_causal", "dropout_mask",
    ),
    aten._scaled_dot_product_flash_attention.default: (*_QKV, "dropout_p", "is_causal"),
    aten._scaled_dot_product_flash_attention_for_cpu.default: (*_QKV, "dropout_p", "is_causal"),
    aten._scaled_dot_product_efficient_attention.default: (
        *_QKV, "mask", "compute_log_sumexp", "dropout_p", "is_causal",
    ),
    aten._scaled_dot_product_cudnn_attention.default: (
        *_QKV, "mask", "compute_log_sumexp", "dropout_p", "is_causal",
    ),
    aten._scaled_dot_product_fused_attention_overrideable.default: (
        *_QKV, "mask", "dropout_p", "is_causal",
    ),
}  # fmt: skip
"""Operation to names of its positional arguments."""


def _supported(call: _Call) -> bool:
    q, k, v = (node.meta["val"] for node in (call.query, call.key, call.value))
    if not (q.dtype == k.dtype == v.dtype and q.dtype in _DTYPES):
        return False
    if not (q.dim() == k.dim() == v.dim() >= 2):
        return False
    if not isinstance(call.scale, (int, float, type(None))):
        return False
    heads = [x.shape[-1] for x in (q, k, v)]
    if q.dim() > 3:
        heads += [x.shape[-3] for x in (q, k, v)]
    if not all(isinstance(extent, int) for extent in heads):
        return False
    if not (0 < q.shape[-1] == k.shape[-1] <= _MAX_HEAD and 0 < v.shape[-1] <= _MAX_HEAD):
        return False
    if q.dim() > 3 and (k.shape[-3] != v.shape[-3] or q.shape[-3] % max(1, k.shape[-3])):
        return False
    if any(statically_known_true(extent == 0) for x in (q, k, v) for extent in x.shape):
        return False
    for ours, theirs in zip(q.shape[:-3], k.shape[:-3], strict=True):
        if not (statically_known_true(ours == theirs) or statically_known_true(theirs == 1)):
            return False
    if q.dim() == 3 and not (
        statically_known_true(q.shape[0] == k.shape[0]) or statically_known_true(k.shape[0] == 1)
    ):
        return False
    return not (q.dim() > 4 and call.mask is not None and call.mask.meta["val"].dim() > 3)


def _replace(graph: Graph, call: _Call) -> None:
    """Puts ``wrapgen::attention`` in place of a call, its operands brought to four dimensions."""
    result = call.result
    q = call.query.meta["val"]
    scale = call.scale if call.scale is not None else 1.0 / math.sqrt(q.shape[-1])
    lead = tuple(q.shape[:-3])
    flat = math.prod(lead) if q.dim() > 4 else None
    zero_rows = call.result.meta.get(attention_patterns.PLAIN_SOFTMAX) is not True

    def add(target: Any, *args: Any) -> Node:
        node = graph.call_function(target, args)
        node.meta = {
            key: result.meta[key]
            for key in ("custom", "stack_trace", "nn_module_stack")
            if key in result.meta
        }
        with fake:
            node.meta["val"] = target(*(_value(arg) for arg in args))
        return node

    def four(node: Node) -> Node:
        shape = node.meta["val"].shape
        if len(shape) == 2:
            return add(aten.unsqueeze.default, add(aten.unsqueeze.default, node, 0), 0)
        if len(shape) == 3:
            if not statically_known_true(shape[0] == q.shape[0]):
                node = add(aten.expand.default, node, [_size(0), -1, -1])
            return add(aten.unsqueeze.default, node, 1)
        if len(shape) > 4:
            node = add(aten.expand.default, node, [*lead, *shape[-3:]])
            return add(aten.reshape.default, node, [flat, *shape[-3:]])
        if not statically_known_true(shape[0] == q.shape[0]):
            node = add(aten.expand.default, node, [_size(0), -1, -1, -1])
        return node

    def _size(axis: int) -> Any:
        extent = q.shape[axis]
        if isinstance(extent, int):
            return extent
        return add(aten.sym_size.int, call.query, axis)

    with graph.inserting_before(result):
        fake = q.fake_mode
        mask = call.mask
        if mask is not None:
            mask = attention_masks.source(mask)
            dims = mask.meta["val"].dim()
            if q.dim() == 3 and dims == 3:
                mask = add(aten.unsqueeze.default, mask, 1)
            while mask.meta["val"].dim() < 4:
                mask = add(aten.unsqueeze.default, mask, 0)
        rows_first = q.dim() == 4 and _wants_rows_first(result)
        new = add(
            ATTENTION,
            *(four(node) for node in (call.query, call.key, call.value)),
            mask,
            call.causal,
            float(scale),
            rows_first,
            zero_rows,
        )
        if q.dim() == 2:
            new = add(aten.squeeze.dims, new, [0, 1])
        elif q.dim() == 3:
            new = add(aten.squeeze.dim, new, 1)
        elif q.dim() > 4:
            new = add(aten.reshape.default, new, [*lead, *new.meta["val"].shape[1:]])
    result.replace_all_uses_with(new)


def _value(arg: Any) -> Any:
    return arg.meta["val"] if isinstance(arg, Node) else arg


def _wants_rows_first(result: Node) -> bool:
    """Whether [batch, rows, heads, head] in memory suits those who read a result.

    Views that were exported must stay views, so a result that was row-major is only turned where
    all that is done to it is turning it round.
    """
    value = result.meta["val"]
    batch, heads, rows, head = value.shape
    turned = (rows * heads * head, head, heads * head, 1)
    if all(
        statically_known_true(a == b) or statically_known_true(extent == 1)
        for a, b, extent in zip(value.stride(), turned, (batch, heads, rows, head), strict=True)
    ):
        return True
    return bool(result.users) and all(_turns(user) for user in result.users)


def _turns(user: Node) -> bool:
    if user.target is aten.transpose.int:
        axes = sorted(axis % 4 for axis in user.args[1:3] if isinstance(axis, int))
        return axes == [1, 2]
    if user.target is aten.permute.default:
        return [axis % 4 for axis in user.args[1]] == [0, 2, 1, 3]
    return False


def narrow(module: GraphModule, mode: Any) -> None:
    """Makes operands of attention smaller where that is the same; see the module's text."""
    changed = False
    for node in list(module.graph.nodes):
        if node.target is ATTENTION:
            changed |= _share_heads(node)
            changed |= _simpler_mask(module.graph, node)
    masks = attention_masks.Narrowing(module.graph)
    for node in list(module.graph.nodes):
        if node.target is ATTENTION and node.args[3] is not None:
            changed |= masks.apply(node, 3)
    if changed:
        module.graph.eliminate_dead_code()
        module.recompile()
        propagate(module, mode)


def _simpler_mask(graph: Graph, node: Node) -> bool:
    """Takes out of a mask what attention does itself, and what is always true."""
    mask = node.args[3]
    found = attention_masks.take_apart(mask) if isinstance(mask, Node) else None
    if found is None:
        return False
    rest: Node | None = None
    with graph.inserting_before(node):
        for part in found.others:
            padded = part
            if rest is not None:
                padded = graph.call_function(aten.bitwise_and.Tensor, (rest, part))
                padded.meta = {k: v for k, v in node.meta.items() if k in ("custom", "stack_trace")}
                padded.meta["val"] = rest.meta["val"] & part.meta["val"]
            rest = padded
        while rest is not None and rest.meta["val"].dim() < 4:
            value = rest.meta["val"].unsqueeze(0)
            rest = graph.call_function(aten.unsqueeze.default, (rest, 0))
            rest.meta = {k: v for k, v in node.meta.items() if k in ("custom", "stack_trace")}
            rest.meta["val"] = value
    node.args = (*node.args[:3], rest, node.args[4] or found.causal, *node.args[5:])
    return True


def _share_heads(node: Node) -> bool:
    """Reads keys and values before they were repeated for the heads of a group, if both were."""
    key, value = (_before_repeat(operand) for operand in node.args[1:3])
    if key is None or value is None:
        return False
    if key.meta["val"].shape[1] != value.meta["val"].shape[1]:
        return False
    node.args = (node.args[0], key, value, *node.args[3:])
    return True


def _before_repeat(operand: Any) -> Node | None:
    """``x`` of view(clone(expand(unsqueeze(x, 2)))), which repeats each head of ``x``."""
    chain = [operand]
    for targets in (
        (aten.view.default, aten._unsafe_view.default, aten.reshape.default),
        (aten.clone.default,),
        (aten.expand.default,),
        (aten.unsqueeze.default,),
    ):
        node = chain[-1]
        if not isinstance(node, Node) or node.target not in targets:
            if targets == (aten.clone.default,):
                continue  # a copy that nobody needed
            return None
        chain.append(node.args[0])
    source = chain[-1]
    if not isinstance(source, Node):
        return None
    inner, outer = source.meta["val"].shape, operand.meta["val"].shape
    expand = next(n for n in chain if isinstance(n, Node) and n.target is aten.expand.default)
    spread = expand.meta["val"].shape
    unsqueeze = expand.args[0]
    if not isinstance(unsqueeze, Node) or unsqueeze.args[1] not in (2, -3):
        return None
    if len(inner) != 4 or len(outer) != 4 or len(spread) != 5:
        return None
    same = all(
        statically_known_true(a == b)
        for a, b in (
            (inner[0], outer[0]), (inner[1] * spread[2], outer[1]), (inner[2], outer[2]),
            (inner[3], outer[3]), (spread[0], inner[0]), (spread[1], inner[1]),
            (spread[3], inner[2]), (spread[4], inner[3]),
        )
    )  # fmt: skip
    return source if same else None
