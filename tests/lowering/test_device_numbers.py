"""Numbers read by ``.item()`` stay on the device, and compute what Python's numbers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from simulator import program as simulator
from tests.features import device_numbers
from tests.lowering import support
from wrapgen import intake
from wrapgen.export import export
from wrapgen.lowering import LoweringError, lower
from wrapgen.program import Launch, PointerArg
from wrapgen.target import parse

NUMBERS = {
    "of the export": (0.75, 1.25, 0.5, 3, 2, True),
    "others": (-1.5, 0.1, 0.1, -4, 3, False),
    "large": (1e-3, 2.0, 1000.0, 123456789012, 7000, True),
}


@pytest.fixture(scope="module")
def feature(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("feature")
    model, graph, weights = (directory / name for name in ("m.pt2", "g.json", "w.safetensors"))
    export(Path(device_numbers.__file__), "export", {}, None, model)
    intake.split(model, graph, weights)
    program = lower(graph, parse("sm_90"), directory / "lowered")
    return directory / "lowered", program, safetensors.torch.load_file(weights)


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_as_with_pythons_numbers(feature: Any, name: str) -> None:
    lowered, program, weights = feature
    f32, f64, f16, i64, i32, on = NUMBERS[name]
    torch.manual_seed(1)
    x = torch.randn(100)
    given = {
        "single": torch.tensor(f32),
        "double": torch.tensor([f64], dtype=torch.float64),
        "half": torch.tensor(f16, dtype=torch.float16),
        "long": torch.tensor(i64),
        "narrow": torch.tensor(i32, dtype=torch.int32),
        "flag": torch.tensor(on),
    }

    outputs = simulator.run(lowered, weights, {"x": x, **given})["outputs"]

    numbers = {key: tensor.item() for key, tensor in given.items()}
    s, d, h = numbers["single"], numbers["double"], numbers["half"]
    expected = device_numbers.operators(x, s, d, h, i64, i32)
    changed = x.clone()
    n = max(0, min(100, 2 * i64 + 1))
    if on:
        changed[:n] = x[:n] * (s * 0.5) + d + h + i32
    changed[n:] = 0
    got = [outputs[spec.name] for spec in program.outputs]
    for ours, theirs in zip(got, [changed, *expected], strict=True):
        # Fused operators round to half once, PyTorch's each.
        limit = 1e-3 * float(theirs.abs().max()) if theirs.dtype == torch.float16 else 1e-5
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=limit)


def test_kernels_read_numbers_from_memory(feature: Any) -> None:
    """A tensor whose type is the parameter's is read where it is; nothing else runs for it."""
    _, program, _ = feature
    (call,) = (
        step
        for step in program.main.steps
        if isinstance(step, Launch) and step.kernel.startswith("axpy_")
    )
    pointers = [arg for arg in call.args if isinstance(arg, PointerArg)]
    assert len(pointers) == len(call.args) - 1  # the size is known on the host
    spaces = [arg.ref.name for arg in pointers if arg.ref.space == "input"]
    assert spaces == ["x", "double", "half", "narrow", "flag"]
    steps = [step for step in program.main.steps if isinstance(step, Launch)]
    number = next(
        step
        for step in steps
        if isinstance(step.args[0], PointerArg) and step.args[0].ref.name == "long"
    )
    assert number.sources[0].code.startswith("x, called, x.shape[0], i64 * 2 + 1, ")


class Changed(nn.Module):
    """Reads a number, then changes the tensor it was read from."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
        before = n.item()
        n.add_(1)
        return x * before, x * n.item()


def test_a_number_is_what_was_there_when_it_was_read(tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    x = torch.randn(4)
    support.write_graph(support.export(Changed(), (x, torch.tensor(3.0))), graph)
    program = lower(graph, parse("sm_90"), tmp_path / "lowered")
    result = simulator.run(tmp_path / "lowered", {}, {"x": x, "n": torch.tensor(5.0)})
    first, second = (result["outputs"][spec.name] for spec in program.outputs)
    torch.testing.assert_close(first, 5 * x)
    torch.testing.assert_close(second, 6 * x)
    assert result["inputs"]["n"].item() == 6


class Selected(nn.Module):
    def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
        return x[n.item()] * 2, x.select(1, n.item() + 1)


@pytest.mark.parametrize("place", [0, 1, -1, -2])
def test_an_index(place: int, tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    x = torch.randn(3, 4)
    support.write_graph(support.export(Selected(), (x, torch.tensor(1))), graph)
    program = lower(graph, parse("sm_90"), tmp_path / "lowered")
    given = {"x": x, "n": torch.tensor(place)}
    outputs = simulator.run(tmp_path / "lowered", {}, given)["outputs"]
    first, second = (outputs[spec.name] for spec in program.outputs)
    torch.testing.assert_close(first, 2 * x[place])
    torch.testing.assert_close(second, x[:, place + 1])


class View(nn.Module):
    def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
        y = x + 1
        y[n.item()] = 0
        return y


class Branch(nn.Module):
    def forward(self, p: torch.Tensor, x: torch.Tensor, n: torch.Tensor) -> Any:
        return torch.cond(p, lambda x, n: x * n.item(), lambda x, n: x + 1, (x, n))


@pytest.mark.parametrize("taken", [True, False])
def test_in_a_branch(taken: bool, tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    x = torch.randn(4)
    example = (torch.tensor(True), x, torch.tensor(3.0))
    support.write_graph(support.export(Branch(), example), graph)
    lower(graph, parse("sm_90"), tmp_path / "lowered")
    given = {"p": torch.tensor(taken), "x": x, "n": torch.tensor(5.0)}
    (out,) = simulator.run(tmp_path / "lowered", {}, given)["outputs"].values()
    torch.testing.assert_close(out, 5 * x if taken else x + 1)


class Size(nn.Module):
    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        k = n.item()
        torch._check(k >= 0)
        torch._check(k < 10)
        return torch.zeros(k)


class Check(nn.Module):
    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        torch._check(n.item() > 2)
        return x * n.item()


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.leaky_relu(x, n.item())


class Result(nn.Module):
    def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
        return x, n.item()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Size(), "sizes and numbers that depend on a tensor's values are known on the GPU alone"),
        (Check(), "it checks a number that is on the GPU, which would have to be waited for"),
        (Unknown(), "aten.leaky_relu.default: it takes a number that is on the GPU"),
        (View(), "it is a view at a place that is known on the GPU alone"),
        (Result(), "the model returns a number that is on the GPU"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_would_have_to_be_waited_for_is_refused(
    module: nn.Module, reason: str, tmp_path: Path
) -> None:
    graph = tmp_path / "graph.json"
    number = torch.tensor(0.5) if isinstance(module, Unknown) else torch.tensor(3)
    support.write_graph(support.export(module, (torch.randn(4), number)), graph)
    with pytest.raises(LoweringError, match=reason):
        lower(graph, parse("sm_90"), tmp_path / "lowered")
