"""A language model of two LSTM layers (Hochreiter and Schmidhuber, 1997; Zaremba et al., 2014)."""

from __future__ import annotations

import torch
from torch import nn

from models import seeded

SIZES = {"base": (512, 10000), "small": (64, 256)}
"""Hidden units and vocabulary."""

LAYERS = 2


class Lstm(nn.Module):
    """Takes token ids, int64 ``[batch, sequence]``, and the state so far: ``hidden`` and ``cell``,
    each ``[layers, batch, units]``.

    Gives logits ``[batch, sequence, vocabulary]`` and the new state.
    """

    def __init__(self, units: int, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, units)
        self.lstm = nn.LSTM(units, units, LAYERS, batch_first=True)
        self.head = nn.Linear(units, vocabulary)

    def forward(
        self, tokens: torch.Tensor, hidden: torch.Tensor, cell: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        out, (hidden, cell) = self.lstm(self.embedding(tokens), (hidden, cell))
        return self.head(out), hidden, cell


def build(size: str = "base") -> Lstm:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(Lstm(*SIZES[size]))


def example_inputs(
    size: str = "base", batch: int = 1, sequence: int = 32, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``; the state is float32."""
    units, vocabulary = SIZES[size]
    state = (LAYERS, batch, units)
    return {
        "tokens": seeded.integers(f"lstm:{seed}", (batch, sequence), vocabulary),
        "hidden": seeded.uniform(f"hidden:{seed}", state),
        "cell": seeded.uniform(f"cell:{seed}", state),
    }


def export(
    size: str = "base", batch: int = 1, sequence: int = 32, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch, sequence), dtype)
