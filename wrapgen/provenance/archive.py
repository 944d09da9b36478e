"""Reads a package that anyone may have written, without unpacking it.

The package step writes one archive for one content: members in one order, with one time, owner and
mode, and zeros where there is nothing. So a reader needs to understand little. It takes name and
size of a member, makes the header that the package step would have written, and compares: links,
devices, sparse files, odd modes, other spellings of a header and data behind the end all differ
from it. Nothing is allocated that the archive asks for; the file is mapped, and read in place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BLOCK: Final = tarfile.BLOCKSIZE
RECORD: Final = tarfile.RECORDSIZE

_MAX_EXTENDED: Final = 64 << 10
"""Bytes of an extended header: a path and a size."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*\Z")

_FIELDS: Final = (
    ("name", 0, 100),
    ("mode", 100, 108),
    ("owner", 108, 116),
    ("group", 116, 124),
    ("size", 124, 136),
    ("time", 136, 148),
    ("checksum", 148, 156),
    ("type", 156, 157),
    ("link", 157, 257),
    ("magic", 257, 265),
    ("owner's name", 265, 297),
    ("group's name", 297, 329),
    ("device", 329, 345),
    ("prefix", 345, 500),
    ("padding", 500, 512),
)
"""Of a header block (POSIX.1-2017, pax, "ustar Interchange Format")."""


class ArchiveError(ValueError):
    """The file is no archive that can be read to its end; the message says where it stops being
    one."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A file of an archive: where its bytes are."""

    name: str
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Oddity:
    """Something that the package step does not write: of which member, what, and the bytes."""

    name: str
    what: str
    expected: str
    found: str


@dataclasses.dataclass(frozen=True)
class Archive:
    """An archive that was read: its members in order, each name once, and what is odd about it."""

    data: mmap.mmap
    members: dict[str, Member]
    oddities: tuple[Oddity, ...]

    def view(self, name: str) -> memoryview:
        """Returns the bytes of a member, in place. Release it before the archive is closed."""
        member = self.members[name]
        return memoryview(self.data)[member.offset : member.offset + member.size]

    def read(self, name: str) -> bytes:
        """Returns a copy of a member's bytes."""
        member = self.members[name]
        return self.data[member.offset : member.offset + member.size]


def mode_of(name: str) -> int:
    """The mode that a member has."""
    return 0o755 if name.endswith(".so") else 0o644


def header(name: str, size: int) -> bytes:
    """Returns what stands before a member's bytes."""
    member = tarfile.TarInfo(name)  # time, owner and group are 0 and empty
    member.size = size
    member.mode = mode_of(name)
    return member.tobuf(tarfile.PAX_FORMAT)


def end(size: int) -> bytes:
    """Returns what stands behind the last member of an archive of ``size`` bytes so far: two empty
    blocks, and more up to a full record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Opens an archive.

    Raises:
      ArchiveError: it cannot be read to its end.
      OSError: the file cannot be read.
    """
    if not path.is_file():
        raise ArchiveError("no regular file")
    with path.open("rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise ArchiveError("the file is empty") from error
        with data:
            members: dict[str, Member] = {}
            oddities: list[Oddity] = []
            for found in _walk(data):
                if isinstance(found, Oddity):
                    oddities.append(found)
                elif found.name in members:
                    oddities.append(Oddity(found.name, "occurs", "once", "more than once"))
                else:
                    members[found.name] = found
            yield Archive(data, members, tuple(oddities))


def _walk(data: mmap.mmap) -> Iterator[Member | Oddity]:
    at = 0
    while True:
        block = data[at : at + BLOCK]
        if len(block) < BLOCK:
            raise ArchiveError(f"byte {at}: the archive ends without its end mark")
        if block == bytes(BLOCK):
            break
        begin = at
        extended: dict[str, str] = {}
        if block[156:157] == b"x":
            extended, at = _extended(data, at)
            block = data[at : at + BLOCK]
        name = extended.get("path") or _text(block[:100], begin)
        size = _number(_text(block[124:136], begin), 8, begin)
        if "size" in extended:  # of files of 8 GiB and more
            size = _number(extended["size"], 10, begin)
        if not _NAME.match(name) or "/../" in f"/{name}/":
            raise ArchiveError(f"byte {begin}: {name[:100]!r} is no path of a package")
        at += BLOCK
        yield from _odd_header(name, data[begin:at], header(name, size))
        if at + size > len(data):
            raise ArchiveError(f"{name}: {size} bytes are more than the file has left")
        yield Member(name, at, size)
        behind = at + size
        at = -(-behind // BLOCK) * BLOCK
        if data[behind:at] != bytes(at - behind):
            yield Oddity(name, "padding", "zeros", "other bytes")
    total = at + len(end(at))
    if len(data) != total:
        yield Oddity("", "size of the archive", f"{total} bytes", f"{len(data)} bytes")
    if any(data[at:total]):
        yield Oddity("", "behind the end mark", "zeros", "other bytes")


def _extended(data: mmap.mmap, at: int) -> tuple[dict[str, str], int]:
    """Reads a pax extended header; returns its records and the offset behind it. How it is spelled
    is compared with what we would write, so nothing but a path and a size need be found."""
    size = _number(_text(data[at + 124 : at + 136], at), 8, at)
    if size > _MAX_EXTENDED:
        raise ArchiveError(f"byte {at}: an extended header of {size} bytes")
    text = data[at + BLOCK : at + BLOCK + size].decode("utf-8", "replace")
    records = dict(re.findall(r"^\d+ (path|size)=(.*)$", text, re.MULTILINE))
    return records, at + BLOCK + -(-size // BLOCK) * BLOCK


def _odd_header(name: str, found: bytes, expected: bytes) -> Iterator[Oddity]:
    if found == expected:
        return
    if len(found) != len(expected) or found[:-BLOCK] != expected[:-BLOCK]:
        yield Oddity(name, "extended header", "as the package step writes it", "another")
    for field, begin, end in _FIELDS:
        ours, theirs = expected[-BLOCK:][begin:end], found[-BLOCK:][begin:end]
        if ours != theirs:
            yield Oddity(name, f"header: {field}", _show(ours), _show(theirs))


def _show(field: bytes) -> str:
    return ascii(field.rstrip(b"\0"))[1:]


def _text(field: bytes, at: int) -> str:
    try:
        return field.partition(b"\0")[0].decode("ascii").strip(" ")
    except UnicodeDecodeError as error:
        raise ArchiveError(f"byte {at}: no header of a tar archive") from error


def _number(text: str, base: int, at: int) -> int:
    try:
        number = int(text, base)
    except ValueError as error:
        raise ArchiveError(f"byte {at}: no header of a tar archive") from error
    if number < 0:
        raise ArchiveError(f"byte {at}: a size of {number}")
    return number
