"""What a test prints and reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from aoti.testing.report import Report
from tools.ci import summary


def test_lines_and_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = Report("//models:net_test")
    assert report.check("load", "took sm_90")
    assert not report.check("seed 0", "fine", "y: wrong\nsecond line \x00")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("passed  load: took sm_90  [")
    assert said[1].startswith("FAILED  seed 0  [")
    assert said[2:] == ["        y: wrong", "        second line \x00"]
    assert report.summary() == "1 passed, 1 failed"
    assert not report.passed
    report.write(tmp_path / "test.xml")
    count = summary.read_report(tmp_path / "test.xml")
    assert (count.passed, count.failed, count.skipped) == (1, 1, 0)
    assert "second line ?" in (tmp_path / "test.xml").read_text()


def test_nothing_checked_is_no_pass() -> None:
    assert not Report("x").passed
