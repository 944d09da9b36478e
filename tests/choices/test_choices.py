"""Ranking of Inductor's candidates, and the configurations of generated kernels."""

from __future__ import annotations

import itertools
import types
from typing import Any

import pytest
import torch
import triton

from wrapgen.lowering import choices
from wrapgen.lowering.templates import cost
from wrapgen.target import DEVICES

H100 = DEVICES[90]


class Candidate:
    """As much of Inductor's ``ChoiceCaller`` as ranking looks at."""

    def __init__(
        self, tile: tuple[int, int, int], stages: int, warps: int, kernel: int = 0, **info: Any
    ) -> None:
        m, n, k = tile
        self.name = f"candidate_{m}_{n}_{k}_{stages}_{warps}"
        self.annotations: dict[str, Any] = {}
        self.info = {
            "backend": "Triton",
            "tile_shape": str((m, k, n)),
            "num_stages": stages,
            "num_warps": warps,
            **({"KERNEL_H": kernel, "KERNEL_W": kernel, "GROUPS": 1} if kernel else {}),
            **info,
        }

    def info_dict(self) -> dict[str, Any]:
        return self.info


def node(*size: int) -> Any:
    return types.SimpleNamespace(
        get_size=lambda: size,
        get_dtype=lambda: torch.float16,
    )


def rank(candidates: list[Candidate], kernel: bool = False) -> list[str]:
    if kernel:
        operands = [node(32, 256, 14, 14), node(256, 256, 3, 3)]
        layout = types.SimpleNamespace(size=(32, 256, 14, 14))
    else:
        operands = [node(4096, 1024), node(1024, 4096)]
        layout = types.SimpleNamespace(size=(4096, 4096))
    ranked = choices.select("site", operands, layout, candidates, H100)
    return [candidate.name for candidate in ranked]


def test_order_of_the_offer_does_not_matter() -> None:
    offered = [
        Candidate((128, 128, 64), 3, 8),
        Candidate((16, 16, 16), 2, 2),
        Candidate((64, 64, 32), 4, 4),
        Candidate((64, 64, 32), 3, 4),
    ]
    results = {tuple(rank(list(order))) for order in itertools.permutations(offered)}
    assert len(results) == 1
    assert results.pop()[0] == "candidate_128_128_64_3_8"


def test_eight_warps_are_excluded_for_large_kernels() -> None:
    eight, four = Candidate((128, 128, 64), 3, 8, kernel=3), Candidate((64, 64, 32), 3, 4, kernel=3)
    assert rank([eight, four], kernel=True) == [four.name]
    one = Candidate((128, 128, 64), 3, 8, kernel=1)
    assert one.name in rank([one, four], kernel=True)


def test_what_does_not_fit_is_excluded() -> None:
    large, small = Candidate((128, 128, 128), 5, 8), Candidate((64, 64, 32), 3, 4)
    assert rank([large, small]) == [small.name]


def test_library_calls_are_no_candidates_and_the_error_says_so() -> None:
    library = Candidate((64, 64, 32), 3, 4, backend="extern")
    with pytest.raises(choices.NoChoiceError, match="calls a library"):
        rank([library, Candidate((128, 128, 128), 5, 8)])
    with pytest.raises(choices.NoChoiceError, match="none was offered"):
        rank([])


def test_own_candidate_is_taken_as_it_is() -> None:
    own = Candidate((64, 64, 32), 3, 4)
    own.annotations[cost.TILE] = None
    assert rank([own]) == [own.name]


def config(warps: int = 4, stages: int = 1, **kwargs: int) -> Any:
    return triton.Config(kwargs, num_warps=warps, num_stages=stages)


def pick(heuristic: str, hints: dict[str, int], *configs: Any, **meta: Any) -> dict[str, int]:
    meta = {"heuristic": heuristic, "size_hints": hints, **meta}
    picked = {
        str(choices.select_config(meta, list(order), H100))
        for order in itertools.permutations(configs)
    }
    assert len(picked) == 1, "the order of the offer matters"
    best = choices.select_config(meta, configs, H100)
    assert set(best.kwargs) == set(configs[0].kwargs)
    assert 1 <= best.num_warps <= 32
    return {**best.kwargs, "warps": best.num_warps}


def test_large_pointwise_kernels_do_four_elements_a_thread() -> None:
    offered = config(XBLOCK=1024), config(8, XBLOCK=256)
    assert pick("pointwise", {"x": 1 << 22}, *offered) == {"XBLOCK": 512, "warps": 4}


def test_small_pointwise_kernels_use_more_programs() -> None:
    offered = config(XBLOCK=1024), config(8, XBLOCK=256)
    assert pick("pointwise", {"x": 1 << 14}, *offered) == {"XBLOCK": 128, "warps": 4}


@pytest.mark.parametrize("y", [1, 2, 4, 16, 128])
@pytest.mark.parametrize("x", [2, 64, 65536])
def test_tiles_stay_inside_their_extents(x: int, y: int) -> None:
    offered = config(XBLOCK=32, YBLOCK=32), config(XBLOCK=16, YBLOCK=256)
    best = pick("pointwise", {"x": x, "y": y}, *offered)
    assert best["XBLOCK"] <= x
    assert best["YBLOCK"] <= y
    assert best["XBLOCK"] * best["YBLOCK"] <= 1024


def test_outer_reduction_adds_up_within_threads() -> None:
    offered = config(8, XBLOCK=1), config(8, XBLOCK=32)
    hints = {"x": 65536, "r0_": 64}
    best = pick("persistent_reduction", hints, *offered, reduction_hint="ReductionHint.OUTER")
    assert best == {"XBLOCK": 32, "warps": 1}


def test_inner_reduction_is_one_of_those_offered() -> None:
    offered = config(8, XBLOCK=1), config(8, XBLOCK=8)
    hints = {"x": 4096, "r0_": 1024}
    best = pick("persistent_reduction", hints, *offered, reduction_hint="ReductionHint.INNER")
    assert best in [{"XBLOCK": 1, "warps": 8}, {"XBLOCK": 8, "warps": 8}]


def test_other_kernels_get_an_offered_configuration() -> None:
    offered = config(XBLOCK=1, R0_BLOCK=2048), config(XBLOCK=8, R0_BLOCK=256)
    best = pick("reduction", {"x": 512, "r0_": 1 << 16}, *offered)
    assert best in [
        {"XBLOCK": 1, "R0_BLOCK": 2048, "warps": 4},
        {"XBLOCK": 8, "R0_BLOCK": 256, "warps": 4},
    ]
    with pytest.raises(choices.NoChoiceError):
        choices.select_config({"size_hints": {}}, [], H100)
