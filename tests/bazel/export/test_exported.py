"""What ``aoti_export`` wrote."""

from __future__ import annotations

from pathlib import Path

import torch


def test_the_program_is_that_of_the_entry_point() -> None:
    program = torch.export.load(Path("tests/bazel/export/model_pt2.pt2"))
    output = program.module()(torch.ones(1, 4))
    assert output.tolist() == [[4.0, 4.0, 4.0, 4.0]]
