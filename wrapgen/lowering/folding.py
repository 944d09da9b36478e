"""Divides a graph into what depends on weights alone and the rest.

The first part, ``folding``, runs once when a model is loaded; its results are constants of the
second, ``main``. A view of a weight or constant stays in ``main``, where it costs nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch.fx import Graph, GraphModule, Node

from wrapgen.lowering import passes


@dataclasses.dataclass(frozen=True)
class Divided:
    """The two parts of a graph.

    Attributes:
      folding: takes weights, returns the constants in order; ``None`` if there is nothing to fold.
      main: takes weights, constants (placeholders called as in ``constants``) and inputs.
      constants: the constants in order: main's placeholder, and the node that computes it.
    """

    folding: GraphModule | None
    main: GraphModule
    constants: tuple[Node, ...]


def divide(
    module: GraphModule, weights: Collection[str], strides: Sequence[tuple[int, ...]]
) -> Divided:
    """Divides ``module``; ``weights`` are the names of its placeholders that are weights.

    Nodes carry their metadata along. Placeholders nobody reads are left out of both parts, inputs
    too. Constants have the strides they have in ``module``, results the strides ``strides``, which
    are those of the export: inside, Inductor is free.
    """
    graph = module.graph
    constant, from_weights = _constants(graph, weights)
    (output,) = graph.find_nodes(op="output")
    written = [node for node in graph.nodes if passes.is_write_back(node)]
    main: set[Node] = {output}
    boundary: set[Node] = set()
    wanted: set[Node] = {*output.all_input_nodes, *written}
    for node in reversed(graph.nodes):
        if node not in wanted:
            continue
        computed = node in constant and node.op != "placeholder" and node in from_weights
        # What is made from nothing (a mask, a range) or only looked at is cheaper made anew.
        if computed and node.target not in passes.VIEWS:
            boundary.add(node)
        else:
            main.add(node)
            wanted.update(node.all_input_nodes)
    results = [node for node in graph.nodes if node in boundary]
    folding: set[Node] = set()
    for node in reversed(graph.nodes):
        if node in boundary or node in folding:
            folding.add(node)
            folding.update(node.all_input_nodes)
    own = [node.meta["val"].stride() for node in results]
    return Divided(
        folding=extract(module, folding, results, own) if results else None,
        main=extract(module, main, list(output.args[0]), strides, given=boundary),
        constants=tuple(results),
    )


def _constants(graph: Graph, weights: Collection[str]) -> tuple[set[Node], set[Node]]:
    """Gives the nodes that depend on no input, and of these the ones that depend on a weight."""
    constant: set[Node] = set()
    from_weights: set[Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in weights:
                constant.add(node)
                from_weights.add(node)
        elif (
            node.op == "call_function"
            and constant.issuperset(node.all_input_nodes)
            and not node.is_impure()
            and not is_random(node)
        ):
            constant.add(node)
            if not from_weights.isdisjoint(node.all_input_nodes):
                from_weights.add(node)
    return constant, from_weights


def is_random(node: Node) -> bool:
    """Whether a node draws random numbers."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags


def extract(
    module: GraphModule,
    keep: AbstractSet[Node],
    results: Sequence[Node],
    strides: Sequence[tuple[int, ...]],
    given: AbstractSet[Node] = frozenset(),
) -> GraphModule:
    """Makes a graph of the nodes ``keep``, in order, with those of ``given`` as placeholders."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    # GraphLowering wants placeholders first; they keep their order.
    for node in module.graph.nodes:
        if node in given:
            copies[node] = graph.placeholder(node.name)
            copies[node].meta = {"val": node.meta["val"]}
        elif node in keep and node.op == "placeholder":
            copies[node] = graph.node_copy(node)
    for node in module.graph.nodes:
        if node in keep and node.op not in ("placeholder", "output"):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    output = graph.output(tuple(copies[node] for node in results))
    output.meta["val"] = tuple(node.meta["val"] for node in results)
    output.meta["user_visible_output_idxs"] = range(len(results))
    output.meta["original_output_strides"] = list(strides)
    return GraphModule(module, graph)
