"""ViT-B/16, "An Image is Worth 16x16 Words" (Dosovitskiy et al., 2020)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from models import seeded

SIZES = {
    "base": {},  # 12 layers, hidden 768, patches of 16 pixels
    "small": {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "image_size": 64,
    },
}


class Vit(nn.Module):
    """Takes images ``[batch, 3, image, image]``; gives logits ``[batch, 1000]``."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.model = ViTForImageClassification(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def config(size: str) -> ViTConfig:
    return ViTConfig(**SIZES[size], num_labels=1000, attn_implementation="sdpa")


def build(size: str = "base") -> Vit:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(Vit(config(size)))


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    return {"pixel_values": seeded.images(str(seed), batch, config(size).image_size)}


def export(
    size: str = "base", batch: int = 1, dtype: str = "float16", dynamic: bool = False
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``.

    With ``dynamic``, one program for every batch up to ``batch``.
    """
    shapes = None
    if dynamic:
        shapes = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=batch)}}
        batch = 2  # an example is traced; a batch of 1 would be taken for a constant
    return seeded.export(build(size), example_inputs(size, batch), dtype, shapes)
