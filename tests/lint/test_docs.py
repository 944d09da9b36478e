"""What the documentation quotes of generated code, and the tests it names, are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lint.workspace import ROOT

GENERATOR = ROOT / "docs/generator.md"

_BLOCK = re.compile(r"^```(?:cpp|c)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TESTS = re.compile(r"^Tests: (.+)$", re.MULTILINE)


def quotes() -> list[tuple[str, list[str]]]:
    """The quoted file of each block whose first line is a comment that names one, and the lines."""
    found = []
    for block in _BLOCK.findall(GENERATOR.read_text(encoding="utf-8")):
        first, _, rest = block.partition("\n")
        assert re.fullmatch(r"// \S+\.txt", first), f"{GENERATOR}: {first!r} names no golden file"
        found.append((first.removeprefix("// "), rest.splitlines()))
    return found


def _squeezed(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip()]


def _find(lines: list[str], wanted: list[str], begin: int) -> int | None:
    """Behind where ``wanted`` stands among ``lines`` from ``begin`` on."""
    for i in range(begin, len(lines) - len(wanted) + 1):
        if lines[i : i + len(wanted)] == wanted:
            return i + len(wanted)
    return None


@pytest.mark.parametrize(("path", "lines"), quotes(), ids=lambda value: str(value)[:40])
def test_generated_code_is_quoted_as_it_is(path: str, lines: list[str]) -> None:
    """Pieces between lines ``// ...`` follow one another in the golden file; indentation and empty
    lines do not count."""
    golden = _squeezed((ROOT / path).read_text(encoding="utf-8").splitlines())
    begin: int | None = 0
    pieces: list[list[str]] = [[]]
    for line in _squeezed(lines):
        if line == "// ...":
            pieces.append([])
        else:
            pieces[-1].append(line)
    for piece in filter(None, pieces):
        assert begin is not None
        begin = _find(golden, piece, begin)
        assert begin is not None, f"{path} does not have, behind what is quoted before it:\n" + (
            "\n".join(piece)
        )


@pytest.mark.parametrize("names", _TESTS.findall(GENERATOR.read_text(encoding="utf-8")))
def test_tests_that_are_named_exist(names: str) -> None:
    for name in re.findall(r"`([^`]+)`", names):
        path, _, case = name.partition("::")
        assert (ROOT / path).exists(), name
        if case:
            assert case in Path(ROOT / path).read_text(encoding="utf-8"), name
