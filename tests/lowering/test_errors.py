"""What cannot be built is refused with everything that is wrong, and where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.lowering import support
from wrapgen.lowering import LoweringError, lower
from wrapgen.target import parse


def message(
    module: nn.Module, args: tuple[Any, ...], tmp_path: Path, dynamic_shapes: Any = None
) -> str:
    graph = tmp_path / "graph.json"
    program = support.export(module.eval(), args, dynamic_shapes=dynamic_shapes)
    support.write_graph(program, graph)
    with pytest.raises(LoweringError) as caught:
        lower(graph, parse("sm_90"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["graph.json"]
    return str(caught.value)


class Libraries(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.linalg.qr(x)[0]
        z = torch.linalg.inv(x)
        return torch.linalg.inv(z).sum() + y.sum()


def test_operations_without_a_kernel_are_all_listed(tmp_path: Path) -> None:
    text = message(Libraries(), (torch.randn(8, 8),), tmp_path)
    assert text.startswith("cannot lower the model for sm_90: ")
    assert "aten.linalg_qr.default" in text
    assert "aten.linalg_inv.default (2 times)" in text
    place = "test_errors.py, in forward [linalg_inv"
    assert f"{place}]: z = torch.linalg.inv(x)\n" in text
    assert f"{place}_1]: return torch.linalg.inv(z).sum() + y.sum()\n" in text
    assert "What to do: replace it by operators that docs/operators.md lists" in text


class Plain(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 + y


def test_sizes_without_a_maximum_name_input_and_dimension(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch")
    text = message(
        Plain(),
        (torch.randn(4, 3), torch.randn(4, 3)),
        tmp_path,
        dynamic_shapes={"x": {0: batch}, "y": {0: batch}},
    )
    assert "input x: shape[0]" in text and "has no maximum" in text
    assert 'torch.export.Dim("x_0", max=...)' in text


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return x * self.count


def test_changed_buffers_are_refused(tmp_path: Path) -> None:
    text = message(Counting(), (torch.randn(4),), tmp_path)
    assert "the model changes count when it is called (buffer mutation)" in text
    assert "take it as an argument instead" in text


def test_settings_in_the_environment_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_MAX_AUTOTUNE", "1")
    text = message(Plain(), (torch.randn(4), torch.randn(4)), tmp_path)
    assert "unset TORCHINDUCTOR_MAX_AUTOTUNE" in text


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    graph, out = tmp_path / "graph.json", tmp_path / "out"
    support.write_graph(support.export(Plain(), (torch.randn(4), torch.randn(4))), graph)
    out.mkdir()
    (out / "precious").write_text("")
    with pytest.raises(LoweringError, match="holds something else"):
        lower(graph, parse("sm_90"), out)
    assert (out / "precious").exists()


def test_not_a_graph(tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    graph.write_text("{")
    with pytest.raises(LoweringError, match="not a graph written by `wrapgen split`"):
        lower(graph, parse("sm_90"), tmp_path / "out")
    graph.write_text('{"schema_version": 1, "exported_program": {}, "tensors": {}}')
    with pytest.raises(LoweringError, match="schema_version is 1"):
        lower(graph, parse("sm_90"), tmp_path / "out")


class Truth(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.bool)


def test_kernels_that_triton_refuses_are_named(tmp_path: Path) -> None:
    text = message(Truth(), (torch.ones(4).to(torch.float8_e5m2),), tmp_path)
    assert "Triton refuses the kernel of" in text and "return x.to(torch.bool)" in text
