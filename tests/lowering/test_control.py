"""Branches and loops: lowered, run step by step, and compared with PyTorch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as map_rows

from simulator import program as simulated
from tests.lowering.support import export, write_graph
from wrapgen import program as p
from wrapgen import set_condition
from wrapgen.lowering import LoweringError, control, lower
from wrapgen.target import parse

TARGET = parse("sm_90")


class Lowered:
    """A model with its program, run on host memory."""

    def __init__(self, directory: Path, model: nn.Module, *args: Any, dynamic: Any = None) -> None:
        self.model = model.eval()
        self._weights = write_graph(
            export(self.model, args, dynamic_shapes=dynamic), directory / "graph.json"
        )
        self._directory = directory / "out"
        self.program = lower(directory / "graph.json", TARGET, self._directory)

    def check(self, *args: torch.Tensor) -> None:
        names = [spec.name for spec in self.program.inputs]
        given = dict(zip(names, args, strict=True))
        got = simulated.run(self._directory, self._weights, given)["outputs"]
        with torch.no_grad():
            expected = self.model(*args)
        results = expected if isinstance(expected, (tuple, list)) else (expected,)
        for value, result in zip(got.values(), results, strict=True):
            torch.testing.assert_close(value, result, atol=1e-4, rtol=1e-4, check_stride=False)

    @property
    def kinds(self) -> Counter[str]:
        return Counter(step.kind for step in p.walk(self.program.main.steps))


def counter() -> torch.Tensor:
    return torch.zeros((), dtype=torch.int64)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.yes = nn.Linear(8, 8)
        self.no = nn.Conv1d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        def yes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.softmax(self.yes(x), -1), x.amax()

        def no(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.no(x), x.amin()

        y, z = torch.cond(x.sum() > 0, yes, no, (x,))
        return y * 2, z


def test_branch(tmp_path: Path) -> None:
    """Weights in branches, several results, a template in one of them; a copy of the input for what
    is inside, and none of the weights."""
    lowered = Lowered(tmp_path, Branch(), torch.randn(4, 3, 8))
    for sign in (1, -1):
        lowered.check(sign * torch.rand(4, 3, 8))
    assert lowered.kinds["if"] == 1
    copied = [step.src.name for step in p.walk(lowered.program.main.steps) if step.kind == "copy"]
    assert copied.count("x") == 1
    (kernel,) = (k for k in lowered.program.kernels if k.name == set_condition.NAME)
    stem = tmp_path / "out" / "shards" / f"{kernel.shard:02d}" / kernel.name
    assert stem.with_suffix(".ptx").read_text() == set_condition.PTX
    assert stem.with_suffix(".json").exists()


class Pieces(nn.Module):
    """Values that cross branches: views, results of branches as operands and predicates of others,
    what is computed before a branch and used behind the next."""

    def forward(self, x: torch.Tensor, flag: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before = torch.exp(x)
        column = before[:, 1:3]
        y = torch.cond(flag, lambda c: c * 2, lambda c: c - 1, (column,))
        again, large = torch.cond(
            y.sum() > 3,
            lambda y: (y.t() + 1, y.amax() > 2),
            lambda y: (y.t() * 3, y.amin() > 2),
            (y,),
        )
        z = torch.cond(large, lambda a, b: a + b.sum(), lambda a, b: a - b.sum(), (again, before))
        return z, before + column.sum(), again, x


def test_pieces(tmp_path: Path) -> None:
    lowered = Lowered(tmp_path, Pieces(), torch.randn(5, 6), torch.tensor(True))
    for flag in (True, False):
        for scale in (0.1, 1, 3):
            lowered.check(torch.randn(5, 6) * scale, torch.tensor(flag))
    assert lowered.kinds["if"] == 3


class Loop(nn.Module):
    """Carried values that trade places, one that stays, a nested branch, an input as the limit."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, ...]:
        def condition(i: Any, a: Any, b: Any, same: Any) -> Any:
            return (i < limit) & (a.abs().amax() < 1e6)

        def body(i: Any, a: Any, b: Any, same: Any) -> Any:
            c = torch.tanh(self.step(a)) + same
            c = torch.cond(c.sum() > 0, lambda c: c * 2, lambda c: c - 1, (c,))
            return i + 1, b.clone(), c + a, same.clone()

        i, a, b, same = torch.while_loop(condition, body, (counter(), x, x * 2, x.mean()))
        return i, a.sum(-1), b, same


def test_loop(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=100)
    args = (torch.randn(4, 8), torch.tensor(3))
    lowered = Lowered(tmp_path, Loop(), *args, dynamic=({0: batch}, None))
    for limit in (0, 1, 2, 7):
        for n in (1, 4):
            lowered.check(torch.randn(n, 8), torch.tensor(limit))
    assert lowered.kinds["while"] == 1
    (loop,) = (step for step in lowered.program.main.steps if isinstance(step, p.While))
    # Carried values are updated where they are.
    assert not any(step.kind == "copy" for step in p.walk(loop.body))


class Map(nn.Module):
    def forward(self, x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        def row(r: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.relu(r) @ w, torch.cond(r.sum() > 0, lambda r: r * 2, torch.neg, (r,))

        return tuple(map_rows(row, x, w))


@pytest.mark.parametrize("rows", [control.FEW_ROWS, control.FEW_ROWS + 1, None])
def test_map(rows: int | None, tmp_path: Path) -> None:
    """Few rows are computed one by one, many in a loop; as are as many as there are."""
    dynamic = None
    if rows is None:
        dynamic = ({0: torch.export.Dim("rows", min=1, max=50)}, None)
    args = (torch.randn(rows or 11, 2, 4), torch.randn(4, 4))
    lowered = Lowered(tmp_path, Map(), *args, dynamic=dynamic)
    lowered.check(*args)
    if rows is None:
        lowered.check(torch.randn(2, 2, 4), torch.randn(4, 4))
    assert lowered.kinds["while"] == (0 if rows == control.FEW_ROWS else 1)
    assert lowered.kinds["if"] == (control.FEW_ROWS if rows == control.FEW_ROWS else 1)


class Size(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.cond(x.shape[0] > 4, torch.sin, torch.cos, (x,))


class SizeAsTensor(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = torch.full((), x.shape[0]) > 4
        y: torch.Tensor = torch.cond(large, torch.sin, torch.cos, (x,))
        return y


def test_a_size_decides(tmp_path: Path) -> None:
    """As the advice has it."""
    shapes = ({0: torch.export.Dim("batch", min=1, max=9)},)
    lowered = Lowered(tmp_path, SizeAsTensor(), torch.randn(4, 4), dynamic=shapes)
    for size in (1, 4, 5, 9):
        lowered.check(torch.randn(size, 4))


class Scan(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        def step(carry: torch.Tensor, row: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return carry + row, carry * row

        return torch._higher_order_ops.scan(step, torch.zeros(4), x)


class Inside(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, torch.linalg.det, torch.sum, (x,))


class Random(nn.Module):
    """A draw in a loop from a seed would be the same in each round."""

    def forward(self, seed: torch.Tensor) -> Any:
        def body(i: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return i + 1, y + torch.rand(4) + seed.sum()

        return torch.while_loop(lambda i, y: i < 5, body, (counter(), torch.zeros(4)))[1]


@pytest.mark.parametrize(
    ("model", "dynamic", "message"),
    [
        (Random(), False, "draw them outside of it"),
        (Size(), True, "such as `torch.full((), x.shape[0]) > 4`"),
        (Scan(), False, "control flow other than cond, while_loop and map"),
        (Inside(), False, "aten._linalg_det"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_refused(model: nn.Module, dynamic: bool, message: str, tmp_path: Path) -> None:
    shapes = ({0: torch.export.Dim("batch", min=1, max=9)},) if dynamic else None
    with pytest.raises(LoweringError) as caught:
        Lowered(tmp_path, model, torch.randn(4, 4), dynamic=shapes)
    assert message in str(caught.value)


def test_amds_gpus_are_refused(tmp_path: Path) -> None:
    write_graph(export(Inside(), (torch.randn(4, 4),)), tmp_path / "graph.json")
    with pytest.raises(LoweringError, match="which AMD's GPUs do not have"):
        lower(tmp_path / "graph.json", parse("gfx942"), tmp_path / "out")
