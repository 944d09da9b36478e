"""T5 (Raffel et al., 2019): an encoder and a decoder with relative position biases."""

from __future__ import annotations

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from models import seeded

SIZES = {
    "base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},  # t5-base
    "small": {
        "d_model": 128,
        "d_ff": 256,
        "d_kv": 32,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 1024,
    },
}


class T5(nn.Module):
    """Takes token ids and a mask (1: a token, 0: padding), both int64 ``[batch, sequence]``, and
    what the decoder has written so far, int64 ``[batch, target]``.

    Gives logits ``[batch, target, vocabulary]``.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.model = T5ForConditionalGeneration(config)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        decoder_input_ids: torch.Tensor,
    ) -> torch.Tensor:
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            use_cache=False,
        ).logits


def config(size: str) -> T5Config:
    return T5Config(**SIZES[size], attn_implementation="sdpa")


def build(size: str = "base") -> T5:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    model = seeded.fill(T5(config(size)))
    # T5 does not divide scores by the root of the head's size: its queries are small instead.
    for name, parameter in model.named_parameters():
        if name.endswith(".q.weight"):
            parameter.mul_(config(size).d_kv ** -0.5)
    return model


def example_inputs(
    size: str = "base", batch: int = 1, sequence: int = 128, target: int = 32, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``; the last sequence of the batch ends in padding."""
    vocabulary = config(size).vocab_size
    mask = torch.ones((batch, sequence), dtype=torch.int64)
    mask[-1, sequence - sequence // 4 :] = 0
    return {
        "input_ids": seeded.integers(f"t5:{seed}", (batch, sequence), vocabulary),
        "attention_mask": mask,
        "decoder_input_ids": seeded.integers(f"t5 target:{seed}", (batch, target), vocabulary),
    }


def export(
    size: str = "base",
    batch: int = 1,
    sequence: int = 128,
    target: int = 32,
    dtype: str = "bfloat16",
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch, sequence, target), dtype)
