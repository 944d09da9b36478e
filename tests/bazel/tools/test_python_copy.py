"""The interpreter that actions have among their inputs: complete, alike everywhere, or refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, "aoti/private/repositories")

import copy_python
import stamp

SCRIPT = Path("aoti/private/repositories/copy_python.py").resolve()
INTERPRETER = Path(sys._base_executable)  # type: ignore[attr-defined]

ASK = """\
import json, sys
import ctypes, decimal, hashlib, lzma, multiprocessing, sqlite3, ssl, zlib
with open("/proc/self/maps") as maps:
    mapped = sorted({line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line})
print(json.dumps({"mapped": mapped, "prefix": sys.prefix, "path": sys.path}))
"""


def copy(destination: Path, **environ: str) -> Path:
    command = [INTERPRETER, "-B", SCRIPT, destination]
    subprocess.run(command, check=True, env=environ)
    return destination


def digests(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(tmp_path_factory.mktemp("copied") / "python")


def test_runs_from_wherever_it_lies(copied: Path, tmp_path: Path) -> None:
    """With nothing in the environment, and with nothing but the system's libraries besides."""
    moved = tmp_path / "elsewhere"
    moved.symlink_to(copied)
    for place in (copied, moved):
        command = [place / "bin/python3", *copy_python.ISOLATED, "-c", ASK]
        done = subprocess.run(command, check=True, env={}, capture_output=True, text=True)
        said = json.loads(done.stdout)
        assert said["prefix"] == str(place)
        assert all(path.startswith(str(place)) for path in said["path"])
        foreign = [path for path in said["mapped"] if not path.startswith(str(copied))]
        assert not [path for path in foreign if not path.startswith(copy_python.SYSTEM)]
        assert not [path for path in foreign if "python" in path]


def test_copies_are_alike(copied: Path, tmp_path: Path) -> None:
    other = copy(
        tmp_path / "a" / "b",
        HOME=str(tmp_path),
        LC_ALL="C",
        PYTHONHASHSEED="7",
        SOURCE_DATE_EPOCH="1",
        TZ="Asia/Tokyo",
    )
    assert digests(copied) == digests(other)


def test_nothing_that_was_installed_comes_along(copied: Path) -> None:
    names = {path.name for path in copied.rglob("*")}
    assert not names & {"site-packages", "dist-packages", "sitecustomize.py", "test", "tkinter"}
    assert not [path for path in copied.rglob("*") if path.is_symlink()]


def test_byte_code_is_checked_by_nobody(copied: Path) -> None:
    """A hash-based file with the flag that it is not to be compared with its source (PEP 552)."""
    files = [path for path in copied.rglob("*.pyc") if path.is_file()]
    assert len(files) > 400
    assert {path.read_bytes()[4:8] for path in files} == {b"\1\0\0\0"}


def test_no_search_path_of_the_machine(copied: Path) -> None:
    """What is left of one is empty, which counts as none, or relative to the file."""
    files = [copied / "bin/python3", *copied.rglob("*.so")]
    assert len(files) > 30
    for path in files:
        elf = copy_python.Elf(path)
        for tag, text in elf.strings():
            if tag in (elf.RPATH, elf.RUNPATH):
                assert text == "" or text.startswith("$ORIGIN"), path


def test_another_loader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "python3.11"
    loader = copy_python.LOADER.encode()
    data = INTERPRETER.read_bytes()
    assert data.count(loader + b"\0") == 1
    other.write_bytes(data.replace(loader, b"/nix64".ljust(len(loader), b"x")))
    monkeypatch.setattr(sys, "_base_executable", str(other))
    with pytest.raises(copy_python.CopyError, match=r"its dynamic loader is /nix64x+, not /lib64"):
        copy_python.copy(tmp_path / "python")


def test_libraries_from_elsewhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(copy_python.CopyError, match=r"/opt/odd/libz\.so\.1, which is neither"):
        copy_python.copy_libraries(INTERPRETER, [Path("/opt/odd/libz.so.1")], tmp_path)


def test_what_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "python3.11"
    script.write_text("#!/bin/sh\nexec python3.11\n")
    with pytest.raises(copy_python.CopyError, match="is no 64-bit ELF file"):
        copy_python.Elf(script)


def test_a_longer_name_is_refused() -> None:
    elf = copy_python.Elf(INTERPRETER)
    with pytest.raises(copy_python.CopyError, match=r"links libc\.so\.6: there is no room for"):
        elf.rename_needed("libc.so.6", "libpython.so")


def test_stamp_is_a_function_of_the_content(tmp_path: Path) -> None:
    times = []
    for name, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        directory = tmp_path / name
        (directory / "package").mkdir(parents=True)
        (directory / "package" / "module.py").write_text(text)
        os.utime(directory / "package" / "module.py", (len(times), len(times)))
        stamp.stamp(directory)
        times.append(directory.stat().st_mtime_ns)
    assert times[0] == times[1] != times[2]
    assert all(time % 10**6 == 0 for time in times), "Bazel sees milliseconds"
