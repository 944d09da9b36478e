"""One program serves every size in range: 1, odd ones, the limits, and an earlier one again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from simulator import program as simulator
from tests.lowering import support
from tests.lowering.lowered_model import LoweredModel
from wrapgen import sizes
from wrapgen.lowering import LoweringError, lower
from wrapgen.program import Launch, ScalarArg, Symbol
from wrapgen.target import parse

BATCH = Dim("batch", min=1, max=6)
LENGTH = Dim("length", min=1, max=40)
SWEEP = ((1, 1), (3, 7), (6, 40), (1, 40), (6, 1), (2, 33), (3, 7))


class Block(nn.Module):
    """Layer norm, linear layers, softmax: a transformer's parts but for attention."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(24)
        self.up = nn.Linear(24, 40)
        self.down = nn.Linear(40, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.gelu(self.up(self.norm(x)))).softmax(-1) + x


class Expressions(nn.Module):
    """Sizes ``a * b``, ``a // 2``, ``a % 3``, ``min(a, 5)`` and ``max(a, b)``, and some that Python
    computes with floating-point numbers."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch, length = x.shape
        return (
            x.reshape(batch * length) * 2,
            x[:, : length // 2].sum(1),
            F.pad(x, (0, length % 3)) + 1,
            x[:, : torch.sym_min(length, 5)] * 3,
            torch.arange(torch.sym_max(batch, length)) + x.sum().long(),
            x[:, : math.trunc(length / 3)] + 2,
            F.pad(x, (0, math.trunc(length * 1.5) - length)) * 2,
            x[:, : torch.sym_ite(length > batch, batch, length >> 1)] - 1,
        )


class Attention(nn.Module):
    """Scores of batch x length x length, causal."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 2, 16).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-1, -2) / 4).masked_fill(
            torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf")
        ).softmax(-1) @ v
        return y.transpose(1, 2).reshape(batch, length, width)


class Pool(nn.Module):
    """Reductions over dynamic sizes, and a sum over all of them."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.mean(1), x.amax(0), x.sum(), x.cumsum(1), x.std(1, correction=0)


CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "block": (Block(), (24,)),
    "expressions": (Expressions(), ()),
    "attention": (Attention(), (32,)),
    "pool": (Pool(), (5,)),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_size(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, rest = CASES[name]
    model = LoweredModel(
        module,
        (torch.randn(3, 8, *rest),),
        tmp_path,
        dynamic_shapes={"x": {0: BATCH, 1: LENGTH}},
    )
    assert model.program.symbols == (
        Symbol(name="s0", minimum=1, maximum=6),
        Symbol(name="s1", minimum=1, maximum=40),
    )
    for batch, length in SWEEP:
        model.check(torch.randn(batch, length, *rest), tolerance=5e-6)


def test_the_example_does_not_matter(tmp_path: Path) -> None:
    texts = []
    for i, (batch, length) in enumerate(((3, 8), (5, 11))):
        place = tmp_path / str(i)
        place.mkdir()
        module = CASES["block"][0]
        shapes = {"x": {0: BATCH, 1: LENGTH}}
        LoweredModel(module, (torch.randn(batch, length, 24),), place, dynamic_shapes=shapes)
        texts.append((place / "lowered" / "program.json").read_text())
    assert texts[0] == texts[1]


class Encoder(nn.Module):
    """Attention with a mask of padding, and the first and last tokens of the result."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.qkv = nn.Linear(32, 96)
        self.pool = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch, length = x.shape
        q, k, v = self.qkv(self.embed(x)).view(batch, length, 3, 2, 16).permute(2, 0, 3, 1, 4)
        mask = seen.bool()[:, None, None, :].expand(batch, 1, length, length)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.transpose(1, 2).reshape(batch, length, 32)
        return y, self.pool(y[:, 0]).tanh(), self.pool(y[:, -1]), x[:, -1]


def test_masked_attention_of_every_size(tmp_path: Path) -> None:
    """Rows that do not follow one another in memory, ``y[:, 0]``, may be one row, or of one."""

    def given(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.ones(batch, length, dtype=torch.int64)
        seen[-1, length - length // 4 :] = 0
        return torch.randint(0, 20, (batch, length)), seen

    torch.manual_seed(0)
    both = {0: BATCH, 1: LENGTH}
    shapes = {"x": both, "seen": both}
    model = LoweredModel(Encoder(), given(3, 8), tmp_path, dynamic_shapes=shapes)
    assert [(symbol.minimum, symbol.maximum) for symbol in model.program.symbols] == [
        (1, 6),
        (1, 40),
    ]
    assert model.program.constraints == ()
    for batch, length in SWEEP:
        model.check(*given(batch, length))


class Decode(nn.Module):
    """Attention to caches that are written from a given position on."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.qkv = nn.Linear(16, 48)

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int
    ) -> tuple[torch.Tensor, ...]:
        length = x.shape[1]
        torch._check(start >= 0)
        torch._check(start <= 47)
        torch._check(start + length <= 48)
        q, k, v = self.qkv(self.embed(x)).chunk(3, -1)
        position = torch.arange(length) + start
        keys.index_copy_(1, position, k)
        values.index_copy_(1, position, v)
        mask = torch.arange(48)[None, :] <= position[:, None]
        scores = (q @ keys.transpose(1, 2)).masked_fill(~mask, float("-inf"))
        y = scores.softmax(-1) @ values
        return y, y[:, -1], x[:, -1]


def test_a_cache_of_every_size(tmp_path: Path) -> None:
    def given(batch: int, length: int, start: int) -> tuple[Any, ...]:
        cache = torch.randn(2, batch, 48, 16)
        return torch.randint(0, 20, (batch, length)), cache[0], cache[1], start

    torch.manual_seed(0)
    shapes = {
        "x": {0: BATCH, 1: LENGTH},
        "keys": {0: BATCH},
        "values": {0: BATCH},
        "start": Dim.DYNAMIC,
    }
    model = LoweredModel(Decode(), given(3, 8, 5), tmp_path, dynamic_shapes=shapes)
    for batch, length in SWEEP:
        model.check(*given(batch, length, 48 - length))
        model.check(*given(batch, length, 0))


class Pair(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x + y[:, : x.shape[1]], torch.cat([x, y], 1)


def test_sizes_in_relation(tmp_path: Path) -> None:
    """A size twice as large as another is known by it; what is left is a constraint."""
    shapes = {"x": {0: BATCH, 1: LENGTH}, "y": {0: BATCH, 1: 2 * LENGTH}}
    args = (torch.randn(3, 8), torch.randn(3, 16))
    model = LoweredModel(Pair(), args, tmp_path, dynamic_shapes=shapes)
    assert model.program.tensor_inputs[1].shape == ("s0", "2 * s1")
    assert model.program.constraints == ()
    for batch, length in SWEEP:
        model.check(torch.randn(batch, length), torch.randn(batch, 2 * length))


def test_guards_become_constraints(tmp_path: Path) -> None:
    other = Dim("other", min=1, max=40)
    shapes = {"x": {0: BATCH, 1: LENGTH}, "y": {0: BATCH, 1: other}}
    args = (torch.randn(3, 8), torch.randn(3, 16))
    model = LoweredModel(Pair(), args, tmp_path, dynamic_shapes=shapes)
    (constraint,) = model.program.constraints
    assert constraint.condition == "s1 == min(s1, s2)"
    assert constraint.text == "x.shape[1] == min(x.shape[1], y.shape[1])"
    for lengths in ((1, 1), (7, 7), (7, 40), (40, 40)):
        model.check(*(torch.randn(2, length) for length in lengths))
    with pytest.raises(simulator.RunError, match=r"x\.shape\[1\] == min"):
        model.run(torch.randn(2, 8), torch.randn(2, 7))


class Even(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length = x.shape
        return x.view(batch, length // 2, 2).sum(2)


def test_multiples(tmp_path: Path) -> None:
    half = Dim("half", min=2, max=20)
    shapes = {"x": {0: BATCH, 1: 2 * half}}
    model = LoweredModel(Even(), (torch.randn(3, 8),), tmp_path, dynamic_shapes=shapes)
    assert model.program.symbols[1] == Symbol(name="s1", minimum=4, maximum=40)
    assert model.program.tensor_inputs[0].shape == ("s0", "s1")
    assert model.program.constraints[0].text == "x.shape[1] % 2 == 0"
    for length in (4, 14, 40, 4):
        model.check(torch.randn(3, length))
    with pytest.raises(simulator.RunError, match=r"x\.shape\[1\] % 2 == 0"):
        model.run(torch.randn(2, 7))


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_indices_are_as_wide_as_the_largest_size_needs(tmp_path: Path) -> None:
    """Where an index may exceed 32 bits the kernel counts in 64, else in 32."""
    for maximum, dtype in (((1 << 20) - 1, "int32"), (1 << 20, "int64")):
        place = tmp_path / dtype
        place.mkdir()
        rows = Dim("rows", min=1, max=maximum)
        x = torch.zeros(2, 2048)
        model = LoweredModel(Doubled(), (x,), place, dynamic_shapes={"x": {0: rows}})
        (launch,) = model.program.main.steps
        assert isinstance(launch, Launch)
        assert [arg.dtype for arg in launch.args if isinstance(arg, ScalarArg)] == [dtype]
        model.check(torch.randn(3, 2048))


def test_divisibility_is_promised_only_where_it_always_holds(tmp_path: Path) -> None:
    for width, promised in ((16, True), (8, False)):
        place = tmp_path / str(width)
        place.mkdir()
        rows = Dim("rows", min=1, max=64)
        x = torch.zeros(16, width)
        model = LoweredModel(Doubled(), (x,), place, dynamic_shapes={"x": {0: rows}})
        (kernel,) = model.program.kernels
        assert [p.divisible_by_16 for p in kernel.params if p.kind == "scalar"] == [promised]


def test_no_elements(tmp_path: Path) -> None:
    rows = Dim("rows", min=0, max=9)
    x = torch.zeros(4, 3)
    model = LoweredModel(Doubled(), (x,), tmp_path, dynamic_shapes={"x": {0: rows}})
    assert model.program.symbols == (Symbol(name="s0", minimum=0, maximum=9),)
    for size in (0, 1, 9):
        model.check(torch.randn(size, 3))


class Sliced(nn.Module):
    def forward(self, x: torch.Tensor, n: int) -> tuple[torch.Tensor, ...]:
        torch._check(n >= 0)
        torch._check(n <= 7)
        return x * n, x[:, n:] + 1


def test_integers(tmp_path: Path) -> None:
    shapes = {"x": {0: BATCH}, "n": Dim.DYNAMIC}
    model = LoweredModel(Sliced(), (torch.randn(3, 8), 3), tmp_path, dynamic_shapes=shapes)
    (scalar,) = model.program.scalar_inputs
    assert (scalar.name, scalar.path, scalar.symbol) == ("n", "args[1]", "s1")
    assert model.program.symbols[1] == Symbol(name="s1", minimum=0, maximum=7)
    for batch, n in ((1, 0), (6, 7), (3, 5)):
        model.check(torch.randn(batch, 8), n)


def refusal(module: nn.Module, args: Any, shapes: Any, place: Path) -> str:
    with sizes.general():
        exported = support.export(module, args, dynamic_shapes=shapes)
    support.write_graph(exported, place / "graph.json")
    with pytest.raises(LoweringError) as caught:
        lower(place / "graph.json", parse("sm_90"), place / "lowered")
    return str(caught.value)


class Unbounded(nn.Module):
    def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
        return x * n


def test_integers_without_bounds_are_refused(tmp_path: Path) -> None:
    text = refusal(Unbounded(), (torch.ones(3), 3), {"x": {}, "n": Dim.DYNAMIC}, tmp_path)
    assert "input n is an integer without bounds" in text and "torch._check(n <= ...)" in text


class ShapeOnly(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x * 2, x.shape[0]


def test_sizes_as_results_are_refused(tmp_path: Path) -> None:
    text = refusal(ShapeOnly(), (torch.ones(3, 2),), {"x": {0: BATCH}}, tmp_path)
    assert "outputs[1] is an integer that depends on the inputs' sizes" in text


class Found(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.nonzero() + 1


def test_sizes_from_values_are_refused(tmp_path: Path) -> None:
    text = refusal(Found(), (torch.ones(3, 2),), None, tmp_path)
    assert "aten.nonzero.default" in text and "depend on a tensor's values" in text
    assert "x.nonzero() + 1" in text


class Either(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] == 1 else x * 2


def test_a_branch_on_size_1_is_an_error(tmp_path: Path) -> None:
    """`torch.export.export` by itself takes one side for good."""
    with pytest.raises(Exception, match=r"size\(\)\[0\] != 1"):
        LoweredModel(Either(), (torch.randn(3, 2),), tmp_path, dynamic_shapes={"x": {0: BATCH}})
