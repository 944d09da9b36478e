"""The encoder of Whisper (Radford et al., 2022): two 1d convolutions, then a transformer."""

from __future__ import annotations

import torch
from torch import nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from models import seeded

SIZES = {
    "base": {  # whisper-small: 30 seconds of sound
        "d_model": 768,
        "encoder_layers": 12,
        "encoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
    },
    "small": {
        "d_model": 128,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 256,
        "max_source_positions": 50,
    },
}


class Whisper(nn.Module):
    """Takes log-mel spectra ``[batch, 80, 2 * positions]``.

    Gives hidden states ``[batch, positions, hidden]``.
    """

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.encoder = WhisperEncoder(config)

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_features).last_hidden_state


def config(size: str) -> WhisperConfig:
    return WhisperConfig(**SIZES[size], attn_implementation="sdpa")


def build(size: str = "base") -> Whisper:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(Whisper(config(size)))


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    shape = (batch, config(size).num_mel_bins, 2 * config(size).max_source_positions)
    return {"input_features": seeded.noise(f"whisper:{seed}", shape)}


def export(
    size: str = "base", batch: int = 1, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch), dtype)
