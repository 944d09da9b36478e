"""What a model takes and returns: nested, changed in place, aliased, empty, of every dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from tests.lowering.lowered_model import LoweredModel
from wrapgen.program import FixedInput, Launch, PointerArg, Program


class Nested(nn.Module):
    def forward(
        self, pair: tuple[torch.Tensor, torch.Tensor], *, options: dict[str, Any], scale: float
    ) -> dict[str, Any]:
        x, y = pair
        z = options["inner"][0]
        return {"a_b": x + y, "a": {"b": [z * scale, None]}, "class": x * options["flag"]}


def test_nested(tmp_path: Path) -> None:
    r = torch.randn
    kwargs = {"options": {"inner": [r(3)], "flag": True}, "scale": 2.5}
    model = LoweredModel(Nested(), ((r(3), r(3)),), tmp_path, kwargs=kwargs)
    inputs = [(spec.name, spec.path) for spec in model.program.inputs]
    assert inputs == [
        ("pair_0", "args[0][0]"),
        ("pair_1", "args[0][1]"),
        ("options_inner_0", 'kwargs["options"]["inner"][0]'),
    ]
    assert model.program.fixed == (
        FixedInput(path='kwargs["options"]["flag"]', value="True"),
        FixedInput(path='kwargs["scale"]', value="2.5"),
        FixedInput(path='outputs["a"]["b"][1]', value="None"),
    )
    outputs = {spec.name: spec.path for spec in model.program.outputs}
    assert outputs == {
        "a_b": 'outputs["a_b"]',
        "a_b_0": 'outputs["a"]["b"][0]',
        "class": 'outputs["class"]',
    }
    model.check((r(3), r(3)), options={"inner": [r(3)], "flag": True}, scale=2.5)


class Alike(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        return {"a_b": x + 1, "a": {"b": x + 2}, "a b": x + 3}


def test_results_that_would_be_called_alike(tmp_path: Path) -> None:
    model = LoweredModel(Alike(), (torch.randn(3),), tmp_path)
    assert [spec.name for spec in model.program.outputs] == ["a_b", "a_b_2", "a_b_3"]
    model.check(torch.randn(3))


def writers(program: Program, name: str) -> list[str]:
    """What writes an input: kernels and copies."""
    found = []
    for step in program.main.steps:
        if isinstance(step, Launch):
            found += [
                step.kernel.rpartition("_")[0]
                for arg in step.args
                if isinstance(arg, PointerArg)
                and (arg.ref.space, arg.ref.name) == ("input", name)
                and arg.access != "read"
            ]
        elif (step.dst.space, step.dst.name) == ("input", name):
            found.append(step.kind)
    return found


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x.mul_(2).add_(y)
        return x.relu() + y


def test_changed_in_place(tmp_path: Path) -> None:
    model = LoweredModel(InPlace(), (torch.randn(4, 5), torch.randn(4, 5)), tmp_path)
    assert [spec.mutated for spec in model.program.tensor_inputs] == [True, False]
    assert writers(model.program, "x") == ["pointwise"]  # by the kernel that computes it
    model.check(torch.randn(4, 5), torch.randn(4, 5))


class Returned(nn.Module):
    """Views of an input: of before (a copy), of after it is changed, and the input itself."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        before = x.clone()
        first = x[0]
        x.add_(1)
        return before, first, x, x.t(), x + 1


def test_aliases_of_what_is_changed(tmp_path: Path) -> None:
    model = LoweredModel(Returned(), (torch.randn(4, 5),), tmp_path)
    model.check(torch.randn(4, 5))


class Swapped(nn.Module):
    """Each input gets what the other was."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        old = x.clone()
        x.copy_(y)
        y.copy_(old)
        return x - y


def test_inputs_that_are_exchanged(tmp_path: Path) -> None:
    model = LoweredModel(Swapped(), (torch.randn(4, 5), torch.randn(4, 5)), tmp_path)
    model.check(torch.randn(4, 5), torch.randn(4, 5))


class Cache(nn.Module):
    """A step of decoding: keys go to their place in a cache, which is then read."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(
        self, cache: torch.Tensor, new: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        if self.how == "index_copy":
            cache.index_copy_(1, position, new)
        elif self.how == "index_put":
            torch.ops.aten.index_put_(cache, [None, position], new)
        else:
            cache[:, 3:5].copy_(new)
        return cache.sum(-1)


@pytest.mark.parametrize("how", ["index_copy", "index_put", "slice"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_cache_is_not_copied(how: str, dynamic: bool, tmp_path: Path) -> None:
    def args(batch: int = 2) -> tuple[torch.Tensor, ...]:
        return torch.randn(batch, 16, 8), torch.randn(batch, 2, 8), torch.tensor([3, 4])

    batch = Dim("batch", min=1, max=4)
    shapes = {"cache": {0: batch}, "new": {0: batch}, "position": None}
    model = LoweredModel(Cache(how), args(), tmp_path, dynamic_shapes=shapes if dynamic else None)
    assert model.copies() == []
    # No temporary is as large as the cache, and no kernel writes more of it than is new.
    assert all(buffer.shape[1:] != (16, 8) for buffer in model.program.main.buffers)
    assert len(writers(model.program, "cache")) == 1
    for size in (1, 4, 2) if dynamic else (2,):
        model.check(*args(size))


class Aliases(nn.Module):
    """Results that are inputs, weights, constants, one another, or views."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.register_buffer("table", torch.arange(6))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2
        return x, x, x.t(), x[1:], y, y, y[:, 1], y.t(), self.weight, self.table, self.table[2:4]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_results_that_are_something_else(dynamic: bool, tmp_path: Path) -> None:
    shapes = {"x": {0: Dim("rows", min=2, max=9)}} if dynamic else None
    model = LoweredModel(Aliases(), (torch.randn(3, 4),), tmp_path, dynamic_shapes=shapes)
    for rows in (2, 9, 3) if dynamic else (3,):
        model.check(torch.randn(rows, 4))


class Empty(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x + 1, torch.cat([x, y], 0), y[:0] * 2, x.sum(0), x @ y.t(), y @ y[:0].t(), y + 1


def test_empty_tensors(tmp_path: Path) -> None:
    args = (torch.randn(0, 4), torch.randn(3, 4))
    LoweredModel(Empty(), args, tmp_path).check(*args)


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x.sum(-1)


@pytest.mark.parametrize("layout", ["transposed", "expanded", "gaps", "channels_last"])
def test_inputs_that_are_not_contiguous(layout: str, tmp_path: Path) -> None:
    def make() -> torch.Tensor:
        return {
            "transposed": lambda: torch.randn(4, 6).t(),
            "expanded": lambda: torch.randn(6, 1).expand(6, 4),
            "gaps": lambda: torch.randn(6, 9)[:, ::2],
            "channels_last": lambda: torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        }[layout]()

    model = LoweredModel(Scaled(), (make(),), tmp_path)
    assert model.program.tensor_inputs[0].strides == make().stride()
    model.check(make())


class Elementwise(nn.Module):
    """For every dtype: a copy, something elementwise, a cast and a reduction."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = [x.clone().t(), x.to(torch.float32), torch.where(x.float() > 1, x, x.flip(0))]
        if x.dtype == torch.bool:
            results += [~x, x.any(1), x.sum()]
        elif x.dtype in (torch.uint16, torch.uint32, torch.uint64):
            # PyTorch converts them; it does not compute with them.
            results += [x.to(torch.int64).sum(0), x.to(torch.int32) * 3]
        elif x.itemsize > 1 or not x.is_floating_point():
            results += [x + x, x * 3, x.amax(1), x.sum(0), x > 0]
        else:
            results += [(x.float() * 2).to(x.dtype), x.float().sum(0)]
        return tuple(results)


DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
    torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip


def values(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    if dtype.is_floating_point:
        return (torch.randint(-32, 33, shape) / 8).to(dtype)
    return torch.randint(0, 2 if dtype == torch.bool else 100, shape).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    model = LoweredModel(Elementwise(), (values(dtype, 5, 7),), tmp_path)
    model.check(values(dtype, 5, 7), tolerance=2e-3 if dtype.itemsize == 2 else 2e-6)


class Product(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.int64, torch.int8], ids=str)
def test_products_of_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    model = LoweredModel(Product(), (values(dtype, 5, 7), values(dtype, 7, 3)), tmp_path)
    model.check(values(dtype, 5, 7), values(dtype, 7, 3), tolerance=1e-12)


def test_buffers_know_their_node(tmp_path: Path) -> None:
    model = LoweredModel(Aliases(), (torch.randn(3, 4),), tmp_path)
    assert all(buffer.node for buffer in model.program.main.buffers)


class Turned(nn.Module):
    """Each input gets a view of what the other was."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        old = x.t().contiguous()
        x.copy_(y.t())
        y.copy_(old)
        return x + y.t()


def test_inputs_that_are_exchanged_as_views(tmp_path: Path) -> None:
    model = LoweredModel(Turned(), (torch.randn(4, 5), torch.randn(5, 4)), tmp_path)
    model.check(torch.randn(4, 5), torch.randn(5, 4))
