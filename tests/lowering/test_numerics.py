"""Lowered programs give what eager PyTorch gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from simulator import program as simulator
from tests.lowering import small_models, support
from wrapgen.lowering import lower
from wrapgen.program import Launch, PointerArg, Procedure, Program, Weight
from wrapgen.target import parse

# Relative L2 error; half precision accumulates in float32 and rounds once an operation.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3}


@pytest.mark.parametrize("name", sorted(small_models.models()))
def test_matches_eager(name: str, tmp_path: Path) -> None:
    module, args, kwargs = small_models.models()[name]
    graph, lowered = tmp_path / "graph.json", tmp_path / "lowered"
    weights = support.write_graph(support.export(module, args, kwargs), graph)
    program = lower(graph, parse("sm_90"), lowered)
    names = [spec.name for spec in program.tensor_inputs]
    inputs = dict(zip(names, [*args, *kwargs.values()], strict=True))

    outputs = simulator.run(lowered, weights, inputs)["outputs"]

    with torch.no_grad():
        expected = pytree.tree_leaves(module(*args, **kwargs))
    assert len(expected) == len(program.outputs)
    for spec, want in zip(program.outputs, expected, strict=True):
        got = outputs[spec.name]
        assert got.shape == want.shape and got.dtype == want.dtype
        assert got.stride() == want.stride()
        assert _error(got, want) < TOLERANCE[want.dtype], spec.name


def test_batch_norms_are_folded(tmp_path: Path) -> None:
    """Folded weights are what the formula says, in channels-last order; no batch norm is left."""
    module, args, _ = small_models.models()["residual"]
    graph, lowered = tmp_path / "graph.json", tmp_path / "lowered"
    weights = support.write_graph(support.export(module, args), graph)
    program = lower(graph, parse("sm_90"), lowered)
    assert all(not weight.name.startswith("bn") for weight in _read(program.main, program))

    inputs = {program.tensor_inputs[0].name: args[0]}
    constants = simulator.run(lowered, weights, inputs)["constants"]

    for conv, bn in (("conv1", "bn1"), ("conv2", "bn2"), ("down", "bn3")):
        scale = weights[f"{bn}.weight"] * torch.rsqrt(weights[f"{bn}.running_var"] + 1e-5)
        weight = constants[f"{conv}.weight.folded"]
        torch.testing.assert_close(weight, weights[f"{conv}.weight"] * scale[:, None, None, None])
        bias = weights[f"{bn}.bias"] - weights[f"{bn}.running_mean"] * scale
        torch.testing.assert_close(constants[f"{conv}.bias.folded"], bias)
        assert weight.is_contiguous(memory_format=torch.channels_last)


def _read(procedure: Procedure, program: Program) -> list[Weight]:
    names = {
        arg.ref.name
        for step in procedure.steps
        if isinstance(step, Launch)
        for arg in step.args
        if isinstance(arg, PointerArg) and arg.ref.space == "weight"
    }
    return [weight for weight in program.weights if weight.name in names]


def _error(got: torch.Tensor, want: torch.Tensor) -> float:
    got, want = got.double(), want.detach().double()
    return float(torch.linalg.vector_norm(got - want) / torch.linalg.vector_norm(want))
