"""Spelling targets."""

from __future__ import annotations

import pytest

from wrapgen import target
from wrapgen.target import Target, TargetError


@pytest.mark.parametrize("text", ["sm_80", "sm_90", "compute_80", "compute_90"])
def test_spelled_as_parsed(text: str) -> None:
    assert str(target.parse(text)) == text


def test_portable_code_is_lowered_as_machine_code() -> None:
    assert target.parse("compute_90").lowering == Target(90, "sm")
    assert target.parse("sm_90").lowering == Target(90, "sm")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sm_",
        "sm90",
        "sm_9",
        "sm_090",  # one spelling each: files and directories are named by it
        "sm_90a",
        "sm_70",
        "SM_90",
        " sm_90",
        "sm_90\n",
        "sm_" + "9" * 5000,
        "gfx942",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(TargetError, match="expected one of sm_80, compute_80, sm_90, compute_90"):
        target.parse(text)
