"""A model that is exported and lowered once, then run on the simulator and compared with eager."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from simulator import program as simulator
from tests.lowering import support
from wrapgen import sizes
from wrapgen.lowering import lower
from wrapgen.program import Copy, Program
from wrapgen.target import parse


class LoweredModel:
    """``program`` and what is needed to run it."""

    def __init__(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        place: Path,
        *,
        kwargs: dict[str, Any] | None = None,
        dynamic_shapes: Any = None,
    ) -> None:
        self.module = module.eval()
        with sizes.general(), torch.no_grad():  # as `wrapgen export` does it
            exported = support.export(self.module, args, kwargs, dynamic_shapes)
        self._weights = support.write_graph(exported, place / "graph.json")
        self._directory = place / "lowered"
        self.program: Program = lower(place / "graph.json", parse("sm_90"), self._directory)

    def run(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, torch.Tensor]]:
        """Runs the program; arguments that export fixed are left out."""
        given = [
            leaf
            for leaf in pytree.tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor) or type(leaf) is int
        ]
        names = [spec.name for spec in self.program.inputs]
        return simulator.run(self._directory, self._weights, dict(zip(names, given, strict=True)))

    def check(self, *args: Any, tolerance: float = 2e-6, **kwargs: Any) -> None:
        """Compares results, and inputs as they are afterwards, with what eager PyTorch gives."""
        theirs, their_kwargs = copy.deepcopy((args, kwargs))
        with torch.no_grad():
            expected = self.module(*theirs, **their_kwargs)
        wanted = [x for x in pytree.tree_leaves(expected) if isinstance(x, torch.Tensor)]
        found = self.run(*args, **kwargs)
        for spec, want in zip(self.program.outputs, wanted, strict=True):
            compare(found["outputs"][spec.name], want, tolerance, spec.name)
        tensors = [
            x for x in pytree.tree_leaves((theirs, their_kwargs)) if isinstance(x, torch.Tensor)
        ]
        for spec, want in zip(self.program.tensor_inputs, tensors, strict=True):
            if spec.mutated:
                compare(found["inputs"][spec.name], want, tolerance, spec.name)

    def copies(self) -> list[Copy]:
        """The copies that ``main`` makes."""
        return [step for step in self.program.main.steps if isinstance(step, Copy)]


def compare(got: torch.Tensor, want: torch.Tensor, tolerance: float, name: str) -> None:
    """Compares shape, dtype and values; ``tolerance`` is of the relative L2 error."""
    assert got.shape == want.shape and got.dtype == want.dtype, (name, got.shape, want.shape)
    if not want.is_floating_point():
        assert torch.equal(got, want), name
        return
    got, want = got.double(), want.detach().double()
    error = torch.linalg.vector_norm(got - want)
    assert float(error) <= tolerance * float(torch.linalg.vector_norm(want)), (name, float(error))
