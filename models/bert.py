"""BERT (Devlin et al., 2018), the encoder as ``transformers`` has it."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, BertConfig, BertModel
from transformers.masking_utils import sdpa_mask

from models import seeded

ATTENTION = "sdpa_of_any_length"
"""``transformers``' own, "sdpa", asks whether there is more than one query even where a mask is
given: an export would serve no sequence of one token."""

SIZES = {
    "base": {},  # 12 layers, hidden 768: bert-base-uncased
    "small": {
        "num_hidden_layers": 2,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "vocab_size": 1024,
        "max_position_embeddings": 128,
    },
}


def _attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_options: object,
) -> tuple[torch.Tensor, None]:
    """Attention of all tokens to all that are not masked, as ``[batch, sequence, heads, head]``."""
    result = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return result.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


class Bert(nn.Module):
    """Takes token ids and a mask (1: a token, 0: padding), both int64 ``[batch, sequence]``.

    Gives the last hidden states ``[batch, sequence, hidden]`` and the pooled output
    ``[batch, hidden]``.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bert = BertModel(config)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        result = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return result.last_hidden_state, result.pooler_output


def build(size: str = "base") -> Bert:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(Bert(BertConfig(**SIZES[size], attn_implementation=ATTENTION)))


def example_inputs(
    size: str = "base", batch: int = 1, sequence: int = 128, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``; the last sequence of the batch ends in padding."""
    vocabulary = BertConfig(**SIZES[size]).vocab_size
    mask = torch.ones((batch, sequence), dtype=torch.int64)
    mask[-1, sequence - sequence // 4 :] = 0
    return {
        "input_ids": seeded.integers(f"bert:{seed}", (batch, sequence), vocabulary),
        "attention_mask": mask,
    }


def export(
    size: str = "base",
    batch: int = 1,
    sequence: int = 128,
    dtype: str = "float16",
    dynamic: bool = False,
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``.

    With ``dynamic``, one program for every batch up to ``batch`` and sequence up to ``sequence``.
    """
    shapes = None
    if dynamic:
        dims = {
            0: torch.export.Dim("batch", min=1, max=batch),
            1: torch.export.Dim("tokens", min=1, max=sequence),
        }
        shapes = {"input_ids": dims, "attention_mask": dims}
        # An example is traced; sizes of 0 and 1 would be taken for constants.
        batch, sequence = min(batch, 3), min(sequence, 24)
    return seeded.export(build(size), example_inputs(size, batch, sequence), dtype, shapes)
