"""The model that the server answers with."""

from __future__ import annotations

import torch
from torch import nn


class Scorer(nn.Module):
    """``[1, 16]`` to ``[1, 8]``, both float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layer(x))


def export() -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    torch.manual_seed(0)
    return torch.export.export(Scorer().eval(), (torch.zeros(1, 16),))
