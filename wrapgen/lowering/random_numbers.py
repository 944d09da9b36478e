"""Random numbers from a seed that the caller gives.

A library has no state, so a model that draws numbers takes its seed as an input: an ``int64``
tensor of one element that is called ``seed``. Draw number ``i`` of ``n`` in the graph's order uses
the key ``seed * n + i`` (as a 64-bit integer, wrapping) and element ``j`` of a result the counter
``j`` of Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), as
Triton's ``tl.rand`` and ``tl.randn`` have it. So the same seed gives the same numbers on every GPU,
and no two draws, of one seed or of several, share a stream.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final
from unittest import mock

import torch
from torch._inductor import inductor_prims
from torch._inductor.codegen.triton import TritonOverrides
from torch.fx import GraphModule, Node

aten = torch.ops.aten
prims = torch.ops.prims

INPUT: Final = "seed"
"""What the input is called, in the signature of the model's ``forward``."""

ADVICE: Final = (
    f"a library has no random state: add an input called {INPUT!r} to the model's forward, an int64"
    " tensor of one element, and the numbers are drawn from it"
)

_REAL: Final = {aten.rand.default: "rand", aten.randn.default: "randn"}
_INTEGER: Final = (aten.randint.default, aten.randint.low)


def seeded(module: GraphModule, mode: Any) -> None:
    """Rewrites draws to ones from the input called ``seed``; without one they stay as they are."""
    graph = module.graph
    seed = next((node for node in graph.find_nodes(op="placeholder") if node.name == INPUT), None)
    draws = [node for node in graph.nodes if node.target in _REAL or node.target in _INTEGER]
    if seed is None or not draws or not _is_seed(seed.meta.get("val")):
        return
    first = next(node for node in graph.nodes if node.op != "placeholder")

    def insert(like: Node, target: Any, *args: Any, **kwargs: Any) -> Node:
        node = graph.call_function(target, args, kwargs)
        node.meta["custom"] = dict(like.meta.get("custom") or {})
        operands = torch.fx.node.map_arg(args, lambda operand: operand.meta["val"])
        with mode:
            node.meta["val"] = target(*operands, **kwargs)
        return node

    with graph.inserting_before(first):
        flat = insert(draws[0], aten.view.default, seed, [])
        base = insert(draws[0], aten.mul.Tensor, flat, len(draws))
    for i, draw in enumerate(draws):
        with graph.inserting_before(draw):
            key = insert(draw, aten.add.Tensor, base, i)
            result = _draw(draw, key, insert)
        draw.replace_all_uses_with(result)
        graph.erase_node(draw)


def one_word_a_counter() -> contextlib.AbstractContextManager[object]:
    """While in use, every kernel numbers its draws in the same way.

    Inductor takes all four words of a counter in kernels of one dimension and one in others, so
    that the numbers would depend on what is fused, and with it on the target.
    """
    return mock.patch.object(TritonOverrides, "_can_use_4x_random", lambda: False)


def _is_seed(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.dtype is torch.int64
        and tuple(value.shape) in ((), (1,))
    )


def _draw(draw: Node, key: Node, insert: Any) -> Node:
    """Inserts what gives ``draw``'s numbers, in its dtype, from the key."""
    value = draw.meta["val"]
    random, randint = inductor_prims.random, inductor_prims.randint
    if draw.target in _REAL:
        result = insert(draw, random, draw.args[0], key, _REAL[draw.target])
    else:
        low, high, size = draw.args if draw.target is aten.randint.low else (0, *draw.args)
        result = insert(draw, randint, low, high, size, key)
    if result.meta["val"].dtype is not value.dtype:
        result = insert(draw, prims.convert_element_type.default, result, value.dtype)
    return result
