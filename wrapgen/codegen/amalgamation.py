"""The runtime's sources as one text, for files that need nothing else."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wrapgen.codegen.errors import CodegenError

_INCLUDE: Final = re.compile(r'#include (?:<(?P<system>[^>]+)>|"(?P<own>[^"]+)")\s*\Z')
_GUARD: Final = re.compile(r"#(?:ifndef|define|endif  //) AOTI_\w+_H_\s*\Z")
_LEFT_OUT: Final = "#ifndef AOTI_STANDALONE"
_END: Final = "#endif  // AOTI_STANDALONE"


@dataclasses.dataclass(frozen=True)
class Amalgamation:
    """``headers`` are the system's, sorted; ``lines`` the code, each file once."""

    headers: tuple[str, ...]
    lines: tuple[str, ...]


def amalgamate(runtime: Path, headers: Sequence[str], sources: Sequence[str] = ()) -> Amalgamation:
    """Joins headers, such as ``runtime/launcher.h``, all that they include, the ``.cc`` file of
    each header that has one, and further sources with what they include.

    ``runtime`` is the directory of the runtime's sources, whatever it is called. Include guards are
    left out, and what is between ``#ifndef AOTI_STANDALONE`` and its ``#endif``. A header that is
    not the runtime's nor the system's is a ``CodegenError``.
    """
    joined = _Joined(runtime)
    joined.add(headers)
    joined.add(sources)
    return Amalgamation(tuple(sorted(joined.headers)), tuple(joined.lines))


class _Joined:
    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._seen: set[str] = set()
        self.headers: set[str] = set()
        self.lines: list[str] = []

    def add(self, headers: Sequence[str]) -> None:
        """Headers first, then the files that implement them, which may ask for more."""
        for name in headers:
            self._file(name)
        done: set[str] = set()
        while pending := sorted(
            {name[:-2] + ".cc" for name in self._seen if name[-2:] == ".h"} - done
        ):
            for name in pending:
                done.add(name)
                if self._path(name).is_file():
                    self._file(name)

    def _path(self, name: str) -> Path:
        return self._runtime / name.removeprefix("runtime/")

    def _file(self, name: str) -> None:
        if name in self._seen:
            return
        self._seen.add(name)
        path = self._path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CodegenError(f"{path}: cannot be read: {error.strerror}") from error
        body: list[str] = []
        kept = True
        for line in text.splitlines():
            if line in (_LEFT_OUT, _END):
                if kept != (line == _LEFT_OUT):
                    raise CodegenError(f"{path}: {line!r} has no counterpart")
                kept = not kept
            elif kept and (match := _INCLUDE.match(line)):
                self._include(match, path)
            elif kept and not _GUARD.match(line):
                body.append(line)
        if not kept:
            raise CodegenError(f"{path}: {_LEFT_OUT!r} has no {_END!r}")
        self.lines += ["", f"// {name}", "", *_squeezed(body)]

    def _include(self, match: re.Match[str], path: Path) -> None:
        if system := match["system"]:
            self.headers.add(system)
        elif match["own"].startswith("runtime/"):
            self._file(match["own"])
        else:
            raise CodegenError(
                f"{path}: includes {match['own']}, which a model in one file cannot have; put it "
                f"between {_LEFT_OUT!r} and {_END!r}"
            )


def _squeezed(lines: list[str]) -> list[str]:
    """Without blank lines at the ends, and without two in a row."""
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    return text.split("\n") if text else []
