"""GPT-2 (Radford et al., 2019): prefill, and decoding with a cache that is updated in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from models import causal, seeded

SIZES = {
    "base": {},  # 12 layers, hidden 768: gpt2, 124 million parameters
    "small": {
        "n_layer": 2,
        "n_embd": 128,
        "n_head": 4,
        "n_positions": 128,
        "vocab_size": 1024,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}


def build(size: str = "base", decode: bool = False) -> nn.Module:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    model = GPT2LMHeadModel(GPT2Config(**SIZES[size], attn_implementation="sdpa"))
    return seeded.fill(causal.Decode(model) if decode else causal.Prefill(model))


def example_inputs(
    size: str = "base",
    decode: bool = False,
    batch: int = 1,
    sequence: int = 128,
    length: int = 1024,
    seed: int = 0,
) -> dict[str, Any]:
    """Draws the arguments of ``forward``; see ``causal.example_inputs``."""
    config = GPT2Config(**SIZES[size])
    return causal.example_inputs(config, decode, batch, sequence, length, seed)


def export(
    size: str = "base",
    decode: bool = False,
    batch: int = 1,
    sequence: int = 128,
    length: int = 1024,
    dtype: str = "float16",
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``: prefill of ``sequence`` tokens, or a step of decoding.

    Both take a cache of ``length`` places.
    """
    inputs = example_inputs(size, decode, batch, sequence, length)
    return seeded.export(build(size, decode), inputs, dtype)
