"""What GPT-2 and Llama share: a causal language model of ``transformers`` with its cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models import kv_cache, seeded


class Prefill(nn.Module):
    """Takes token ids, int64 ``[batch, sequence]``, and writes keys and values into ``cache``.

    Gives the logits of the last token, ``[batch, vocabulary]``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, cache: kv_cache.Tensors) -> torch.Tensor:
        past = kv_cache.prefill(cache)
        return self.model(input_ids, past_key_values=past, logits_to_keep=1).logits[:, 0]


class Decode(nn.Module):
    """Takes one token a sequence, int64 ``[batch, 1]``, and its ``position``, int64 ``[]``.

    Attends to the places of ``cache`` before it, writes its own, and gives the logits of the next
    token, ``[batch, vocabulary]``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, position: torch.Tensor, cache: kv_cache.Tensors
    ) -> torch.Tensor:
        past = kv_cache.decode(cache, position)
        return self.model(input_ids, past_key_values=past).logits[:, 0]


def example_inputs(
    config: Any, decode: bool, batch: int, sequence: int, length: int, seed: int
) -> dict[str, Any]:
    """Draws the arguments of ``Prefill`` or, as if ``sequence`` tokens had gone before, ``Decode``.

    ``length`` is that of the cache. Floating-point tensors are float32.
    """
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    head = config.hidden_size // config.num_attention_heads
    cache = kv_cache.empty(config.num_hidden_layers, (batch, heads, length, head))
    tokens = (batch, 1 if decode else sequence)
    inputs: dict[str, Any] = {
        "input_ids": seeded.integers(f"tokens:{seed}", tokens, config.vocab_size)
    }
    if decode:
        inputs["position"] = torch.tensor(sequence)
        for layer, tensors in enumerate(cache):
            for kind, tensor in tensors.items():
                past = (batch, heads, sequence, head)
                tensor[:, :, :sequence] = seeded.noise(f"{kind}:{layer}:{seed}", past)
    return inputs | {"cache": cache}
