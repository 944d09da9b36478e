"""ConvNeXt, tiny (Liu et al., 2022): depthwise 7x7 convolutions and matrix products."""

from __future__ import annotations

import torch
from torch import nn
from transformers import ConvNextConfig, ConvNextForImageClassification

from models import seeded

SIZES = {
    "base": {},  # convnext-tiny: 3, 3, 9 and 3 blocks
    "small": {"depths": [1, 1, 2, 1], "hidden_sizes": [32, 64, 96, 128], "image_size": 64},
}


class ConvNext(nn.Module):
    """Takes images ``[batch, 3, image, image]``; gives logits ``[batch, 1000]``."""

    def __init__(self, config: ConvNextConfig) -> None:
        super().__init__()
        self.model = ConvNextForImageClassification(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def config(size: str) -> ConvNextConfig:
    return ConvNextConfig(**SIZES[size], num_labels=1000)


def build(size: str = "base") -> ConvNext:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(ConvNext(config(size)))


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    return {"pixel_values": seeded.images(str(seed), batch, config(size).image_size)}


def export(
    size: str = "base", batch: int = 1, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch), dtype)
