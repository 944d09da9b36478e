"""Options of lowering: what they change, that the result computes the same, and where they do not
hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from simulator import program as simulator
from tests.lowering import support
from wrapgen.lowering import lower
from wrapgen.options import OptionError
from wrapgen.program import Fill, Launch, Program
from wrapgen.target import parse


class Reductions(nn.Module):
    """A row of many elements: what is known of all of it, and what follows from that."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5), torch.amax(x, dim=1)


class Chain(nn.Module):
    """Kernels of which each reads what the one before it wrote, or one further back."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a = torch.softmax(x, dim=1)
        b = torch.softmax((a + y).t().contiguous(), dim=1)
        return torch.cumsum(b, dim=0) + a.t()


ROWS = (torch.randn(1, 33000, generator=torch.Generator().manual_seed(0)),)
SQUARES = tuple(torch.randn(96, 96, generator=torch.Generator().manual_seed(i)) for i in (0, 1))


def lowered(
    module: nn.Module, args: tuple[Any, ...], place: Path, target: str, *options: str
) -> Program:
    """Lowers a model, and compares what its program computes with eager PyTorch."""
    weights = support.write_graph(support.export(module, args), place / "graph.json")
    program = lower(place / "graph.json", parse(target), place / "lowered", options=options)
    names = [spec.name for spec in program.inputs]
    given = dict(zip(names, args, strict=True))
    found = simulator.run(place / "lowered", weights, given)["outputs"]
    expected = module(*args)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for spec, want in zip(program.outputs, expected, strict=True):
        torch.testing.assert_close(found[spec.name], want, rtol=1e-4, atol=1e-5)
    return program


def launches(program: Program) -> list[Launch]:
    return [step for step in program.main.steps if isinstance(step, Launch)]


def test_cooperative_reductions(tmp_path: Path) -> None:
    program = lowered(Reductions(), ROWS, tmp_path, "sm_90", "cooperative_reductions")
    assert program.options == ("cooperative_reductions",)
    [kernel] = [kernel for kernel in program.kernels if kernel.cooperative]
    [step] = [step for step in launches(program) if step.kernel == kernel.name]
    # One program to a multiprocessor, as many as are a power of two.
    assert step.grid[0] * step.grid[1] <= 132 and step.grid[0] > 1  # type: ignore[operator]
    # Its semaphores begin as zeros.
    fills = [i for i, step in enumerate(program.main.steps) if isinstance(step, Fill)]
    assert fills and fills[0] < program.main.steps.index(step)
    plain = lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "plain")
    assert len(launches(program)) < len(launches(plain))
    assert not any(kernel.cooperative for kernel in plain.kernels)


def test_dependent_launch(tmp_path: Path) -> None:
    program = lowered(Chain(), SQUARES, tmp_path, "sm_90", "dependent_launch")
    assert program.options == ("dependent_launch",)
    dependent = [kernel for kernel in program.kernels if kernel.launch_pdl]
    assert dependent
    for path in sorted((tmp_path / "lowered").glob("shards/*/*.ttir")):
        waits = "griddepcontrol.wait" in path.read_text()
        assert waits == program.kernel(path.stem).launch_pdl


@pytest.mark.parametrize("target", ["sm_80", "gfx942"])
def test_an_option_that_does_not_hold_changes_nothing(target: str, tmp_path: Path) -> None:
    support.write_graph(support.export(Chain(), SQUARES), tmp_path / "graph.json")
    plain, same = (
        lower(tmp_path / "graph.json", parse(target), tmp_path / str(i), options=options)
        for i, options in enumerate([(), ("dependent_launch",)])
    )
    assert same == plain and plain.options == ()


def test_an_unknown_option(tmp_path: Path) -> None:
    support.write_graph(support.export(Chain(), SQUARES), tmp_path / "graph.json")
    with pytest.raises(OptionError, match="unknown option 'fast': expected one of cooperative_"):
        lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "lowered", options=["fast"])
