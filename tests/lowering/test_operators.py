"""Each operator of the core ATen set is lowered and right, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from simulator.program import run
from tests.lowering import core_aten, support
from wrapgen.lowering import lower
from wrapgen.target import parse

ROOT = Path(__file__).resolve().parents[2]
GROUP = 23
"""Operators in one model: Inductor fuses what it can, as in any model."""


class Calls(nn.Module):
    """Calls operators with its inputs in the places of their tensors."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        self.specs: list[Any] = []
        self.fixed: list[list[Any]] = []
        self.tensors: list[Tensor] = []
        for name in names:
            call = core_aten.CALLS[name]
            leaves, spec = pytree.tree_flatten((call.args, dict(call.kwargs)))
            self.specs.append(spec)
            self.fixed.append([None if isinstance(leaf, Tensor) else leaf for leaf in leaves])
            # Each result is distinct from the others' inputs, so nothing is shared by accident.
            self.tensors += [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            self.places = getattr(self, "places", []) + [
                [n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
            ]

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        rest = iter(tensors)
        results: list[Tensor] = []
        for name, spec, fixed, places in zip(
            self.names, self.specs, self.fixed, self.places, strict=True
        ):
            leaves = list(fixed)
            for place in places:
                leaves[place] = next(rest)
            args, kwargs = pytree.tree_unflatten(leaves, spec)
            result = core_aten.operator(name)(*args, **kwargs)
            found = list(result) if isinstance(result, (tuple, list)) else [result]
            only = core_aten.CALLS[name].only or range(len(found))
            # A view of an input is a copy here: whose memory it is, test_inputs.py asks.
            results += [found[n].clone() for n in only]
        return results


def _groups() -> list[list[str]]:
    names = sorted(core_aten.CALLS)
    return [names[n : n + GROUP] for n in range(0, len(names), GROUP)]


@pytest.mark.parametrize("names", _groups(), ids=lambda names: names[0])
def test_operators_compute_what_eager_computes(names: list[str], tmp_path: Path) -> None:
    module = Calls(names)
    program = support.export(module, tuple(module.tensors))
    weights = support.write_graph(program, tmp_path / "graph.json")
    lowered = lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "lowered")
    inputs = {spec.name: t for spec, t in zip(lowered.inputs, module.tensors, strict=True)}
    found = run(tmp_path / "lowered", weights, inputs)["outputs"]
    expected = module(*module.tensors)
    owners = [
        name
        for name in names
        for _ in range(len(core_aten.CALLS[name].only) or len(pytree.tree_leaves(_call(name))))
    ]
    wrong = []
    for spec, owner, value in zip(lowered.outputs, owners, expected, strict=True):
        try:
            tolerance = 2e-3 if owner in _TF32 else 2e-5
            torch.testing.assert_close(
                found[spec.name],
                value,
                rtol=tolerance,
                atol=tolerance,
                equal_nan=True,
                check_stride=False,
            )
        except AssertionError as error:
            wrong.append(f"aten.{owner}: {error}")
    assert not wrong, "\n\n".join(wrong)


def _call(name: str) -> Any:
    call = core_aten.CALLS[name]
    return core_aten.operator(name)(*call.args, **call.kwargs)


_TF32 = ("addmm.default", "bmm.default", "mm.default", "convolution.default")
"""What products of matrices are made of; Triton's dot may round their operands to TF32."""


def test_every_core_operator_has_a_state() -> None:
    named = [*core_aten.CALLS, *core_aten.ELSEWHERE, *core_aten.REFUSED]
    assert sorted(named) == core_aten.core()


def test_the_table_is_up_to_date() -> None:
    assert (ROOT / "docs" / "operators.md").read_text() == core_aten.table(), (
        "run `python -m tests.lowering.core_aten > docs/operators.md`"
    )
