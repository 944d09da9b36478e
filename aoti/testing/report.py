"""What a test prints, and its JUnit report."""

from __future__ import annotations

import dataclasses
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Case:
    """One check: ``fault`` is empty if it passed."""

    name: str
    fault: str
    seconds: float


class Report:
    """Prints checks as they come, one line each and what is wrong below, and counts them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Case] = []
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Prints lines that are no check."""
        print(text, flush=True)

    def check(self, name: str, summary: str = "", fault: str = "") -> bool:
        """Notes a check, timed from the one before; returns whether it passed."""
        now = time.monotonic()
        self.cases.append(Case(name, fault, now - self._began))
        verdict = "FAILED" if fault else "passed"
        line = f"{verdict}  {name}" + (f": {summary}" if summary and not fault else "")
        self.say(f"{line}  [{now - self._began:.1f} s]")
        if fault:
            self.say("\n".join("        " + part for part in fault.splitlines()))
        self._began = now
        return not fault

    @property
    def passed(self) -> bool:
        """Whether there were checks and none failed."""
        return bool(self.cases) and not any(case.fault for case in self.cases)

    def summary(self) -> str:
        """``N passed, N failed``."""
        failed = sum(bool(case.fault) for case in self.cases)
        return f"{len(self.cases) - failed} passed, {failed} failed"

    def write(self, path: Path) -> None:
        """Writes the checks as JUnit's XML."""
        suite = ElementTree.Element(
            "testsuite",
            name=self.name,
            tests=str(len(self.cases)),
            failures=str(sum(bool(case.fault) for case in self.cases)),
        )
        for case in self.cases:
            element = ElementTree.SubElement(
                suite,
                "testcase",
                classname=_printable(self.name),
                name=_printable(case.name),
                time=f"{case.seconds:.3f}",
            )
            if case.fault:
                fault = _printable(case.fault)
                failure = ElementTree.SubElement(
                    element, "failure", message=fault.partition("\n")[0]
                )
                failure.text = fault
        root = ElementTree.Element("testsuites")
        root.append(suite)
        ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _printable(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c in "\n\t" or c.isprintable() else "?" for c in text)
