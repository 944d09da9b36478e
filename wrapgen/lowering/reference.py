"""The graphs that kernels were made from, made again, to check the kernels against.

Lowering is deterministic: the same ``graph.json`` and target give graphs with the same nodes, so
the names that a program's buffers bear (``Buffer.node``) are those of nodes here. Nothing is
lowered; the graphs are for PyTorch to run, on real values.
"""

from __future__ import annotations

import dataclasses
import tempfile
import warnings
from pathlib import Path

from torch.fx import GraphModule, Node

from wrapgen import sizes
from wrapgen.lowering import control, graph_file, inductor, model, passes
from wrapgen.lowering.declared_device import declared
from wrapgen.lowering.kernel import Builder
from wrapgen.lowering.sites import Sites
from wrapgen.program import SourceNode
from wrapgen.target import Target


@dataclasses.dataclass(frozen=True)
class Part:
    """One procedure as a graph.

    Its placeholders are called like inputs, like main's constants, or like weights' placeholders;
    ``results`` are the nodes of its outputs, in the order of the program's constants or outputs.
    """

    module: GraphModule
    results: tuple[Node, ...]

    def node(self, name: str) -> Node | None:
        """The node with a name."""
        for node in self.module.graph.nodes:
            if node.name == name:
                found: Node = node
                return found
        return None


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a program was lowered from.

    Attributes:
      folding: weights to constants; ``None`` where there is nothing to fold.
      main: inputs, weights and constants to outputs.
      constants: main's placeholders of the constants, in the program's order.
      weights: placeholder name to name in the weights file, in both parts.
      sources: name of an exported node to where it comes from.
    """

    folding: Part | None
    main: Part
    constants: tuple[str, ...]
    weights: dict[str, str]
    sources: dict[str, SourceNode]


def prepare(graph: Path, target: Target) -> Reference:
    """Makes the graphs that ``lower`` made of ``graph.json`` for ``target``.

    Raises:
      LoweringError: as ``lower`` does.
    """
    target = target.lowering
    with warnings.catch_warnings(), sizes.general():
        warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
        read = graph_file.read(graph)
        # From here on as in model.lower.
        module, strides, _ = model.simplified(read)
        with declared(target.device), tempfile.TemporaryDirectory(prefix="wrapgen-") as scratch:
            state = model.State(read, target, Builder(Sites(target.device), 1, Path(scratch)))
            parts = state.divide(module, strides)
            for each in (parts.folding, parts.main):
                if each is not None:
                    passes.propagate(each, state.mode)
                    # Pieces between branches and loops are rewritten by themselves: of their nodes
                    # only those have names in a program that are here, too.
                    if not control.has_control(each.graph):
                        inductor.rewrite(each, state.mode, Path(scratch))
    return Reference(
        folding=_part(parts.folding) if parts.folding is not None else None,
        main=_part(parts.main),
        constants=tuple(node.name for node in parts.constants),
        weights=read.names,
        sources=read.sources,
    )


def _part(module: GraphModule) -> Part:
    (output,) = module.graph.find_nodes(op="output")
    return Part(module, tuple(output.args[0]))
