"""Kernels of tests/features/launches.py: how each is launched, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from simulator import program as simulator
from tests.features import launches
from wrapgen import intake
from wrapgen.export import export
from wrapgen.lowering import LoweringError, lower
from wrapgen.target import parse

FEATURE = Path(launches.__file__)
OPTIONS = ("cooperative_reductions", "dependent_launch")


def graph_of(source: Path, directory: Path) -> Path:
    model, graph = directory / "m.pt2", directory / "graph.json"
    export(source, "export", {}, None, model)
    intake.split(model, graph, directory / "w.safetensors")
    return graph


def test_each_kernel_is_launched_in_its_way(tmp_path: Path) -> None:
    graph = graph_of(FEATURE, tmp_path)
    program = lower(graph, parse("sm_90"), tmp_path / "lowered", options=OPTIONS)
    ways: dict[str, set[tuple[int, bool, bool]]] = {}
    for kernel in program.kernels:
        way = (kernel.num_ctas, kernel.cooperative, kernel.launch_pdl)
        ways.setdefault(kernel.name.rpartition("_")[0], set()).add(way)
    assert ways["pairs"] == {(2, False, False)}
    assert ways["tiles"] == {(1, False, False)}
    assert ways["step"] == ways["pointwise"] == {(1, False, True)}
    assert ways["centred"] == {(1, True, False)}
    assert ways["reduction"] == {(1, True, False), (1, False, True)}
    x, long = torch.randn(80, 64), torch.randn(1, 33000)
    given = dict(zip([spec.name for spec in program.inputs], (x, long), strict=True))
    outputs = list(simulator.run(tmp_path / "lowered", {}, given)["outputs"].values())
    for ours, theirs in zip(outputs[:8:2], outputs[1:8:2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_clusters_where_there_are_none(tmp_path: Path) -> None:
    graph = graph_of(FEATURE, tmp_path)
    with pytest.raises(LoweringError, match=r"BLOCK=512: Triton makes it for sm_\d+.* alone"):
        lower(graph, parse("sm_80"), tmp_path / "lowered")


def test_a_kernel_that_lets_others_start_before_it_has_waited(tmp_path: Path) -> None:
    """Kernels of PyTorch's operators rely on the one ahead having waited for what it is behind."""
    source = tmp_path / "eager.py"
    lines = FEATURE.read_text().splitlines(keepends=True)
    [start] = [i for i, line in enumerate(lines) if "gdc_launch_dependents" in line]
    [wait] = [i for i, line in enumerate(lines) if "gdc_wait" in line]
    lines[start], lines[wait] = lines[wait], lines[start]
    source.write_text("".join(lines).replace("launches::", "early::"))
    graph = graph_of(source, tmp_path)
    lower(graph, parse("sm_90"), tmp_path / "lowered")
    with pytest.raises(LoweringError, match=r"step_\w+ lets the kernel behind it start before it"):
        lower(graph, parse("sm_90"), tmp_path / "lowered", options=OPTIONS)
