"""A U-Net (Ronneberger et al., 2015) with group normalisation and transposed convolutions."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from models import seeded

WIDTHS = {"base": (64, 128, 256, 512), "small": (16, 32, 64)}
"""Channels at each resolution, the full one first."""

IMAGE = {"base": 256, "small": 32}
"""Height and width of the input in pixels."""

CLASSES = 4


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with group normalisation and SiLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1),
            nn.GroupNorm(8, outputs),
            nn.SiLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Takes images ``[batch, 3, image, image]``; gives logits ``[batch, 4, image, image]``."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.stem = block(3, widths[0])
        self.down = nn.ModuleList(block(above, below) for above, below in pairs)
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(below, above, 2, stride=2) for above, below in pairs
        )
        self.merge = nn.ModuleList(block(2 * above, above) for above, _ in pairs)
        self.head = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        levels = [self.stem(image)]
        for down in self.down:
            levels.append(down(self.pool(levels[-1])))
        x = levels.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = merge(torch.cat([levels.pop(), up(x)], dim=1))
        return self.head(x)


def build(size: str = "base") -> UNet:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(UNet(WIDTHS[size]))


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    return {"image": seeded.images(str(seed), batch, IMAGE[size])}


def export(
    size: str = "base", batch: int = 1, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch), dtype)
