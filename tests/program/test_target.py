"""Spelling targets."""

from __future__ import annotations

import pytest

from wrapgen import target
from wrapgen.target import Target, TargetError


@pytest.mark.parametrize("text", sorted(target.KNOWN))
def test_spelled_as_parsed(text: str) -> None:
    assert str(target.parse(text)) == text


def test_portable_code_is_lowered_as_machine_code() -> None:
    assert target.parse("compute_90").lowering == Target(90, "sm")
    assert target.parse("sm_90").lowering == Target(90, "sm")


def test_amds_architectures_are_numbers_in_hexadecimal() -> None:
    parsed = target.parse("gfx90a")
    assert parsed == Target(0x90A, "gfx") and parsed.lowering == parsed
    assert parsed.device.architecture == "gfx90a" and parsed.device.warp_size == 64


def test_a_model_is_for_one_platform() -> None:
    assert target.platform_of(map(target.parse, ("sm_80", "compute_90"))) == "cuda"
    assert target.platform_of(map(target.parse, ("gfx90a", "gfx942"))) == "hip"
    with pytest.raises(TargetError) as caught:
        target.platform_of(map(target.parse, ("sm_90", "gfx942", "compute_90")))
    assert str(caught.value) == (
        "targets sm_90, compute_90 run on NVIDIA's GPUs and gfx942 on AMD's: a library calls one "
        "vendor's driver; build one for each"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sm_",
        "sm90",
        "sm_9",
        "sm_090",  # one spelling each: files and directories are named by it
        "sm_90a",
        "sm_75",
        "sm_103",
        "SM_90",
        " sm_90",
        "sm_90\n",
        "sm_" + "9" * 5000,
        "gfx_942",
        "gfx90A",
        "gfx1100",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(
        TargetError,
        match=r"expected one of sm_80, compute_80, sm_86, .*, compute_120, gfx90a, gfx942$",
    ):
        target.parse(text)
