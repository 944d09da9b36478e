"""Kernels that are launched in other ways than over a grid: clusters, grids whose programs wait for
each other, kernels that start while the one before them ends, tensor descriptors.

The user's kernels are beside operators of PyTorch's that compute the same; of PyTorch's own, one is
a cooperative reduction and others start early, as the options of the library ask for.
"""

from __future__ import annotations

import torch
import triton
from torch.library import triton_op, wrap_triton
from triton import language as tl


@triton.autotune([triton.Config({"BLOCK": 512}, num_ctas=2)], key=[])
@triton.jit
def pairs(x, out, n, BLOCK: tl.constexpr):
    """out = 2 * x, by clusters of two blocks."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, 2 * tl.load(x + at, mask=at < n), mask=at < n)


@triton_op("launches::pairs", mutates_args={})
def pairs_op(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    n = x.numel()
    wrap_triton(pairs)[(triton.cdiv(n, 512),)](x, out, n)
    return out


@triton.jit
def tiles(x, out, rows, columns, BLOCK: tl.constexpr):
    """out = x + 1, by descriptors that the kernel makes of both."""
    source = tl.make_tensor_descriptor(x, [rows, columns], [columns, 1], [BLOCK, BLOCK])
    target = tl.make_tensor_descriptor(out, [rows, columns], [columns, 1], [BLOCK, BLOCK])
    row, column = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
    target.store([row, column], source.load([row, column]) + 1)


@triton_op("launches::tiles", mutates_args={})
def tiles_op(x: torch.Tensor) -> torch.Tensor:
    rows, columns = x.shape
    out = torch.empty_like(x)
    grid = (triton.cdiv(rows, 32), triton.cdiv(columns, 32))
    wrap_triton(tiles)[grid](x, out, rows, columns, BLOCK=32)
    return out


@triton.jit
def step(x, out, n, BLOCK: tl.constexpr):
    """out = x / 2 + 1, begun while the kernel before it ends."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.extra.cuda.gdc_wait()
    value = tl.load(x + at, mask=at < n)
    tl.extra.cuda.gdc_launch_dependents()
    tl.store(out + at, value / 2 + 1, mask=at < n)


@triton_op("launches::steps", mutates_args={})
def steps_op(x: torch.Tensor) -> torch.Tensor:
    n = x.numel()
    for _ in range(3):
        out = torch.empty_like(x)
        wrap_triton(step)[(triton.cdiv(n, 256),)](x, out, n, BLOCK=256, launch_pdl=True)
        x = out
    return x


@triton.jit
def centred(x, partial, arrived, out, n, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr):
    """out = x - x.mean(), by programs that wait until all have added up their part."""
    program = tl.program_id(0)
    at = program * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n, other=0.0)
    tl.store(partial + program, tl.sum(value, 0))
    tl.debug_barrier()
    tl.atomic_add(arrived, 1, sem="acq_rel")
    while tl.atomic_add(arrived, 0, sem="acquire") < PROGRAMS:
        pass
    tl.debug_barrier()
    sums = tl.load(partial + tl.arange(0, PROGRAMS), volatile=True)
    tl.store(out + at, value - tl.sum(sums, 0) / n, mask=at < n)


@triton_op("launches::centred", mutates_args={})
def centred_op(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    partial = torch.empty(8, dtype=x.dtype, device=x.device)
    arrived = torch.zeros(1, dtype=torch.int32, device=x.device)
    wrap_triton(centred)[(8,)](
        *(x, partial, arrived, out, x.numel()),
        BLOCK=triton.next_power_of_2(triton.cdiv(x.numel(), 8)),
        PROGRAMS=8,
        launch_cooperative_grid=True,
    )
    return out


class Model(torch.nn.Module):
    def forward(self, x: torch.Tensor, long: torch.Tensor) -> tuple[torch.Tensor, ...]:
        variance, mean = torch.var_mean(long, dim=1, keepdim=True)
        chain = torch.softmax((torch.softmax(x, dim=1) + x).t().contiguous(), dim=1)
        return (
            pairs_op(x),
            2 * x,
            tiles_op(x),
            x + 1,
            steps_op(x),
            x / 8 + 1.75,
            centred_op(x),
            x - x.mean(),
            (long - mean) * torch.rsqrt(variance + 1e-5),
            torch.cumsum(chain, dim=0) + x.t(),
        )


def export() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    args = (torch.randn(80, 64), torch.randn(1, 33000))
    return torch.export.export(Model().eval(), args)
