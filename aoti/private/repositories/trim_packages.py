"""Takes out of installed packages what is of no use to actions, or differs between machines.

``python3.11 trim_packages.py SITE PATTERN...`` deletes the files below ``SITE`` that a pattern
matches; in patterns, relative to ``SITE``, ``*`` stands for directories, too. ``!PATTERN`` keeps
what patterns before it match. A pattern that matches nothing is an error: the packages have
changed. Always deleted are the scripts in ``SITE/bin``, whose first line is the path of the Python
that pip ran under. What packages tell about their files follows suit.
"""

from __future__ import annotations

import csv
import fnmatch
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def _scripts(site: Path) -> Iterator[Path]:
    for path in site.glob("bin/*"):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(2) == b"#!":
                    yield path


def _drop_empty_directories(site: Path) -> None:
    directories = [path for path in site.rglob("*") if path.is_dir()]
    for path in sorted(directories, reverse=True):  # what is within comes first
        if not any(path.iterdir()):
            path.rmdir()


def _rewrite_records(site: Path) -> None:
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
        # An installation into a directory has its scripts there, where pip notes "../../bin".
        kept = [row for row in rows if (site / row[0].removeprefix("../../")).exists()]
        with record.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(kept)


def trim(site: Path, patterns: Sequence[str]) -> None:
    """Deletes what the patterns match, but for what later ones keep.

    Raises:
      ValueError: a pattern matches nothing.
    """
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if not path.is_dir()}
    unwanted: set[str] = set()
    for pattern in patterns:
        keep = pattern.startswith("!")
        found = fnmatch.filter(files, pattern.removeprefix("!"))
        if not found:
            raise ValueError(f"there is no {pattern} among the packages; is it out of date?")
        if keep:
            unwanted.difference_update(found)
        else:
            unwanted.update(found)
    for path in [site / name for name in unwanted] + list(_scripts(site)):
        path.unlink(missing_ok=True)
    _drop_empty_directories(site)
    _rewrite_records(site)


def main() -> int:
    """Trims the directory that the command line names."""
    try:
        trim(Path(sys.argv[1]), sys.argv[2:])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
