"""SegFormer (Xie et al., 2021): segmentation, with interpolation between resolutions."""

from __future__ import annotations

import torch
from torch import nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from models import seeded

SIZES = {
    "base": {"num_labels": 150},  # segformer-b0-finetuned-ade-512-512
    "small": {
        "num_labels": 10,
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [16, 32, 48, 64],
        "num_attention_heads": [1, 2, 3, 4],
        "decoder_hidden_size": 64,
    },
}
IMAGE = {"base": 512, "small": 64}
"""Height and width of the input in pixels."""


class Segformer(nn.Module):
    """Takes images ``[batch, 3, image, image]``; gives logits ``[batch, labels, image, image]``."""

    def __init__(self, config: SegformerConfig) -> None:
        super().__init__()
        self.model = SegformerForSemanticSegmentation(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        logits = self.model(pixel_values).logits
        size = pixel_values.shape[2:]
        return nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)


def build(size: str = "base") -> Segformer:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(Segformer(SegformerConfig(**SIZES[size], attn_implementation="sdpa")))


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    return {"pixel_values": seeded.images(str(seed), batch, IMAGE[size])}


def export(
    size: str = "base", batch: int = 1, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch), dtype)
