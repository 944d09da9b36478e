"""Attention becomes one kernel (two, where keys are divided), right in all its variants."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from simulator.program import run as simulated
from tests.lowering import support
from wrapgen.lowering import lower
from wrapgen.program import Launch, Program
from wrapgen.target import parse

sdpa = F.scaled_dot_product_attention
Tensors = tuple[torch.Tensor, ...]


class Cases(nn.Module):
    """Several attentions in one program: results by name of the case."""

    def __init__(self, cases: dict[str, Callable[..., torch.Tensor]]) -> None:
        super().__init__()
        self.cases = cases

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: case(*inputs) for name, case in self.cases.items()}


def heads(x: torch.Tensor, count: int) -> torch.Tensor:
    """[batch, length, count x head] as [batch, count, length, head], a view."""
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def joined(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def repeated(x: torch.Tensor, times: int) -> torch.Tensor:
    """Keys or values for each head of a group, as transformers' ``repeat_kv``."""
    batch, count, length, head = x.shape
    spread = x[:, :, None, :, :].expand(batch, count, times, length, head)
    return spread.reshape(batch, count * times, length, head)


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> Any:
    """As transformers' eager attention."""
    scores = torch.matmul(q, k.transpose(2, 3)) * q.shape[-1] ** -0.5 + bias
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(F.dropout(weights, 0.1, training=False), v)


def t5(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Without a scale, the bias added in place."""
    scores = torch.matmul(q, k.transpose(3, 2))
    scores += bias
    return torch.matmul(F.softmax(scores.float(), dim=-1).type_as(scores), v)


def by_positions(x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Causal and padded as transformers makes its masks; ``seen`` is [batch, keys]."""
    batch, length, _ = x.shape
    position = torch.arange(length)
    rows, keys = position[None, None, :, None], position[None, None, None, :]
    mask = (keys <= rows) & (rows >= 0) & seen[:, None, None, :]
    q, k, v = (heads(t, 2) for t in x.chunk(3, -1))
    return joined(sdpa(q, k, v, attn_mask=mask.expand(batch, 1, length, length)))


PACKED: dict[str, Callable[..., torch.Tensor]] = {
    "all heads from one projection": lambda x, y, m, a: joined(
        sdpa(*(heads(t, 2) for t in x.chunk(3, -1)))
    ),
    "causal": lambda x, y, m, a: joined(
        sdpa(*(heads(t, 2) for t in x.chunk(3, -1)), is_causal=True)
    ),
    "causal by comparing positions, padded": lambda x, y, m, a: by_positions(x, m[:, 0, :, 4]),
    "causal, more keys": lambda x, y, m, a: sdpa(
        heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), is_causal=True
    ),
    "causal, more rows": lambda x, y, m, a: sdpa(
        heads(y[..., :48], 2), heads(x[..., :48], 2), heads(x[..., 48:96], 2), is_causal=True
    ),
    "grouped heads": lambda x, y, m, a: joined(
        sdpa(heads(x[..., :96], 6), heads(y[..., :32], 2), heads(y[..., 32:64], 2),
             enable_gqa=True)
    ),
    "repeated heads": lambda x, y, m, a: joined(
        sdpa(heads(x[..., :96], 6), *(repeated(heads(y[..., i : i + 32], 2), 3) for i in (0, 32)))
    ),
    "grouped heads, few rows, causal": lambda x, y, m, a: sdpa(
        heads(x[:, :5, :96], 6), heads(y[..., :32], 2), heads(y[..., 32:64], 2),
        is_causal=True, enable_gqa=True,
    ),
    "another head dimension for values": lambda x, y, m, a: sdpa(
        heads(x[..., :36], 1), heads(y[..., :36], 1), heads(y[..., 12:84], 1)
    ),
    "head dimension 80, scale": lambda x, y, m, a: sdpa(
        heads(x[..., :80], 1), heads(y[..., :80], 1), heads(y[..., 16:], 1), scale=0.4
    ),
    "negative scale": lambda x, y, m, a: sdpa(
        heads(x[..., :80], 1), heads(y[..., :80], 1), heads(y[..., 16:], 1), scale=-0.4
    ),
    "boolean mask": lambda x, y, m, a: sdpa(
        heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), attn_mask=m
    ),
    "boolean mask of keys, expanded": lambda x, y, m, a: sdpa(
        heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2),
        attn_mask=m[:, :, :1].expand(m.shape),
    ),
    "added mask, one for all heads": lambda x, y, m, a: sdpa(
        heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), attn_mask=a[0, 0]
    ),
    "added mask a head": lambda x, y, m, a: sdpa(
        heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), attn_mask=a
    ),
    "added mask, grouped heads": lambda x, y, m, a: sdpa(
        heads(x[:, :3, :48], 2), heads(y[..., :24], 1), heads(y[..., 24:48], 1),
        attn_mask=a[:, :, :3], enable_gqa=True,
    ),
    "three dimensions": lambda x, y, m, a: sdpa(
        x[..., :48], y[..., :48], y[..., 48:], attn_mask=m[:, 0]
    ),
    "two dimensions": lambda x, y, m, a: sdpa(x[0, :, :48], y[0, :, :48], y[0, :, 48:]),
    "five dimensions": lambda x, y, m, a: sdpa(
        heads(x[..., :48], 2)[None], heads(y[..., :48], 2)[None], heads(y[..., 48:], 2)[None]
    ),
    "one batch of keys": lambda x, y, m, a: sdpa(
        heads(x[..., :48], 2), heads(y[:1, :, :48], 2), heads(y[:1, :, 48:], 2)
    ),
    "written out": lambda x, y, m, a: joined(
        written_out(heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), a)
    ),
    "as T5": lambda x, y, m, a: joined(
        t5(heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), a)
    ),
    "one row, keys divided": lambda x, y, m, a: joined(
        sdpa(heads(x[:, :1, :64], 4), *(heads(y[..., i : i + 32].repeat(1, 40, 1), 2)
             for i in (0, 32)), enable_gqa=True)
    ),
    "one row, keys divided, masked": lambda x, y, m, a: joined(
        sdpa(heads(x[:, :1, :64], 4), *(heads(y[..., i : i + 32].repeat(1, 40, 1), 2)
             for i in (0, 32)), attn_mask=m[:, :, :1].repeat(1, 1, 1, 40), enable_gqa=True)
    ),
    "one row, keys divided, added mask": lambda x, y, m, a: joined(
        sdpa(heads(x[:, :1, :64], 4), *(heads(y[..., i : i + 32].repeat(1, 40, 1), 2)
             for i in (0, 32)), attn_mask=a[:1, :1, :1].repeat(1, 1, 1, 40), enable_gqa=True)
    ),
}  # fmt: skip


def inputs(dtype: torch.dtype) -> Tensors:
    """Rows of 144 columns and 37 of them, keys of 96 and 21; a boolean mask, and one to add.

    One row of the boolean mask sees nothing, nor does a whole batch of its first row; the other
    mask has -infinity, and a row and a column of the smallest finite number.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    boolean = random(2, 1, 37, 21) > -0.5
    boolean[0, 0, 3] = False
    boolean[1, 0, 0] = False
    added = random(1, 2, 37, 21)
    added[0, :, 5] = torch.finfo(dtype).min
    added[0, 0, :, 4] = torch.finfo(dtype).min
    added[0, 1, 2, :7] = -math.inf
    return (
        random(2, 37, 144).to(dtype),
        random(2, 21, 96).to(dtype),
        boolean,
        added.to(dtype),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_variants_match_eager(dtype: torch.dtype, tmp_path: Path) -> None:
    """No further from float64 than twice what eager PyTorch is, or than rounding the result is."""
    args = inputs(dtype)
    program, outputs = run(Cases(PACKED), args, tmp_path)
    assert not [kernel.name for kernel in program.kernels if kernel.template == "bmm"]

    eager = Cases(PACKED)(*args)
    exact = Cases(PACKED)(*(a.double() if a.is_floating_point() else a for a in args))
    rounding = torch.finfo(dtype).eps
    wrong = {}
    for (name, got), spec in zip(outputs.items(), program.outputs, strict=True):
        case = spec.path.split('"')[1]
        assert got.dtype == dtype
        ours, theirs = error(got, exact[case]), error(eager[case], exact[case])
        if not ours <= max(2 * theirs, 2 * rounding):
            wrong[f"{name} ({case})"] = (ours, theirs)
    assert not wrong


def test_rows_without_keys_are_as_in_eager(tmp_path: Path) -> None:
    """Zero by the library's definition, not a number where a softmax is written out."""
    x, y, mask, _ = inputs(torch.float32)
    plain = torch.where(mask[:, :, :, :21], 0.0, -math.inf)
    cases: dict[str, Callable[..., torch.Tensor]] = {
        "library": lambda x, y, m, p: sdpa(
            heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), attn_mask=m
        ),
        "plain": lambda x, y, m, p: written_out(
            heads(x[..., :48], 2), heads(y[..., :48], 2), heads(y[..., 48:], 2), p
        ),
    }
    _, outputs = run(Cases(cases), (x, y, mask, plain), tmp_path)
    library, written = outputs["library"], outputs["plain"]
    assert bool((library[0, :, 3] == 0).all())
    assert bool((library[1, :, 0] == 0).all())
    assert bool(written[0, :, 3].isnan().all())
    assert int(written.isnan().any(-1).sum()) == 4


class Block(nn.Module):
    """A projection, attention, a projection."""

    def __init__(self, width: int, count: int, **options: Any) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.count, self.options = count, options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.count, width // self.count)
        return self.out(joined(sdpa(*qkv.permute(2, 0, 3, 1, 4), **self.options)))


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("causal", [False, True])
def test_nothing_is_copied_and_no_scores_are_stored(
    causal: bool, target: str, tmp_path: Path
) -> None:
    """Three kernels for three operations, and memory in proportion to the length."""
    length = 4096
    program = lowered(
        Block(64, 4, is_causal=causal).half(), (torch.randn(1, length, 64).half(),), tmp_path,
        target,
    )  # fmt: skip
    steps = [step for step in program.main.steps if isinstance(step, Launch)]
    assert len(steps) == len(program.main.steps) == 3
    assert [step.kernel.rsplit("_", 1)[0] for step in steps] == [
        "matrix_product", "attention", "matrix_product",
    ]  # fmt: skip
    assert max(buffer.nbytes for buffer in program.main.buffers) == 2 * length * 3 * 64


def test_mask_of_keys_is_not_spread_over_rows(tmp_path: Path) -> None:
    """What transformers makes of a mask of padding: a kernel for [batch, keys], not rows x keys."""

    def padded(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        spread = mask[:, None, None, :].expand(batch, 1, length, length)
        spread = (1.0 - spread.to(x.dtype)).masked_fill(spread == 0, torch.finfo(x.dtype).min)
        q = heads(x, 4)
        return sdpa(q, q, q, attn_mask=spread) + sdpa(q * 2, q, q, attn_mask=spread)

    program = lowered(
        Cases({"padded": padded}), (torch.randn(2, 1024, 64), torch.ones(2, 1024)), tmp_path
    )
    assert max(buffer.nbytes for buffer in program.main.buffers) == 4 * 2 * 1024 * 64


def test_comparing_positions_is_no_mask(tmp_path: Path) -> None:
    """One kernel, without a mask in memory; the same as that of ``is_causal``."""
    x = torch.randn(2, 1024, 48)
    cases: dict[str, Callable[..., torch.Tensor]] = {
        "compared": lambda x: by_positions(x, torch.ones(1, 1, dtype=torch.bool)),
        "causal": lambda x: joined(sdpa(*(heads(t, 2) for t in x.chunk(3, -1)), is_causal=True)),
    }
    program = lowered(Cases(cases), (x,), tmp_path)
    assert [kernel.template for kernel in program.kernels] == ["attention"]
    assert len(program.main.steps) == 2
    assert not program.main.buffers


def test_decoding_is_two_kernels(tmp_path: Path) -> None:
    """Decoding with a long cache: the parts, then their sum with what follows it."""
    q, cache = torch.randn(1, 8, 1, 64).half(), torch.randn(1, 2, 4096, 64).half()
    cases = {"decode": lambda q, k, v: joined(sdpa(q, k, v, enable_gqa=True)).relu()}
    program = lowered(Cases(cases), (q, cache, cache.clone()), tmp_path)
    first, second = (step for step in program.main.steps if isinstance(step, Launch))
    kernel = next(k for k in program.kernels if k.name == first.kernel)
    assert kernel.template == "attention"
    programs, parts, _ = first.grid
    assert programs == 2
    assert isinstance(parts, int)
    assert parts > 1
    (partial,) = program.main.buffers
    assert partial.shape == (parts, 1, 8, 1, 68)
    assert second.kernel.startswith("pointwise")


def test_what_attention_does_not_take_is_lowered_as_its_definition(tmp_path: Path) -> None:
    wide = torch.randn(1, 2, 5, 272)
    cases = {"wide": lambda w: sdpa(w, w, w, is_causal=True)}
    program, outputs = run(Cases(cases), (wide,), tmp_path)
    assert not [kernel for kernel in program.kernels if kernel.template == "attention"]
    (got,) = outputs.values()
    assert error(got, Cases(cases)(wide.double())["wide"]) < 1e-6


class Dynamic(nn.Module):
    """Padded self-attention, causal, and of rows to a cache of another length, grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(
        self, x: torch.Tensor, seen: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mask = seen[:, None, None, :].expand(batch, 1, length, length)
        position = torch.arange(length)
        compared = (position[None, :] <= position[:, None])[None, None] & mask
        bias = (position[None, :] - position[:, None]).to(x.dtype)
        return {
            "padded": joined(sdpa(q, k, v, attn_mask=mask)),
            "causal": joined(sdpa(q, k, v, is_causal=True)),
            "compared": joined(sdpa(q, k, v, attn_mask=compared)),
            "biased": joined(sdpa(q, k, v, attn_mask=bias)),
            "cached": joined(sdpa(q, keys, values, enable_gqa=True)),
            "one": joined(sdpa(q[:, :, :1], keys, values, enable_gqa=True)),
        }


def test_one_program_for_every_length(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=4)
    length = torch.export.Dim("length", min=1, max=90)
    cached = torch.export.Dim("cached", min=1, max=600)

    def given(batch: int, length: int, cached: int) -> Tensors:
        cache = torch.randn(2, batch, 2, cached, 8)
        seen = torch.rand(batch, length) > 0.2
        seen[:, 0] = True
        return torch.randn(batch, length, 32), seen, cache[0], cache[1]

    torch.manual_seed(0)
    module = Dynamic().eval()
    shapes = (
        {0: batch, 1: length}, {0: batch, 1: length}, {0: batch, 2: cached}, {0: batch, 2: cached},
    )  # fmt: skip
    exported = support.export(module, given(2, 40, 512), dynamic_shapes=shapes)
    weights = support.write_graph(exported, tmp_path / "graph.json")
    program = lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "lowered")
    assert sum(kernel.template == "attention" for kernel in program.kernels) >= 5
    assert not any(kernel.template == "bmm" for kernel in program.kernels)
    names = [spec.name for spec in program.inputs]
    double = Dynamic().double().eval()
    double.load_state_dict(module.state_dict())
    for sizes in ((1, 1, 1), (4, 90, 600), (3, 33, 64), (2, 64, 257)):
        args = given(*sizes)
        got = simulated(tmp_path / "lowered", weights, dict(zip(names, args, strict=True)))
        with torch.no_grad():
            exact = double(*(a.double() if a.is_floating_point() else a for a in args))
        for spec in program.outputs:
            want = exact[spec.path.split('"')[1]]
            assert error(got["outputs"][spec.name], want) < 2e-6, (sizes, spec.path)


def lowered(module: nn.Module, args: Tensors, folder: Path, target: str = "sm_90") -> Program:
    module.eval()
    support.write_graph(support.export(module, args), folder / "graph.json")
    return lower(folder / "graph.json", parse(target), folder / "lowered")


def run(module: nn.Module, args: Tensors, folder: Path) -> tuple[Program, dict[str, torch.Tensor]]:
    module.eval()
    weights = support.write_graph(support.export(module, args), folder / "graph.json")
    program = lower(folder / "graph.json", parse("sm_90"), folder / "lowered")
    given = {spec.name: args[int(spec.path[5:-1])] for spec in program.inputs}
    outputs = simulated(folder / "lowered", weights, given)["outputs"]
    return program, outputs


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    got = got.double()
    same = torch.isclose(got, exact, rtol=0, atol=0, equal_nan=True)
    difference = torch.where(same, 0.0, got - exact)
    return float(difference.norm() / exact.nan_to_num().norm())
