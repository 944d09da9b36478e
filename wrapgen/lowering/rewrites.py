"""The rewrites of a model's graph, in order; each lives in the module of its operation.

``exported`` gets the graph as the user exported it, before decomposition, ``decomposed`` the graph
of operations that Inductor lowers, on the declared GPU. Sizes may be symbolic (``torch.SymInt``) in
both: a rewrite must hold for all of their values and must not ask for one (``int(size)``, a
comparison in an ``if``), but ask ``torch.fx.experimental.symbolic_shapes.statically_known_true``
whether something holds always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.fx import Graph, GraphModule

from wrapgen.lowering import attention, convolution, operators, pooling, random_numbers

EXPORTED: Final[tuple[Callable[[Graph, Mapping[str, str]], object], ...]] = (
    convolution.fold_batch_norms,
    operators.rectangular_embedding_bags,
    attention.keep,
)
"""Each takes an exported graph, and placeholder name to qualified name of each weight."""

DECOMPOSITIONS: Final[dict[Any, Callable[..., Any] | None]] = {
    torch.ops.aten.convolution.default: convolution.decompose,
    **pooling.DECOMPOSITIONS,
    **operators.DECOMPOSITIONS,
}
"""Overload to decomposition, in place of Inductor's; ``None`` keeps the operation as it is, for a
lowering of our own (templates/) or for a rewrite of the decomposed graph."""

DECOMPOSED: Final[tuple[Callable[[GraphModule, Any], object], ...]] = (
    random_numbers.seeded,
    convolution.prepare,
    attention.narrow,
)
"""Each takes a graph whose nodes all have ``meta["val"]``, which it leaves them with, and the
``FakeTensorMode`` of those."""


def exported(graph: Graph, weights: Mapping[str, str]) -> None:
    """Rewrites an exported graph."""
    for rewrite in EXPORTED:
        rewrite(graph, weights)


def decomposed(module: GraphModule, mode: Any) -> None:
    """Rewrites a decomposed graph."""
    for rewrite in DECOMPOSED:
        rewrite(module, mode)
