"""A recommender of embedding bags and dot products, after DLRM (Naumov et al., 2019)."""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import nn

from models import seeded


@dataclasses.dataclass(frozen=True)
class Size:
    """``tables`` embeddings of ``rows`` rows each; layers of the two perceptrons."""

    tables: int
    rows: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]


SIZES = {
    # The Criteo Kaggle model of the DLRM repository, with tables of equal and fewer rows.
    "base": Size(26, 50_000, (13, 512, 256, 64), (512, 256, 1)),
    "small": Size(4, 100, (13, 32, 16), (32, 1)),
}


def perceptron(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Dlrm(nn.Module):
    """Takes ``dense`` features ``[batch, 13]`` and, for each table, a bag of row numbers: int64
    ``[tables, batch, bag]``.

    Gives the probability of a click, ``[batch]``.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        width, vectors = size.bottom[-1], size.tables + 1
        self.bottom = perceptron(size.bottom)
        self.tables = nn.ModuleList(
            nn.EmbeddingBag(size.rows, width, mode="sum") for _ in range(size.tables)
        )
        self.top = perceptron((width + vectors * (vectors - 1) // 2, *size.top))
        row, column = torch.tril_indices(vectors, vectors, offset=-1)
        self.register_buffer("pairs", row * vectors + column, persistent=False)

    def forward(self, dense: torch.Tensor, bags: torch.Tensor) -> torch.Tensor:
        x = self.bottom(dense)
        sums = [table(bags[i]) for i, table in enumerate(self.tables)]
        vectors = torch.stack([x, *sums], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        interactions = products.index_select(1, self.pairs)
        return torch.sigmoid(self.top(torch.cat([x, interactions], dim=1))).squeeze(1)


def build(size: str = "base") -> Dlrm:
    """Builds the network in float32 on the CPU, in evaluation mode, with seeded weights."""
    return seeded.fill(Dlrm(SIZES[size]))


def example_inputs(
    size: str = "base", batch: int = 128, bag: int = 4, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``; ``dense`` is float32."""
    shape = (SIZES[size].tables, batch, bag)
    return {
        "dense": seeded.noise(f"dense:{seed}", (batch, SIZES[size].bottom[0])),
        "bags": seeded.integers(f"bags:{seed}", shape, SIZES[size].rows),
    }


def export(
    size: str = "base", batch: int = 128, bag: int = 4, dtype: str = "float16"
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``."""
    return seeded.export(build(size), example_inputs(size, batch, bag), dtype)
