"""Bags of rows of a table: by a matrix of indices, and by offsets."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from simulator.program import run
from tests.lowering import support
from wrapgen.lowering import lower
from wrapgen.target import parse


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sums = nn.EmbeddingBag(20, 8, mode="sum")
        self.means = nn.EmbeddingBag(20, 8, mode="mean", padding_idx=3)
        self.last = nn.EmbeddingBag(20, 8, mode="mean", include_last_offset=True)
        self.greatest = nn.EmbeddingBag(20, 8, mode="max")

    def forward(
        self, matrix: Tensor, flat: Tensor, offsets: Tensor, factors: Tensor
    ) -> list[Tensor]:
        return [
            self.sums(matrix),
            self.means(matrix),
            self.sums(matrix, per_sample_weights=factors),
            self.last(flat, offsets),
            self.sums(flat, offsets[:-1]),
            self.greatest(matrix),
        ]


def test_bags_are_what_eager_computes(tmp_path: Path) -> None:
    module = Bags().eval()
    args = (
        torch.tensor([[3, 3, 3, 3], [3, 1, 2, 19], [0, 1, 2, 3], [7, 7, 7, 7], [5, 6, 3, 4]]),
        torch.tensor([1, 2, 2, 5, 19, 0, 7, 4, 4]),
        torch.tensor([0, 2, 2, 7, 9]),
        torch.rand(5, 4),
    )
    weights = support.write_graph(support.export(module, args), tmp_path / "graph.json")
    program = lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "out")
    inputs = {spec.name: value for spec, value in zip(program.inputs, args, strict=True)}
    found = run(tmp_path / "out", weights, inputs)["outputs"]
    for spec, expected in zip(program.outputs, module(*args), strict=True):
        torch.testing.assert_close(found[spec.name], expected)


class Matrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(50, 8, mode="sum")

    def forward(self, matrix: Tensor) -> Tensor:
        bags: Tensor = self.table(matrix)
        return bags


def test_bags_of_one_size_read_their_own_indices_only(tmp_path: Path) -> None:
    """A pass over all indices for each bag made a recommender four times slower."""
    module = Matrix().eval()
    args = (torch.randint(0, 50, (64, 4)),)
    support.write_graph(support.export(module, args), tmp_path / "graph.json")
    program = lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "out")
    (kernel,) = program.kernels
    assert kernel.name.startswith("pointwise_"), "a reduction over all indices"
