"""What passes for right, and what does not."""

from __future__ import annotations

import pytest
import torch

from aoti.testing.compare import compare, floor_of, table

torch.manual_seed(0)
EXACT = torch.randn(50, 40, dtype=torch.float64)
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", FLOATS)
def test_rounding_is_right(dtype: torch.dtype) -> None:
    got = EXACT.to(dtype)
    assert compare("x", got, got, EXACT).passed
    # A rounding more than eager's.
    assert compare("x", (got * (1 + torch.finfo(dtype).eps)).to(dtype), got, EXACT).passed


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_wrong_element_is_found_and_named(dtype: torch.dtype) -> None:
    eager = EXACT.to(dtype)
    got = eager.clone()
    got[17, 3] += 0.25
    row = compare("x", got, eager, EXACT)
    assert not row.passed
    assert "first wrong element [17, 3]" in row.fault
    assert "1 of 2000 elements beyond it" in row.fault


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_wrong_scale_is_found(dtype: torch.dtype) -> None:
    eager = EXACT.to(dtype)
    assert not compare("x", (eager * 1.05).to(dtype), eager, EXACT).passed


def test_eagers_own_error_widens_the_limit() -> None:
    eager = (EXACT * 1.01).to(torch.float32)
    got = (EXACT * 1.015).to(torch.float32)
    assert compare("x", got, eager, EXACT).passed
    assert not compare("x", got, EXACT.float(), EXACT).passed
    assert not compare("x", got, eager, EXACT, tolerance=1e-3).passed
    assert compare("x", got, EXACT.float(), EXACT, tolerance=2e-2).passed


def test_floor_grows_with_the_roundings() -> None:
    floors = [floor_of(dtype) for dtype in (torch.float64, torch.float32, *FLOATS[:2])]
    assert floors == sorted(floors)
    assert floors[-1] < 0.02


def test_nothing_but_zeros() -> None:
    zero = torch.zeros(8)
    assert compare("x", zero, zero, zero.double()).passed
    assert not compare("x", zero + 0.1, zero, zero.double()).passed


def test_integers_are_exact() -> None:
    eager = torch.arange(10)
    assert compare("x", eager, eager, eager).passed
    got = eager.clone()
    got[4] = 7
    row = compare("x", got, eager, eager)
    assert row.fault == "1 of 10 elements differ, first [4]: 7 for 4"
    # Where eager and the exact run differ, rounding decides, and nobody knows better.
    assert compare("x", got, eager, got).passed
    other = eager.clone()
    other[5] = 0
    assert not compare("x", got, eager, other).passed


def test_bool() -> None:
    yes = torch.tensor([True, False])
    assert compare("x", yes, yes, yes).passed
    assert not compare("x", ~yes, yes, yes).passed


def test_not_finite_as_in_eager() -> None:
    inf, nan = float("inf"), float("nan")
    eager = torch.tensor([1.0, inf, -inf, nan])
    assert compare("x", eager, eager, eager.double()).passed
    for i, value in [(0, nan), (0, inf), (1, -inf), (1, nan), (3, 0.0), (1, 0.0)]:
        got = eager.clone()
        got[i] = value
        row = compare("x", got, eager, eager.double())
        assert f"first [{i}]" in row.fault
    # Eager overflowed in half precision; ours, fused, did not.
    half = torch.tensor([inf, 1.0], dtype=torch.half)
    ours = torch.tensor([65504.0, 1.0], dtype=torch.half)
    assert compare("x", ours, half, torch.tensor([65510.0, 1.0])).passed


def test_other_dtype_or_shape() -> None:
    value = torch.zeros(3)
    assert "eager gives float64[3]" in compare("x", value, value.double(), value).fault
    assert "eager gives float32[1, 3]" in compare("x", value, value[None], value).fault


def test_empty() -> None:
    empty = torch.empty(0, 3)
    assert compare("x", empty, empty, empty.double()).passed


def test_table() -> None:
    got = torch.ones(2)
    rows = [compare("good", got, got, got), compare("bad", got, got, got * 2, tolerance=0.1)]
    lines = table(rows).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("bad     float32[2]  5.00e-01  1.00e-01")
    assert lines[2].endswith("WRONG")
