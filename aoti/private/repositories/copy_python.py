"""Copies the CPython that runs it, so that actions have an interpreter among their inputs.

``python3.11 copy_python.py DESTINATION`` writes ``DESTINATION/bin``, with the interpreter and its
own shared library, and ``DESTINATION/lib``, with the standard library; nothing that was installed
besides comes along. The copy runs wherever it lies: its library is found beside it, not by a path
of this machine. Whatever else it links has to be the operating system's. Ends with a message if
this Python is not of a kind that can be copied, which a start of the copy shows, too.
"""

from __future__ import annotations

import compileall
import fnmatch
import os
import py_compile
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

VERSION: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"

LOADER: Final = "/lib64/ld-linux-x86-64.so.2"
"""What x86-64's ABI calls the dynamic loader: it is there on every machine."""

SYSTEM: Final = ("/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/")
"""Where an operating system has its libraries."""

LEFT_OUT: Final = (
    # What somebody installed, and what says so.
    *("site-packages", "dist-packages", "sitecustomize.py", "usercustomize.py"),
    # Tests and examples.
    *("test", "tests", "__phello__", "__hello__.py", "turtledemo", "turtle.py"),
    *("_ctypes_test.*", "_test*.so", "_xxtestfuzz.*", "xxlimited*"),
    # Programs of their own: an editor, an installer of pip, a translator from Python 2, a manual.
    *("idlelib", "ensurepip", "lib2to3", "pydoc_data"),
    # Windows, and bindings of libraries that few machines have.
    *("tkinter", "_tkinter.*", "nis.*", "_dbm.*", "_gdbm.*"),
    # What embedding it into other programs takes, and byte code for its path on this machine.
    *("config-*", "__pycache__"),
)
"""Names of files and directories that do not come along."""

_CHECK: Final = """\
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print("!", name, error)
with open("/proc/self/maps") as maps:
    for path in sorted({line.split(maxsplit=5)[5].strip() for line in maps if "/" in line}):
        print(path)
"""

ISOLATED: Final = ("-B", "-E", "-P", "-S", "-s")
"""Options: no environment variables, no path but the standard library's, nothing written."""


class CopyError(Exception):
    """This Python cannot be copied; the message says why."""


class _Segment(NamedTuple):
    """A program header; ``size`` is that in the file."""

    kind: int
    offset: int
    address: int
    size: int


class Elf:
    """The dynamic section of a 64-bit little-endian ELF file."""

    NEEDED, STRTAB, RPATH, RUNPATH = 1, 5, 15, 29
    _LOAD, _DYNAMIC, _INTERP = 1, 2, 3

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = bytearray(path.read_bytes())
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise CopyError(f"{path} is no 64-bit ELF file")
        (table,) = struct.unpack_from("<Q", self.data, 32)
        size, count = struct.unpack_from("<HH", self.data, 54)
        self._segments = [
            _Segment(*struct.unpack_from("<I4xQQ8xQ", self.data, table + size * i))
            for i in range(count)
        ]
        self._entries = list(self._dynamic())
        self._strings = self._offset(dict(self._entries).get(self.STRTAB, 0))

    def _dynamic(self) -> Iterator[tuple[int, int]]:
        for segment in self._segments:
            if segment.kind == self._DYNAMIC:
                for at in range(segment.offset, segment.offset + segment.size, 16):
                    tag, value = struct.unpack_from("<qQ", self.data, at)
                    if tag == 0:
                        return
                    yield tag, value

    def _offset(self, address: int) -> int:
        for segment in self._segments:
            within = address - segment.address
            if segment.kind == self._LOAD and 0 <= within < segment.size:
                return segment.offset + within
        return 0

    def _text(self, at: int) -> str:
        return self.data[at : self.data.index(0, at)].decode()

    def interpreter(self) -> str | None:
        """Returns the dynamic loader's path, ``None`` if there is none."""
        for segment in self._segments:
            if segment.kind == self._INTERP:
                return self._text(segment.offset)
        return None

    def strings(self) -> Iterator[tuple[int, str]]:
        """Yields (tag, text) of the libraries that it links and of the paths they are found on."""
        for tag, value in self._entries:
            if tag in (self.NEEDED, self.RPATH, self.RUNPATH):
                yield tag, self._text(self._strings + value)

    def rename_needed(self, old: str, new: str) -> None:
        """Writes ``new`` where a library is called ``old``."""
        if len(new) > len(old):
            raise CopyError(f"{self.path} links {old}: there is no room for {new}")
        for tag, value in self._entries:
            at = self._strings + value
            if tag == self.NEEDED and self._text(at) == old:
                self.data[at : at + len(old)] = new.encode().ljust(len(old), b"\0")

    def drop_absolute_search_path(self) -> None:
        """Empties the search path for libraries if it is not relative to the file itself.

        An empty one counts as none. The rest of the string stays: names that end like it may share
        its bytes.
        """
        for tag, value in self._entries:
            at = self._strings + value
            if tag in (self.RPATH, self.RUNPATH) and "$ORIGIN" not in self._text(at):
                self.data[at] = 0


def _is_left_out(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT)


def _copy_standard_library(destination: Path) -> None:
    target = destination / "lib" / VERSION
    for scheme in ("stdlib", "platstdlib"):
        source = Path(sysconfig.get_path(scheme))
        if source.name != VERSION:
            raise CopyError(f"its standard library is in {source}, not in a directory {VERSION}")
        shutil.copytree(
            source,
            target,
            ignore=lambda _, names: {name for name in names if _is_left_out(name)},
            copy_function=shutil.copyfile,
            dirs_exist_ok=True,
        )
        if Path(sysconfig.get_path("platstdlib")) == source:
            break
    # Where it was installed may be a user's directory, whose name would make other inputs of it.
    if not sys.base_prefix.startswith("/usr"):
        for path in target.glob("_sysconfigdata_*.py"):
            text = path.read_text(encoding="utf-8")
            text = re.sub(rf"{re.escape(sys.base_prefix)}(?=[/'\" ])", "/python", text)
            path.write_text(text, encoding="utf-8")


def _run(python: Path, modules: list[str]) -> tuple[dict[str, str], list[Path]]:
    """Imports modules; returns {module: error} of those that cannot be, and the files mapped."""
    done = subprocess.run(
        [python, *ISOLATED, "-c", _CHECK, *modules],
        env={"LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CopyError(f"{python} does not start: {done.stderr.strip()}")
    errors: dict[str, str] = {}
    mapped: list[Path] = []
    for line in done.stdout.splitlines():
        if line.startswith("! "):
            _, name, error = line.split(" ", 2)
            errors[name] = error
        elif ".so" in line:
            mapped.append(Path(line))
    return errors, mapped


def _is_system(path: Path) -> bool:
    return str(path).startswith(SYSTEM)


def copy_libraries(interpreter: Path, mapped: list[Path], destination: Path) -> None:
    """Copies the libraries that Python brought itself to where its files look for them."""
    elf = Elf(interpreter)
    needed = [text for tag, text in elf.strings() if tag == elf.NEEDED]
    own = {Path(text).name: text for text in needed if "libpython" in text}
    standard = Path(sysconfig.get_path("platstdlib")).resolve()
    for path in mapped:
        if path.is_relative_to(standard):
            continue
        if path.name in own:
            # Found beside the interpreter whatever search path that has, or has not.
            beside = destination / "bin" / "libpython.so"
            shutil.copyfile(path, beside)
            elf.rename_needed(own[path.name], f"$ORIGIN/{beside.name}")
            library = Elf(beside)
            library.drop_absolute_search_path()
            beside.write_bytes(library.data)
        elif not _is_system(path):
            if not path.is_relative_to(sys.base_prefix):
                raise CopyError(f"it links {path}, which is neither its own nor the system's")
            target = destination / path.relative_to(sys.base_prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    elf.drop_absolute_search_path()
    copy = destination / "bin" / "python3"
    copy.write_bytes(elf.data)
    copy.chmod(0o755)


def _compile(destination: Path) -> None:
    """Writes byte code that nobody compares with its source, so that it is the same at any time."""
    compiled = compileall.compile_dir(
        destination / "lib" / VERSION,
        quiet=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        stripdir=str(destination / "lib"),
    )
    if not compiled:
        raise CopyError("its standard library cannot be compiled")


def copy(destination: Path) -> None:
    """Copies this Python.

    Raises:
      CopyError: it is not of a kind that can be copied.
    """
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    loader = Elf(interpreter).interpreter()
    if loader != LOADER:
        raise CopyError(f"its dynamic loader is {loader}, not {LOADER}")
    (destination / "bin").mkdir(parents=True)
    _copy_standard_library(destination)
    dynamic = destination / "lib" / VERSION / "lib-dynload"
    modules = sorted(path.name.partition(".")[0] for path in dynamic.glob("*.so"))
    for path in dynamic.glob("*.so"):
        module = Elf(path)
        module.drop_absolute_search_path()
        path.write_bytes(module.data)
    expected, mapped = _run(interpreter, modules)
    copy_libraries(interpreter, mapped, destination)

    errors, mapped = _run(destination / "bin" / "python3", modules)
    for name, error in errors.items():
        if name not in expected:
            raise CopyError(f"a copy of it cannot import {name}: {error}")
    here = destination.resolve()
    for path in mapped:
        if not path.is_relative_to(here) and not _is_system(path):
            raise CopyError(f"a copy of it still loads {path}")
    _compile(destination)


def main() -> int:
    """Copies to the directory that the command line names."""
    try:
        copy(Path(sys.argv[1]))
    except CopyError as error:
        print(f"{os.path.realpath(sys.executable)} cannot be copied: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
