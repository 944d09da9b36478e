"""Branches and loops that depend on data: ``torch.cond``, ``while_loop`` and ``map``.

Each predicate comes with its opposite, so that one run takes both branches.
"""

from __future__ import annotations

import torch
from torch import nn
from torch._higher_order_ops.map import map as map_rows


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(16, 16)
        self.right = nn.Linear(16, 16)
        self.step = nn.Linear(16, 16)

    def branch(self, predicate: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Operands, weights that one branch alone reads, branches of different lengths."""

        def yes(x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.left(x), -1)

        def no(x: torch.Tensor) -> torch.Tensor:
            return nn.functional.gelu(self.right(x)) - x.mean(0)

        return torch.cond(predicate, yes, no, (x,))

    def loop(self, x: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Carries a counter, two tensors that trade places, and a flag that a nested branch reads;
        how often it runs, an input says."""

        def condition(
            i: torch.Tensor, even: torch.Tensor, x: torch.Tensor, y: torch.Tensor
        ) -> torch.Tensor:
            return (i < limit) & (x.abs().amax() < 1000)

        def body(
            i: torch.Tensor, even: torch.Tensor, x: torch.Tensor, y: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            z = torch.tanh(self.step(x))
            z = torch.cond(even, lambda z, y: z + y, lambda z, y: z * 2 - y, (z, y))
            return i + 1, ~even, y.clone(), z

        zero = torch.zeros((), dtype=torch.int64)
        return torch.while_loop(condition, body, (zero, zero == 0, x, x * 0.5))

    def forward(
        self, x: torch.Tensor, limit: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        positive = x.sum() > 0
        y = self.branch(positive, x)
        z = self.branch(~positive, x)
        limit = limit.remainder(4) + 2
        count, even, first, second = self.loop(y + z, limit)
        never, *_ = self.loop(x, limit - limit)
        few = map_rows(lambda row, w: torch.relu(row) @ w, rows[:3], self.left.weight)
        many = map_rows(lambda row, w: (torch.sigmoid(row), row.sum() + w), rows, x.amax())
        return (y, z, count, even, first, second, never, few, *many)


def export() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=64)
    args = (torch.randn(4, 16), torch.tensor(5), torch.randn(12, 16))
    shapes = ({0: batch}, None, None)
    return torch.export.export(Model().eval(), args, dynamic_shapes=shapes)
