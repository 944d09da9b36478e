"""A model of a few layers, for tests that build many times and edit it in between."""

from __future__ import annotations

import torch
from torch import nn

SEED = 0


class Small(nn.Module):
    """``[1, 8, 16, 16]`` to ``[1, 10]``, both float16."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x))
        return torch.softmax(self.head(x.mean((2, 3))), dim=1)


def export() -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    torch.manual_seed(SEED)
    model = Small().eval().half()
    return torch.export.export(model, (torch.zeros(1, 8, 16, 16).half(),), strict=False)
