"""MobileNetV2 (Sandler et al., 2018): inverted residuals with depthwise convolutions."""

from __future__ import annotations

import torch
from torch import nn
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

from models import seeded

SIZES = {
    "base": {},  # width 1.0, 224 pixels
    "small": {"depth_multiplier": 0.35, "image_size": 64},
}


class MobileNet(nn.Module):
    """Takes images ``[batch, 3, image, image]``; gives logits ``[batch, 1000]``."""

    def __init__(self, config: MobileNetV2Config) -> None:
        super().__init__()
        self.model = MobileNetV2ForImageClassification(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def config(size: str) -> MobileNetV2Config:
    return MobileNetV2Config(**SIZES[size], num_labels=1000)


def build(size: str = "base") -> MobileNet:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(MobileNet(config(size)))


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    return {"pixel_values": seeded.images(str(seed), batch, config(size).image_size)}


def export(
    size: str = "base", batch: int = 1, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch), dtype)
