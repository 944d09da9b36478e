"""Swin Transformer, tiny (Liu et al., 2021): attention in shifted windows."""

from __future__ import annotations

import torch
from torch import nn
from transformers import SwinConfig, SwinForImageClassification

from models import seeded

SIZES = {
    "base": {},  # swin-tiny: 2, 2, 6 and 2 blocks, windows of 7 by 7 patches
    "small": {"embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "image_size": 56},
}


class Swin(nn.Module):
    """Takes images ``[batch, 3, image, image]``; gives logits ``[batch, 1000]``."""

    def __init__(self, config: SwinConfig) -> None:
        super().__init__()
        self.model = SwinForImageClassification(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def config(size: str) -> SwinConfig:
    return SwinConfig(**SIZES[size], num_labels=1000, attn_implementation="sdpa")


def build(size: str = "base") -> Swin:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(Swin(config(size)))


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    return {"pixel_values": seeded.images(str(seed), batch, config(size).image_size)}


def export(
    size: str = "base", batch: int = 1, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch), dtype)
