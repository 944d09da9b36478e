"""Lowered programs give what eager PyTorch gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from tests.lowering import small_models, support
from wrapgen.lowering import lower
from wrapgen.target import parse

# Relative L2 error; half precision accumulates in float32 and rounds once an operation.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3}


@pytest.mark.parametrize("name", sorted(small_models.models()))
def test_matches_eager(name: str, tmp_path: Path) -> None:
    module, args, kwargs = small_models.models()[name]
    graph, lowered = tmp_path / "graph.json", tmp_path / "lowered"
    weights = support.write_graph(support.export(module, args, kwargs), graph)
    program = lower(graph, parse("sm_90"), lowered)
    names = [spec.name for spec in program.inputs]
    inputs = dict(zip(names, [*args, *kwargs.values()], strict=True))

    outputs = support.run_on_host(lowered, weights, inputs, tmp_path)["outputs"]

    with torch.no_grad():
        expected = pytree.tree_leaves(module(*args, **kwargs))
    assert len(expected) == len(program.outputs)
    for spec, want in zip(program.outputs, expected, strict=True):
        got = outputs[spec.name]
        assert got.shape == want.shape and got.dtype == want.dtype
        assert _error(got, want) < TOLERANCE[want.dtype], spec.name


def _error(got: torch.Tensor, want: torch.Tensor) -> float:
    got, want = got.double(), want.double()
    return float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))
