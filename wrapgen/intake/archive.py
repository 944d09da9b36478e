"""Zip archives from strangers.

Reading looks only at members that are asked for, and only after the whole directory was checked:
names, kinds, declared sizes and compression. Payloads that are stored, as PyTorch stores them, are
mapped and not read, so that memory does not grow with the weights.
"""

from __future__ import annotations

import dataclasses
import mmap
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from wrapgen.intake.errors import (
    IntakeError,
    MissingMemberError,
    NotAnArchiveError,
    SizeError,
    UnsafeNameError,
)

Bytes = npt.NDArray[np.uint8]

_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
"""APPNOTE.TXT 4.3.7: signature, five 16-bit fields, CRC, two sizes, lengths of name and extra."""

_ENCRYPTED: Final = 0x1
_UTF8: Final = 0x800
_CHUNK: Final = 1 << 24


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an archive may declare. Sizes in bytes, uncompressed.

    ``ratio`` bounds uncompressed over compressed size of every member above 64 KiB; PyTorch does
    not compress, so nothing honest comes near it.
    """

    total: int = 256 << 30
    json: int = 256 << 20
    members: int = 100_000
    ratio: int = 100


class Archive:
    """The checked directory of an archive; a context manager.

    Member names are relative to the one folder that PyTorch puts everything in.

    Raises:
      NotAnArchiveError, UnsafeNameError, SizeError: as the classes say.
      OSError: the file cannot be read.
    """

    def __init__(self, path: Path, limits: Limits | None = None) -> None:
        self.path = path
        self._limits = limits or Limits()
        self._map: mmap.mmap | None = None
        self._file = path.open("rb")
        try:
            try:
                self._zip = zipfile.ZipFile(self._file)
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise NotAnArchiveError(
                    f"{path}: not a .pt2 archive: {error}; expected a file written by "
                    "torch.export.save"
                ) from error
            self._members = self._check()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        # The map is left to the garbage collector: arrays may still point into it.
        self._zip.close()
        self._file.close()

    @property
    def names(self) -> list[str]:
        """The members' names, sorted."""
        return sorted(self._members)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each member, uncompressed."""
        return {name: info.file_size for name, info in sorted(self._members.items())}

    def json_text(self, name: str) -> str:
        """Returns a member that holds JSON or a short text, decoded from UTF-8."""
        info = self._member(name)
        if info.file_size > self._limits.json:
            raise SizeError(
                f"{self.path}: {name} declares {info.file_size} bytes; the limit for JSON is "
                f"{self._limits.json}"
            )
        try:
            return bytes(self.payload(name)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise NotAnArchiveError(f"{self.path}: {name} is not UTF-8 text: {error}") from error

    def payload(self, name: str) -> Bytes:
        """Returns a member's bytes, their checksum verified; mapped where they are not compressed.

        The array is read-only and stays valid after the archive is closed.
        """
        info = self._member(name)
        if info.compress_type == zipfile.ZIP_STORED:
            data = self._stored(name, info)
            crc = 0
            for start in range(0, info.file_size, _CHUNK):
                crc = zlib.crc32(data[start : start + _CHUNK].data, crc)
            if crc != info.CRC:
                raise NotAnArchiveError(f"{self.path}: {name} is damaged: its checksum is wrong")
            return data
        try:
            with self._zip.open(info) as stream:
                # One byte more than declared would show a member that expands beyond its size.
                content = stream.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
            raise NotAnArchiveError(f"{self.path}: {name} is damaged: {error}") from error
        if len(content) != info.file_size:
            raise SizeError(f"{self.path}: {name} declares {info.file_size} bytes and holds other")
        return np.frombuffer(content, dtype=np.uint8)

    def _member(self, name: str) -> zipfile.ZipInfo:
        try:
            return self._members[name]
        except KeyError:
            raise MissingMemberError(
                f"{self.path}: {name} is missing; was the file cut short, or not written by "
                "torch.export.save?"
            ) from None

    def _stored(self, name: str, info: zipfile.ZipInfo) -> Bytes:
        if info.file_size == 0:
            return np.empty(0, dtype=np.uint8)
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        header = self._map[info.header_offset : info.header_offset + _LOCAL_HEADER.size]
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise NotAnArchiveError(f"{self.path}: {name} has no header where the directory says")
        name_length, extra_length = _LOCAL_HEADER.unpack(header)[-2:]
        start = info.header_offset + _LOCAL_HEADER.size
        encoding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
        if self._map[start : start + name_length] != info.orig_filename.encode(encoding):
            raise NotAnArchiveError(f"{self.path}: {name} has another name in its own header")
        start += name_length + extra_length
        if start + info.file_size > len(self._map):
            raise NotAnArchiveError(f"{self.path}: {name} reaches beyond the end of the file")
        return np.frombuffer(self._map, dtype=np.uint8, count=info.file_size, offset=start)

    def _check(self) -> dict[str, zipfile.ZipInfo]:
        infos = self._zip.infolist()
        if len(infos) > self._limits.members:
            raise SizeError(
                f"{self.path}: {len(infos)} members; the limit is {self._limits.members}"
            )
        total = compressed = 0
        roots: set[str] = set()
        seen: set[str] = set()
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            root, inner = self._safe_name(info)
            if inner in seen:
                raise UnsafeNameError(f"{self.path}: member {info.orig_filename!r} occurs twice")
            seen.add(inner)
            roots.add(root)
            total += info.file_size
            compressed += info.compress_size
            if (
                info.file_size > 1 << 16
                and info.file_size > self._limits.ratio * info.compress_size
            ):
                raise SizeError(
                    f"{self.path}: {info.orig_filename} expands from {info.compress_size} to "
                    f"{info.file_size} bytes; more than {self._limits.ratio} to 1 is refused"
                )
            if not info.is_dir():
                members[inner] = info
        if total > self._limits.total:
            raise SizeError(
                f"{self.path}: declares {total} bytes in all; the limit is {self._limits.total}"
            )
        size = self._file.seek(0, 2)
        if compressed > size:
            raise SizeError(
                f"{self.path}: members overlap: {compressed} bytes declared in a file of {size}"
            )
        if len(roots) > 1:
            raise NotAnArchiveError(
                f"{self.path}: not a .pt2 archive: members are in several folders "
                f"({', '.join(sorted(roots)[:4])})"
            )
        return members

    def _safe_name(self, info: zipfile.ZipInfo) -> tuple[str, str]:
        """Returns the first folder of a member's name and the rest; raises where it is unsafe."""
        name = info.orig_filename

        def refuse(why: str) -> IntakeError:
            return UnsafeNameError(f"{self.path}: member {name!r} {why}")

        if not name or not name.isprintable():
            raise refuse("has a name with unprintable characters")
        if "\\" in name:
            raise refuse("has a backslash in its name")
        if name.startswith("/") or ":" in name.split("/")[0]:
            raise refuse("has an absolute name")
        parts = name.removesuffix("/").split("/")
        if ".." in parts:
            raise refuse("leaves the archive with '..'")
        if "" in parts or "." in parts:
            raise refuse("has an empty or '.' component in its name")
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refuse("is a link or a device, not a plain file")
        if info.flag_bits & _ENCRYPTED:
            raise NotAnArchiveError(f"{self.path}: member {name!r} is encrypted")
        return parts[0], "/".join(parts[1:])
