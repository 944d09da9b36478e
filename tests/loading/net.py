"""A model with weights that are folded, a size that a run tells, and kernels of several kinds."""

from __future__ import annotations

import torch


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(16)
        self.inner = torch.nn.Linear(16, 32)
        self.outer = torch.nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.inner(self.norm(x)))
        return torch.softmax(self.outer(hidden), -1), x.sum(0)


def export() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        net.norm.running_mean.copy_(torch.randn(16))
        net.norm.running_var.copy_(torch.rand(16) + 0.5)
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(net, (torch.zeros(4, 16),), dynamic_shapes=({0: batch},))
