"""Checks cases of operators as programs against PyTorch in float64.

Several cases are lowered as one model: that is cheaper, and the message still names the case.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from simulator import program as simulator
from tests.lowering import support
from wrapgen.lowering import lower
from wrapgen.program import Launch, Program
from wrapgen.target import parse

Case = tuple[nn.Module | Callable[..., Any], tuple[torch.Tensor, ...]]

# A result of zero error in PyTorch is allowed this many units in the last place.
_SLACK = 4


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


class _All(nn.Module):
    """Each module applied to its own inputs."""

    def __init__(self, modules: list[nn.Module], counts: list[int]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.counts = counts

    def forward(self, *args: torch.Tensor) -> list[Any]:
        results, at = [], 0
        for part, count in zip(self.parts, self.counts, strict=True):
            results.append(part(*args[at : at + count]))
            at += count
        return results


def check(
    cases: Mapping[str, Case], dtype: torch.dtype, folder: Path, target: str = "sm_90"
) -> Program:
    """Lowers the cases, runs the program, and compares each result with PyTorch's in float64.

    The relative L2 error may be twice that of PyTorch in ``dtype``, and some units in the last
    place; results that are no floating-point numbers are equal. Modules and floating-point inputs
    are converted to ``dtype``. Returns the program.
    """
    modules = [
        part if isinstance(part, nn.Module) else Function(part) for part, _ in cases.values()
    ]
    model = _All(modules, [len(args) for _, args in cases.values()]).to(dtype).eval()
    inputs = [
        value.to(dtype) if value.is_floating_point() else value
        for _, args in cases.values()
        for value in args
    ]
    graph, lowered = folder / "graph.json", folder / "lowered"
    weights = support.write_graph(support.export(model, tuple(inputs)), graph)
    program = lower(graph, parse(target), lowered)
    named = {spec.name: value for spec, value in zip(program.inputs, inputs, strict=True)}
    outputs = simulator.run(lowered, weights, named)["outputs"]
    with torch.no_grad():
        eager = model(*inputs)
        exact = copy.deepcopy(model).double()(
            *(value.double() if value.is_floating_point() else value for value in inputs)
        )
    faults = []
    results = iter(outputs[spec.name] for spec in program.outputs)
    for name, ours, true in zip(cases, eager, exact, strict=True):
        for near, right in zip(pytree.tree_leaves(ours), pytree.tree_leaves(true), strict=True):
            fault = _fault(next(results), near, right)
            if fault:
                faults.append(f"{name}: {fault}")
    assert not faults, "\n".join(faults)
    return program


def _fault(got: torch.Tensor, eager: torch.Tensor, exact: torch.Tensor) -> str:
    if got.shape != eager.shape or got.dtype != eager.dtype or got.stride() != eager.stride():
        return (
            f"{got.dtype}{list(got.shape)} with strides {got.stride()} instead of"
            f" {eager.dtype}{list(eager.shape)} with strides {eager.stride()}"
        )
    if not got.is_floating_point():
        wrong = int((got != eager).sum())
        return f"{wrong} of {got.numel()} elements differ" if wrong else ""
    bound = 2 * error(eager, exact) + _SLACK * torch.finfo(got.dtype).eps
    found = error(got, exact)
    return "" if found <= bound else f"error {found:.2e}, more than {bound:.2e}"


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative L2 error."""
    difference = torch.linalg.vector_norm(got.double() - exact.double())
    return float(difference / torch.linalg.vector_norm(exact.double()))


def launches(program: Program) -> list[str]:
    """What ``main`` launches: templates by name, generated kernels by kind."""
    kernels = {kernel.name: kernel for kernel in program.kernels}
    return [
        kernels[step.kernel].template or step.kernel.rsplit("_", 1)[0]
        for step in program.main.steps
        if isinstance(step, Launch)
    ]
