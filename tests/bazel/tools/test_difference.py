"""Two files that differ: what is said about where."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.bazel.integration.difference import difference, differences

SOURCE = 'const char kText[] = "%s";\nint Twice(int x) { return %s * x; }\n'


def build(directory: Path, *flags: str, text: str = "abc", factor: int = 2) -> Path:
    """A library, or with ``-c`` an object."""
    directory.mkdir(exist_ok=True)
    (directory / "code.c").write_text(SOURCE % (text, factor))
    out = directory / ("code.o" if "-c" in flags else "libcode.so")
    flags = ("-fPIC", "-O1", "-Wl,--build-id=none", *flags)
    subprocess.run(["cc", *flags, "code.c", "-o", out.name], cwd=directory, check=True)
    return out


def test_equal_files() -> None:
    assert difference(b"\x7fELF", b"\x7fELF") == ""


def test_an_elf_library_by_section_and_symbol(tmp_path: Path) -> None:
    one = build(tmp_path / "one", "-shared").read_bytes()
    other = build(tmp_path / "other", "-shared", text="abd").read_bytes()
    assert difference(one, other).startswith("section .rodata, offset 0x2 (in kText)")
    one = build(tmp_path / "one", "-shared", factor=3).read_bytes()
    other = build(tmp_path / "other", "-shared", factor=5).read_bytes()
    assert "section .text, offset " in difference(one, other)
    assert "(in Twice)" in difference(one, other)


def test_an_archive_of_objects_by_member(tmp_path: Path) -> None:
    archives = []
    for name, text in (("one", "abc"), ("other", "xbc")):
        made = build(tmp_path / name, "-c", text=text)
        made.rename(made.with_name("an_object_with_a_long_name.o"))
        command = ["ar", "rcD", "libcode.a", "an_object_with_a_long_name.o"]
        subprocess.run(command, cwd=made.parent, check=True)
        archives.append((made.parent / "libcode.a").read_bytes())
    assert difference(*archives) == (
        "member an_object_with_a_long_name.o: section .rodata, offset 0x0 (in kText)"
    )
    dated = archives[0].replace(
        b"0           0     0     644     ", b"7           0     0     644     "
    )
    assert "header: " in difference(archives[0], dated)


def tar(content: bytes, **fields: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a/file")
        info.size = len(content)
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(content: bytes, year: int = 1980) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.json", (year, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (tar(b"1"), tar(b"2"), "member a/file: line 1: '1' and '2'"),
        (tar(b"1"), tar(b"1", mtime=5), "member a/file, mtime: 0 and 5"),
        (tar(b"1"), tar(b"1", uid=5), "member a/file, uid: 0 and 5"),
        (zipped(b'{"a": [1, 2]}'), zipped(b'{"a": [1, 3]}'), "member a.json: a[1]: 2 and 3"),
        (zipped(b"1"), zipped(b"1", 1999), "member a.json, date_time: (1980, 1, 1, 0, 0, 0) and"),
        (b'{"a": {"b": 1}}', b'{"a": {"b": 2}}', "a.b: 1 and 2"),
        (b'{"a": {"b": 1}}', b'{"a": {}}', "a.b: is in one alone"),
        (b"[1]", b"[1, 2]", ": has 1 and 2 elements"),
        (b'{"a": 1}', b'{ "a": 1}', "line 1: "),
        (b"a\nb\n", b"a\nc\n", "line 2: 'b' and 'c'"),
        (b"a\n", b"a", "one has 2 bytes, the other 1, the first 1 the same"),
        (b"\0\1", b"\0\2", "byte 1: 0x01 and 0x02"),
        (b"\x7fELFx", b"\x7fELFy", "line 1: "),
    ],
)
def test_other_files(one: bytes, other: bytes, said: str) -> None:
    assert difference(one, other).startswith(said)


def test_trees(tmp_path: Path) -> None:
    for name, content in (("one", "1"), ("other", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text("0")
        (tmp_path / name / "differs").write_text(content)
    (tmp_path / "one" / "more").write_text("0")
    found = differences(tmp_path / "one", tmp_path / "other", ["same", "differs", "more"])
    assert found == [
        "differs: line 1: '1' and '2'",
        f"more: there is no {tmp_path / 'other' / 'more'}",
    ]
