"""A model with what AOTInductor's interface has to pass on: positional and keyword arguments, one
of them an integer, another written to; sizes that only a call tells; results that nest, one of them
None; parameters, buffers and a tensor that is neither, some of which only constants are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

SEED = 0


class Served(nn.Module):
    """``x`` is ``[batch, 16]``, ``total`` ``[8]``; both float32."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 4)
        self.table = torch.arange(4.0)
        with torch.no_grad():
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def forward(
        self, x: torch.Tensor, start: int, *, total: torch.Tensor, scale: torch.Tensor
    ) -> dict[str, Any]:
        torch._check(start >= 0)
        torch._check(start <= 100)
        hidden = torch.relu(self.norm(self.first(x)))
        total.add_(hidden.sum(0))
        scores = self.head(hidden * scale) + start * self.table
        return {"scores": torch.softmax(scores, 1), "cache": None, "hidden": (hidden,)}


def model() -> Served:
    """The same weights each time."""
    torch.manual_seed(SEED)
    return Served().eval()


def inputs(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of a call, other ones each time."""
    keywords = {"total": torch.randn(8), "scale": torch.randn(batch, 8)}
    return (torch.randn(batch, 16), 3), keywords


def export() -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = {
        "x": {0: batch},
        "start": torch.export.Dim.DYNAMIC,
        "total": {},
        "scale": {0: batch},
    }
    args, keywords = inputs(4)
    return torch.export.export(model(), args, keywords, dynamic_shapes=shapes, strict=False)
