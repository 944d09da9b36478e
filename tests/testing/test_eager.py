"""PyTorch runs an archive on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aoti.testing.eager import Eager, EagerError, Interpreter


def save(module: nn.Module, args: tuple[Any, ...], path: Path, **options: Any) -> Eager:
    torch.export.save(torch.export.export(module, args, **options), path)
    return Eager(path)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.register_buffer("scale", torch.tensor(3.0))

    def forward(self, x: torch.Tensor, flag: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.linear(x) * self.scale.to(torch.float16) + torch.ones(4, dtype=torch.float16)
        return torch.softmax(y, -1), y.argmax(-1)


def test_as_exported_and_in_float64(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net().half()
    x = torch.randn(3, 8).half()
    eager = save(net, (x,), tmp_path / "net.pt2")
    half = eager.run({"x": x})
    expected = net(x)
    assert torch.equal(half.outputs[0], expected[0])
    assert torch.equal(half.outputs[1], expected[1])
    exact = eager.run({"x": x}, torch.float64)
    wide = Net().double()
    wide.load_state_dict({key: value.double() for key, value in net.state_dict().items()})
    y = wide.linear(x.double()) * wide.scale + 1
    torch.testing.assert_close(exact.outputs[0], torch.softmax(y, -1))
    assert exact.outputs[0].dtype == torch.float64
    assert half.emulated == ()


class InPlace(nn.Module):
    def forward(self, cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        cache[1:2].copy_(x)
        return cache.sum(0)


def test_inputs_written_in_place(tmp_path: Path) -> None:
    cache, x = torch.zeros(3, 2), torch.ones(1, 2)
    eager = save(InPlace(), (cache, x), tmp_path / "net.pt2")
    for precision in (None, torch.float64):
        found = eager.run({"cache": cache, "x": x}, precision)
        assert found.mutated["cache"].tolist() == [[0, 0], [1, 1], [0, 0]]
        assert found.mutated["x"].tolist() == [[1, 1]]
        assert found.outputs[0].tolist() == [1, 1]
    assert cache.count_nonzero() == 0


class WithoutGradient(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = x.float() * torch.arange(4, dtype=torch.float32)
        return y.to(x.dtype) + 1


class Converted(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = x.half()
        y.mul_(3)
        return x + 1, y


def test_a_conversion_that_float64_leaves_out_is_a_copy_all_the_same(tmp_path: Path) -> None:
    x = torch.ones(2)
    eager = save(Converted(), (x,), tmp_path / "net.pt2")
    for precision in (None, torch.float64):
        found = eager.run({"x": x}, precision)
        assert [output.tolist() for output in found.outputs] == [[2, 2], [3, 3]]


def test_a_block_without_gradients(tmp_path: Path) -> None:
    x = torch.rand(4).half().requires_grad_()
    eager = save(WithoutGradient(), (x,), tmp_path / "net.pt2")
    targets = [str(node.target) for node in eager.program.graph.nodes]
    assert "wrap_with_set_grad_enabled" in targets
    exact = eager.run({"x": x.detach()}, torch.float64).outputs[0]
    assert exact.dtype is torch.float64
    torch.testing.assert_close(exact, x.detach().double() * torch.arange(4) + 1)
    assert torch.equal(eager.run({"x": x.detach()}).outputs[0], WithoutGradient()(x).detach())


class Sized(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1) * x.shape[0]


def test_dynamic_shapes(tmp_path: Path) -> None:
    shapes = {"x": {0: torch.export.Dim("rows", max=64)}}
    eager = save(Sized(), (torch.ones(4, 3),), tmp_path / "net.pt2", dynamic_shapes=shapes)
    assert eager.run({"x": torch.ones(7, 3)}).outputs[0].tolist() == [7] * 21


def test_operations_that_the_cpu_lacks_are_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    module = torch.fx.symbolic_trace(lambda x: x + x)
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    y = graph.call_function(torch.ops.aten.add.Tensor, (x, x))
    y.meta["val"] = torch.empty(2, dtype=torch.float16)
    graph.output(y)
    module = torch.fx.GraphModule(torch.nn.Module(), graph)
    real = torch.fx.Interpreter.call_function

    def lacking(self: Any, target: Any, args: Any, kwargs: Any) -> Any:
        if args[0].dtype is torch.float16:
            raise RuntimeError("\"add\" not implemented for 'Half'")
        return real(self, target, args, kwargs)

    monkeypatch.setattr(torch.fx.Interpreter, "call_function", lacking)
    interpreter = Interpreter(module)
    result = interpreter.run(torch.tensor([1.0, 2.0], dtype=torch.float16))
    assert result.dtype is torch.float16
    assert result.tolist() == [2, 4]
    assert interpreter.emulated == {"aten.add.Tensor"}


def test_a_failure_names_the_node(tmp_path: Path) -> None:
    eager = save(Sized(), (torch.ones(4, 3),), tmp_path / "net.pt2")
    with pytest.raises(EagerError, match=r"mul \(aten\.mul\.Tensor\)|reshape"):
        eager.run({"x": "no tensor"})
