"""How CI counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, "tools/ci")

import summary

PYTEST = """\
<testsuites><testsuite>
<testcase name="a"/>
<testcase name="b"><failure message="x"/></testcase>
<testcase name="c"><skipped/></testcase>
<testcase name="d"/>
</testsuite></testsuites>"""

BAZEL = '<testsuites><testsuite><testcase name="x" status="run"/></testsuite></testsuites>'


def events(tmp_path: Path, tests: dict[str, tuple[str, list[str]]], unbuilt: list[str]) -> Path:
    """Writes a build event file of {label: (status, reports)} and of tests that were not built."""
    lines: list[dict[str, Any]] = [{"id": {"started": {}}, "started": {}}]
    for label, (status, reports) in tests.items():
        for i, report in enumerate(reports):
            path = tmp_path / f"{label.strip('/').replace(':', '_')} {i}.xml"
            path.write_text(report)
            output = [{"name": "test.log", "uri": "file:///x"}]
            output.append({"name": "test.xml", "uri": path.as_uri()})
            identity = {"testResult": {"label": label, "shard": i + 1}}
            lines.append({"id": identity, "testResult": {"testActionOutput": output}})
        identity = {"testSummary": {"label": label}}
        lines.append({"id": identity, "testSummary": {"overallStatus": status}})
        lines.append({"id": {"targetCompleted": {"label": label}}, "completed": {"success": True}})
    lines += [{"id": {"targetCompleted": {"label": label}}, "completed": {}} for label in unbuilt]
    file = tmp_path / "events.json"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def count(file: Path) -> str:
    return str(sum((cases for _, cases in summary.read_events(file)), summary.Count()))


def test_cases_are_counted_over_shards(tmp_path: Path) -> None:
    file = events(tmp_path, {"//a:t": ("FAILED", [PYTEST, PYTEST])}, [])
    assert count(file) == "4 passed, 2 failed, 2 skipped"


def test_an_analysis_test_is_a_case(tmp_path: Path) -> None:
    assert count(events(tmp_path, {"//a:t": ("PASSED", [BAZEL])}, [])) == "1 passed, 0 failed"


def test_a_time_out_is_a_failure_though_no_report_says_so(tmp_path: Path) -> None:
    assert count(events(tmp_path, {"//a:t": ("TIMEOUT", [])}, [])) == "0 passed, 1 failed"
    assert count(events(tmp_path, {"//a:t": ("TIMEOUT", [BAZEL])}, [])) == "1 passed, 1 failed"


def test_what_was_not_built_is_a_failure(tmp_path: Path) -> None:
    tests = {"//a:t": ("PASSED", [BAZEL]), "//a:u": ("NO_STATUS", [])}
    assert count(events(tmp_path, tests, ["//a:u"])) == "1 passed, 1 failed"
    assert count(events(tmp_path, {}, ["//a:v"])) == "0 passed, 1 failed"


def test_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = events(tmp_path, {"//a:t": ("PASSED", [BAZEL])}, [])
    monkeypatch.setattr(sys, "argv", ["summary.py", str(good)])
    assert summary.main() == 0
    assert capsys.readouterr().out == "1 passed, 0 failed\n"
    monkeypatch.setattr(sys, "argv", ["summary.py", str(events(tmp_path, {}, []))])
    assert summary.main() == 1, "nothing ran"
    monkeypatch.setattr(
        sys, "argv", ["summary.py", str(events(tmp_path, {"//a:t": ("FAILED", [PYTEST])}, []))]
    )
    assert summary.main() == 1
    assert capsys.readouterr().out.endswith(
        "events: //a:t: 2 passed, 1 failed, 1 skipped\n2 passed, 1 failed, 1 skipped\n"
    )
