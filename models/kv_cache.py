"""Keys and values of attention as inputs of a program, which writes new ones into them.

A cache is a list of ``{"keys": ..., "values": ...}``, one for each layer, of shape
``[batch, heads, length, head]``. Who calls the program owns the memory: the same tensors go into
prefill, which writes places 0 to sequence - 1, and then into each step of decoding, which writes
one place more.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, StaticLayer

Tensors = list[dict[str, torch.Tensor]]


class _DecodeLayer(StaticLayer):
    """Writes at ``position`` and attends to the whole length; the mask hides later places."""

    def __init__(self, tensors: dict[str, torch.Tensor], position: torch.Tensor) -> None:
        super().__init__(max_cache_len=tensors["keys"].shape[2])
        self.keys, self.values = tensors["keys"], tensors["values"]
        self.dtype, self.device = self.keys.dtype, self.keys.device
        self.cumulative_length = position.clone()  # which update() adds to
        self.is_initialized = True


class _PrefillLayer(StaticLayer):
    """Writes from place 0 on and attends to what is new, which is all there is."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__(max_cache_len=tensors["keys"].shape[2])
        self.keys, self.values = tensors["keys"], tensors["values"]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys[:, :, : key_states.shape[2]] = key_states
        self.values[:, :, : value_states.shape[2]] = value_states
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0


def prefill(tensors: Tensors) -> Cache:
    """The cache of a call that starts a sequence."""
    return Cache(layers=[_PrefillLayer(each) for each in tensors])


def decode(tensors: Tensors, position: torch.Tensor) -> Cache:
    """The cache of a call that goes on at ``position``, int64 ``[]``."""
    return Cache(layers=[_DecodeLayer(each, position) for each in tensors])


def empty(layers: int, shape: tuple[int, ...]) -> Tensors:
    """Zeros, float32, of ``shape`` for each layer."""
    return [{"keys": torch.zeros(shape), "values": torch.zeros(shape)} for _ in range(layers)]
