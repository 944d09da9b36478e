"""Triton kernels of the user's own, in each way that a model can call them.

Every kernel is called beside operators of PyTorch's that compute the same, and the model returns
both: tests/lowering/test_user_kernels.py compares them.
"""

from __future__ import annotations

import torch
import triton
from torch.library import triton_op, wrap_triton
from triton import language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

SCALE: tl.constexpr = tl.constexpr(3.0)


@triton.jit
def clamped(x, low, high):
    return tl.minimum(tl.maximum(x, low), high)


@triton.autotune(
    configs=[
        triton.Config({"BLOCK": 256, "UNROLL": 2}, num_warps=2),
        triton.Config({"BLOCK": 1024, "UNROLL": 1}, num_warps=8),
    ],
    key=["n"],
)
@triton.heuristics({"EVEN": lambda args: args["BLOCK"] < 0})
@triton.jit
def scaled_sum(x, y, out, n, alpha, BLOCK: tl.constexpr, UNROLL: tl.constexpr, EVEN: tl.constexpr):
    """out = clamp(SCALE * x + alpha * y); y may be None."""
    first = tl.program_id(0) * BLOCK * UNROLL
    for i in tl.static_range(UNROLL):
        at = first + i * BLOCK + tl.arange(0, BLOCK)
        inside = (at < n) | EVEN
        value = SCALE * tl.load(x + at, mask=inside)
        if y is not None:
            value += alpha * tl.load(y + at, mask=inside)
        tl.store(out + at, clamped(value, -4.0, 4.0), mask=inside)


@triton_op("features::scaled_sum", mutates_args={})
def scaled_sum_op(x: torch.Tensor, y: torch.Tensor | None, alpha: float) -> torch.Tensor:
    out = torch.empty_like(x)
    n = x.numel()
    wrap_triton(scaled_sum)[lambda meta: (triton.cdiv(n, meta["BLOCK"] * meta["UNROLL"]),)](
        x, y, out, n, alpha
    )
    return out


@triton.jit
def add_rows(x, bias, rows, columns, stride_row, stride_column, BLOCK: tl.constexpr):
    """x += bias, in place, whatever the strides of x: one row a program."""
    row = tl.program_id(1)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = x + row * stride_row + column * stride_column
    inside = (column < columns) & (row < rows)
    tl.store(at, tl.load(at, mask=inside) + tl.load(bias + column, mask=inside), mask=inside)


@triton_op("features::add_rows_", mutates_args={"x"})
def add_rows_op(x: torch.Tensor, bias: torch.Tensor) -> None:
    rows, columns = x.shape
    wrap_triton(add_rows)[(triton.cdiv(columns, 32), rows)](
        x, bias, rows, columns, x.stride(0), x.stride(1), BLOCK=32, num_warps=1
    )


@triton.jit
def numbers(
    out,
    one,
    small: tl.int32,
    large: tl.int64,
    single,
    double: tl.float64,
    half: tl.float16,
    brain: tl.bfloat16,
    flag,
    other: tl.int1,
):
    """Stores each of its arguments."""
    tl.store(out + 0, one.to(tl.float64))
    tl.store(out + 1, small.to(tl.float64))
    tl.store(out + 2, large.to(tl.float64))
    tl.store(out + 3, single.to(tl.float64))
    tl.store(out + 4, double)
    tl.store(out + 5, half.to(tl.float64))
    tl.store(out + 6, brain.to(tl.float64))
    tl.store(out + 7, flag.to(tl.float64))
    tl.store(out + 8, other.to(tl.float64))


@triton.jit
def doubled(x, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """out = 2 * x, both as tensor descriptors."""
    at = [tl.program_id(0) * ROWS, tl.program_id(1) * COLUMNS]
    out.store(at, 2 * x.load(at))


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.linspace(-1, 1, 24))

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        rows = x.shape[0]
        # An offset of 4 bytes: no multiple of 16 is promised. Then none, and None.
        shifted = y[1:]
        a = scaled_sum_op(x.flatten(), shifted, 0.5)
        b = scaled_sum_op(torch.sin(x), None, 0.5)
        # In place: on a temporary, on a view of one with strides of its own, on an argument, and on
        # what is read again afterwards, which takes a copy.
        c = torch.cos(x)
        add_rows_op(c, self.bias)
        d = (x * 2).t().contiguous().t()
        add_rows_op(d[:, 8:16], self.bias[8:16])
        add_rows_op(state, self.bias)
        e = x * 3
        f = e.clone()
        add_rows_op(f, self.bias)
        g = torch.empty(9, dtype=torch.float64)
        wrap_triton(numbers)[(1,)](
            g, rows, rows * 2, rows + (1 << 40), 0.1, 0.1, 0.1, 0.1, True, False
        )
        h = torch.empty_like(x)
        wrap_triton(doubled)[(triton.cdiv(rows, 16), 3)](
            TensorDescriptor.from_tensor(x, [16, 8]),
            TensorDescriptor.from_tensor(h, [16, 8]),
            ROWS=16,
            COLUMNS=8,
        )
        low, high = -4.0, 4.0
        twice = 2 * x
        return (
            a,
            (3 * x.flatten() + 0.5 * shifted).clamp(low, high),
            b,
            (3 * torch.sin(x)).clamp(low, high),
            c,
            torch.cos(x) + self.bias,
            d,
            torch.cat([twice[:, :8], twice[:, 8:16] + self.bias[8:16], twice[:, 16:]], 1),
            e + f,
            6 * x + self.bias,
            h,
            2 * x,
            g,
        )


def export() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    rows = torch.export.Dim("rows", min=2, max=64)
    args = (torch.randn(40, 24), torch.randn(24 * 40 + 1), torch.randn(40, 24))
    shapes = ({0: rows}, {0: 24 * rows + 1}, {0: rows})
    return torch.export.export(Model().eval(), args, dynamic_shapes=shapes)
