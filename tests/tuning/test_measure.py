"""What counts as right, and as faster."""

from __future__ import annotations

from typing import Any

import pytest

from wrapgen.tuning.driver import packed
from wrapgen.tuning.measure import Effort, Tuner, fault


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool"])
def test_the_same_is_right(dtype: str) -> None:
    assert fault(dtype, 0.0, 1.0, 0.0, 1.0, 0.0) == ""
    assert fault(dtype, 0.0, 0.0, 0.0, 0.0, 0.0) == "", "zeros"


@pytest.mark.parametrize(
    ("dtype", "limit"), [("float16", 2e-3), ("bfloat16", 1.6e-2), ("float32", 1.6e-5)]
)
def test_rounding_is_right_and_more_is_not(dtype: str, limit: float) -> None:
    assert fault(dtype, 0.9 * limit, 1.0, 0.0, 1.0, 0.0) == ""
    assert "the results differ by" in fault(dtype, 1.1 * limit, 1.0, 0.0, 1.0, 0.0)


def test_one_wrong_element_among_millions() -> None:
    assert "an element differs by 0.5" in fault("float16", 0.5, 1e4, 0.5, 4.0, 0.0)


def test_integers_are_the_same_or_wrong() -> None:
    assert fault("int32", 1.0, 1e9, 1.0, 1e9, 1.0) == "1 elements differ"
    # Large ones differ by less than their squares as float32 show.
    assert fault("int64", 0.0, 1e18, 0.0, 1e18, 3.0) == "3 elements differ"


@pytest.mark.parametrize("error", [float("inf"), float("nan")])
def test_what_is_no_number_is_wrong(error: float) -> None:
    assert fault("float16", error, 1.0, 0.0, 1.0, 0.0)
    assert "2 elements are no number" in fault("float16", 0.0, 1.0, 0.0, 1.0, 2.0)


class NoDriver:
    def allocate(self, nbytes: int) -> int:
        return 0


@pytest.mark.parametrize(
    ("found", "default", "faster"),
    [
        ([90, 90, 90], [100, 100, 100], True),
        ([99, 99, 99], [100, 100, 100], False),  # less than 2%
        ([80, 95, 110], [85, 100, 115], False),  # within the noise
        ([110, 110, 110], [100, 100, 100], False),
        ([0, 0, 0], [0, 0, 0], False),
        ([90], [100], True),
    ],
)
def test_faster_by_more_than_the_noise(found: Any, default: Any, faster: bool) -> None:
    class Of:
        l2_bytes = 1

    tuner = Tuner(NoDriver(), Of(), Effort())  # type: ignore[arg-type]
    assert tuner._is_faster(found, default) is faster


def test_numbers_as_kernels_take_them() -> None:
    assert packed("int32", -1) == b"\xff\xff\xff\xff"
    assert packed("int64", 1 << 40) == (1 << 40).to_bytes(8, "little")
    assert packed("float32", (0.5).hex()) == b"\0\0\0\x3f"
