"""Counts test cases: ``summary.py BUILD_EVENTS.json...``; fails where one failed or none ran.

Reads files of Bazel's ``--build_event_json_file``, and the XML report of each test they name. A
test that ended without a report of its failure (a crash, a time-out), or that could not be built,
is one failed case.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSED = {"PASSED", "FLAKY"}


@dataclasses.dataclass
class Count:
    """Test cases."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


def read_report(path: Path) -> Count:
    """Counts the cases of an XML report."""
    count = Count()
    for case in ElementTree.parse(path).iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"}:
            count.failed += 1
        elif "skipped" in outcomes or case.get("status") == "notrun":
            count.skipped += 1
        else:
            count.passed += 1
    return count


def read_events(path: Path) -> Iterator[tuple[str, Count]]:
    """Yields (test, cases) of one build."""
    reports: dict[str, Count] = {}
    passed: dict[str, bool] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        event: dict[str, Any] = json.loads(line)
        identity = event.get("id", {})
        if "testResult" in identity and "testResult" in event:
            label = identity["testResult"]["label"]
            for output in event["testResult"].get("testActionOutput", []):
                if output["name"] == "test.xml":
                    report = Path(urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path))
                    reports[label] = reports.get(label, Count()) + read_report(report)
        elif "testSummary" in identity:
            status = event.get("testSummary", {}).get("overallStatus")
            passed[identity["testSummary"]["label"]] = status in PASSED
        elif "targetCompleted" in identity and not event.get("completed", {}).get("success"):
            passed.setdefault(identity["targetCompleted"]["label"], False)
    for label in sorted(passed):
        count = reports.get(label, Count())
        if passed[label] and not (count.passed or count.skipped):
            count = Count(passed=1)  # a shell test, say, without a report
        elif not passed[label] and not count.failed:
            count += Count(failed=1)
        yield label, count


def main() -> int:
    """Prints what failed, and the sum."""
    total = Count()
    for path in map(Path, sys.argv[1:]):
        for label, count in read_events(path):
            total += count
            if count.failed:
                print(f"{path.stem}: {label}: {count}")
    print(total)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
