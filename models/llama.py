"""A Llama-style model (Touvron et al., 2023): rotary embeddings, grouped queries, RMS norm, SwiGLU.

The base size is that of SmolLM2-360M.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from models import causal, seeded

SIZES = {
    "base": {
        "num_hidden_layers": 32,
        "hidden_size": 960,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "head_dim": 64,
        "intermediate_size": 2560,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "tie_word_embeddings": True,
    },
    "small": {
        "num_hidden_layers": 2,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "intermediate_size": 384,
        "vocab_size": 1024,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
}


def build(size: str = "base", decode: bool = False) -> nn.Module:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    model = LlamaForCausalLM(LlamaConfig(**SIZES[size], attn_implementation="sdpa"))
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
    config = LlamaConfig(**SIZES[size])
    return causal.example_inputs(config, decode, batch, sequence, length, seed)


def export(
    size: str = "base",
    decode: bool = False,
    batch: int = 1,
    sequence: int = 128,
    length: int = 1024,
    dtype: str = "bfloat16",
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``: prefill of ``sequence`` tokens, or a step of decoding.

    Both take a cache of ``length`` places.
    """
    inputs = example_inputs(size, decode, batch, sequence, length)
    return seeded.export(build(size, decode), inputs, dtype)
