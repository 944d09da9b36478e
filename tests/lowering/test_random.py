"""Random numbers come from the input called ``seed`` and from nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

from simulator.program import run
from tests.lowering import support
from wrapgen.lowering import lower
from wrapgen.target import parse

SIZE = 4096


class Draws(nn.Module):
    def forward(self, x: Tensor, seed: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.rand(SIZE),
            torch.randn(SIZE) + 0 * x[0],
            torch.randint(3, 9, (SIZE,)),
            torch.randperm(100),
            torch.nn.functional.dropout(x, 0.25, True),
            torch.multinomial(torch.tensor([0.0, 0.75, 0.25]).expand(SIZE, 3), 1),
        )


Drawn = dict[int, list[Tensor]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """What is drawn from the seeds 5 and 6."""
    directory: Path = tmp_path_factory.mktemp("random")
    program = support.export(Draws(), (torch.ones(SIZE), torch.tensor(5)))
    weights = support.write_graph(program, directory / "graph.json")
    lowered = lower(directory / "graph.json", parse("sm_90"), directory / "lowered")
    results: Drawn = {}
    for seed in (5, 6, 5):
        inputs = {"x": torch.ones(SIZE), "seed": torch.tensor(seed)}
        found = run(directory / "lowered", weights, inputs)["outputs"]
        values = [found[spec.name] for spec in lowered.outputs]
        for one, same in zip(results.get(seed, values), values, strict=True):
            assert torch.equal(one, same)
        results[seed] = values
    return results


def philox(key: int, counter: int) -> int:
    """The first of four words of Philox-4x32-10: Salmon et al., SC 2011, section 3.3."""
    mask = (1 << 32) - 1
    c = [counter & mask, 0, 0, 0]
    k = [key & mask, key >> 32 & mask]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c[0]


def test_draws_are_functions_of_the_seed(drawn: Drawn) -> None:
    for one, other in zip(drawn[5], drawn[6], strict=True):
        assert not torch.equal(one, other)
    uniform, normal, integers, permutation, dropped, chosen = drawn[5]
    assert float(uniform.min()) >= 0 and float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.02
    assert abs(float(normal.mean())) < 0.06 and abs(float(normal.std()) - 1) < 0.05
    assert sorted(set(integers.tolist())) == [3, 4, 5, 6, 7, 8]
    assert sorted(permutation.tolist()) == list(range(100))
    assert set(dropped.tolist()) == {0.0, float(numpy.float32(1 / 0.75))}
    assert abs(float((dropped > 0).float().mean()) - 0.75) < 0.03
    assert set(chosen.flatten().tolist()) == {1, 2}
    assert abs(float((chosen == 1).float().mean()) - 0.75) < 0.03


def test_the_numbers_are_philox(drawn: Drawn) -> None:
    """The documented key and counter, so that others can draw the same."""
    uniform = drawn[5][0]
    count = 6
    words = [philox(5 * count + 0, j) for j in range(16)]
    signed = [word - (1 << 32) if word >> 31 else word for word in words]
    # Triton's uint_to_uniform_float: the absolute value, negatives shifted by one, by 2^-31 or so.
    expected = [(-w - 1 if w < 0 else w) * 4.6566127342e-10 for w in signed]
    assert torch.allclose(uniform[:16], torch.tensor(expected), rtol=1e-6)
