"""Models small enough for Triton's interpreter, each with what it stands for."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class ConvNet(nn.Module):
    """Convolution, batch norm, activation, mean, linear: folding and both templates."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=True)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """A block with stride, down-sampling and a sum, after a max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv1 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.down = nn.Conv2d(8, 16, 1, stride=2, bias=False)
        self.bn3 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + self.bn3(self.down(x)))


class Mlp(nn.Module):
    """Layer norm, GELU and softmax, with two results of which one is a dictionary's."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(24)
        self.up = nn.Linear(24, 32)
        self.down = nn.Linear(32, 24)

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.down(F.gelu(self.up(self.norm(x)))) + x
        return {"probabilities": torch.softmax(y * scale, dim=-1), "hidden": y}


class Attention(nn.Module):
    """Scaled dot-product attention with a causal mask and one projection for all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)
        self.out = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 2, 16).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Views(nn.Module):
    """Results that are inputs, weights, or views of something."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 4))
        self.register_buffer("offsets", torch.randn(6), persistent=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x * 2 + self.offsets[:, None]
        return x, self.table, y, y.t(), y[1:3], torch.exp(self.table), y


class Concatenate(nn.Module):
    """Kernels that write parts of one block; embedding of constant positions."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(8, 4)
        self.tokens = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        where = torch.arange(ids.shape[1])
        embedded = self.tokens(ids) + self.positions(where)
        return torch.cat([embedded.sum(-1), x, torch.relu(x)], dim=1)


class Offsets(nn.Module):
    """Operands of templates that begin in the middle of a block, at no multiple of 16 bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(7, 21)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a, b, _ = self.fc(x[:, 1:]).chunk(3, -1)
        return torch.cat([torch.bmm(a, b.transpose(1, 2)), y @ self.fc.weight[3:6].t()], 1)


class Depthwise(nn.Module):
    """A depthwise convolution that Inductor's own template computes, and a pre-activation norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.depth = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.bn = nn.BatchNorm2d(8, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(self.bn(self.depth(torch.relu(self.norm(x)))))


class Shared(nn.Module):
    """One convolution before two batch norms, and a weight that is read two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.bn2 = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv(x)) + self.bn2(self.conv(x * 2))
        pooled = y.amax((2, 3))
        return self.fc(pooled) @ self.fc.weight


class Scan(nn.Module):
    """A scan over many elements, which counts in zeroed scratch memory, and additions by index."""

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        sums = torch.cumsum(x, 0)
        return sums[:8] + torch.zeros(8).index_add(0, index, sums[-8:])


def models() -> dict[str, tuple[nn.Module, tuple[torch.Tensor, ...], dict[str, torch.Tensor]]]:
    """Name to module, positional and keyword arguments; seeded, in evaluation mode."""
    torch.manual_seed(0)
    found = {
        "conv_net": (ConvNet(), (torch.randn(2, 3, 8, 8),), {}),
        "conv_net_half": (ConvNet().half(), (torch.randn(2, 3, 8, 8).half(),), {}),
        "residual": (Residual(), (torch.randn(1, 8, 16, 16),), {}),
        "mlp": (Mlp(), (torch.randn(6, 24),), {"scale": torch.randn(24)}),
        "attention": (Attention(), (torch.randn(2, 8, 32),), {}),
        "views": (Views(), (torch.randn(6, 4),), {}),
        "offsets": (Offsets(), (torch.randn(2, 4, 7), torch.randn(2, 5, 7)), {}),
        "depthwise": (Depthwise(), (torch.randn(1, 8, 6, 6),), {}),
        "shared": (Shared(), (torch.randn(1, 4, 8, 8),), {}),
        "scan": (Scan(), (torch.randn(70000), torch.randint(0, 8, (8,))), {}),
        "concatenate": (Concatenate(), (torch.randint(0, 10, (2, 8)), torch.randn(2, 6)), {}),
    }
    for module, _, _ in found.values():
        module.eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                with torch.no_grad():
                    part.running_mean.uniform_(-0.5, 0.5)
                    part.running_var.uniform_(0.5, 1.5)
                    if part.affine:
                        part.weight.uniform_(0.5, 1.5)
                        part.bias.uniform_(-0.5, 0.5)
    return found
