"""Numbers read from tensors by ``.item()``: in operators of PyTorch's and as arguments of a kernel.

Nothing is read back: each stays on the device.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch.library import wrap_triton
from triton import language as tl


@triton.jit
def axpy(
    x,
    out,
    size,
    n,
    alpha,
    beta: tl.float64,
    half: tl.float16,
    small: tl.int32,
    on,
    BLOCK: tl.constexpr,
):
    """out = alpha * x + beta + half + small where ``on``, else x; of the first n elements."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (at < n) & (at < size)
    value = tl.load(x + at, mask=inside)
    other = value * alpha + beta.to(tl.float32) + half.to(tl.float32) + small.to(tl.float32)
    tl.store(out + at, tl.where(on, other, value), mask=inside)


def operators(x: torch.Tensor, f32: Any, f64: Any, f16: Any, i64: Any, i32: Any) -> list[Any]:
    """Operators that take numbers; a test calls it with Python's."""
    whole = (x * 10).to(torch.int64)
    half = x.half()
    half.mul_(f64)
    odd64, odd32 = 2 * i64 + 1, 2 * i32 + 1
    return [
        x * f32 + 2 * f64,
        (x.half() * f16 - f64).clamp(min=-f32, max=i32),
        x.abs() ** f64 / odd32,
        torch.where(x > f32, x, i64),
        x.masked_fill(x < f32, f64),
        torch.full((3,), f32),
        whole // odd64 + whole % odd32,
        whole * f32 - i64 / odd32,
        whole == i64,
        torch.add(x, x, alpha=f64) + torch.sym_float(i64 // 2 - 7 % odd32),
        half,
    ]


class Model(torch.nn.Module):
    def forward(
        self,
        x: torch.Tensor,
        single: torch.Tensor,
        double: torch.Tensor,
        half: torch.Tensor,
        long: torch.Tensor,
        narrow: torch.Tensor,
        flag: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        f32, f64, f16 = single.item(), double.item(), half.item()
        i64, i32, on = long.item(), narrow.item(), flag.item()
        called = torch.zeros_like(x)
        wrap_triton(axpy)[(triton.cdiv(x.shape[0], 64),)](
            x, called, x.shape[0], i64 * 2 + 1, f32 * 0.5, f64, f16, i32, on, BLOCK=64
        )
        return called, *operators(x, f32, f64, f16, i64, i32)


def export() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    args = (
        torch.randn(100),
        torch.tensor(0.75),
        torch.tensor([1.25], dtype=torch.float64),
        torch.tensor(0.5, dtype=torch.float16),
        torch.tensor(3),
        torch.tensor(2, dtype=torch.int32),
        torch.tensor(True),
    )
    return torch.export.export(Model().eval(), args)
