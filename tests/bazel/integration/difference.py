"""Says where two files that should be the same differ first, in the terms of what they are.

Of an ELF file the section, the offset in it and the symbol that is there; of an archive the member,
and where that differs; of JSON the path; of a text the line; else the offset.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

_AR: Final = b"!<arch>\n"
_ELF: Final = b"\x7fELF"
_ZIP: Final = b"PK\x03\x04"
_TAR: Final = (257, b"ustar")
"""Where a tar file says that it is one."""

_SHOWN: Final = 60
"""Characters of a value that are shown."""


def difference(one: bytes, other: bytes) -> str:
    """Returns where two files differ first; empty if they do not.

    A file that is not what its first bytes say is compared as plain bytes.
    """
    if one == other:
        return ""
    for applies, compare in _KINDS:
        if applies(one) and applies(other):
            try:
                found = compare(one, other)
            except Exception:  # of any reader, of a file that is damaged
                continue
            if found:
                return found
    return _bytes(one, other)


def differences(one: Path, other: Path, names: Iterable[str]) -> list[str]:
    """Returns a line for each of two trees' files whose contents differ, or that one tree lacks.

    ``names``: the paths, below both trees, of what is compared.
    """
    found = []
    for name in sorted(names):
        paths = (one / name, other / name)
        missing = [str(path) for path in paths if not path.is_file()]
        if missing:
            found.append(f"{name}: there is no {missing[0]}")
        elif where := difference(*(path.read_bytes() for path in paths)):
            found.append(f"{name}: {where}")
    return found


def _bytes(one: bytes, other: bytes) -> str:
    shared = min(len(one), len(other))
    at = next((i for i in range(shared) if one[i] != other[i]), shared)
    if at == shared:
        return f"one has {len(one)} bytes, the other {len(other)}, the first {shared} the same"
    return f"byte {at}: {one[at]:#04x} and {other[at]:#04x}"


def _text(one: bytes, other: bytes) -> str:
    texts = [data.decode().splitlines() for data in (one, other)]
    for number, lines in enumerate(zip(*texts, strict=False), 1):
        if lines[0] != lines[1]:
            return f"line {number}: {_short(lines[0])} and {_short(lines[1])}"
    return ""


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def _json(one: bytes, other: bytes) -> str:
    return _value("", json.loads(one), json.loads(other))


def _value(at: str, one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            where = f"{at}.{key}" if at else key
            if key not in one or key not in other:
                return f"{where}: is in one alone"
            if found := _value(where, one[key], other[key]):
                return found
        return ""
    if isinstance(one, list) and isinstance(other, list):
        for i, (left, right) in enumerate(zip(one, other, strict=False)):
            if found := _value(f"{at}[{i}]", left, right):
                return found
        return "" if len(one) == len(other) else f"{at}: has {len(one)} and {len(other)} elements"
    same = type(one) is type(other) and one == other
    return "" if same else f"{at or 'the value'}: {_short(one)} and {_short(other)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _members(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> str:
    for name, data in one.items():
        if name not in other:
            return f"member {name} is in one alone"
        if found := difference(data, other[name]):
            return f"member {name}: {found}"
    for name in other:
        if name not in one:
            return f"member {name} is in one alone"
    if list(one) != list(other):
        return f"the order of members: {_short(list(one))} and {_short(list(other))}"
    return ""


def _zip(one: bytes, other: bytes) -> str:
    archives = [zipfile.ZipFile(io.BytesIO(data)) for data in (one, other)]
    if found := _members(
        *({i.filename: each.read(i) for i in each.infolist()} for each in archives)
    ):
        return found
    for left, right in zip(*(each.infolist() for each in archives), strict=True):
        for field in ("date_time", "compress_type", "create_system", "external_attr", "extra"):
            values = getattr(left, field), getattr(right, field)
            if values[0] != values[1]:
                return f"member {left.filename}, {field}: {values[0]!r} and {values[1]!r}"
    return ""


def _tar(one: bytes, other: bytes) -> str:
    archives = [tarfile.open(fileobj=io.BytesIO(data)) for data in (one, other)]  # noqa: SIM115
    contents = []
    for archive in archives:
        members = [(each.name, archive.extractfile(each)) for each in archive.getmembers()]
        contents.append({name: file.read() if file else b"" for name, file in members})
    if found := _members(*contents):
        return found
    for left, right in zip(*(archive.getmembers() for archive in archives), strict=True):
        for field in ("mode", "uid", "gid", "uname", "gname", "mtime", "type", "linkname"):
            values = getattr(left, field), getattr(right, field)
            if values[0] != values[1]:
                return f"member {left.name}, {field}: {values[0]!r} and {values[1]!r}"
    return ""


def _ar(one: bytes, other: bytes) -> str:
    headers, contents = zip(_ar_members(one), _ar_members(other), strict=True)
    if found := _members(*contents):
        return found
    for name, header in headers[0].items():
        if header != headers[1][name]:
            return f"member {name}, header: {header!r} and {headers[1][name]!r}"
    return ""


def _ar_members(data: bytes) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Headers and contents of an archive of objects (ar(5), with GNU's long names)."""
    headers: dict[str, bytes] = {}
    contents: dict[str, bytes] = {}
    long_names = b""
    at = len(_AR)
    while at < len(data):
        header = data[at : at + 60]
        size = int(header[48:58])
        content = data[at + 60 : at + 60 + size]
        name = header[:16].decode().rstrip()
        if name == "//":
            long_names = content
        elif name.startswith("/") and name[1:].isdigit():
            name = long_names[int(name[1:]) :].split(b"/\n")[0].decode()
        name = name if name in ("/", "//") else name.rstrip("/")
        while name in contents:
            name += "'"  # members may have the same name
        headers[name], contents[name] = header, content
        at += 60 + size + size % 2
    return headers, contents


def _elf(one: bytes, other: bytes) -> str:
    files = [ELFFile(io.BytesIO(data)) for data in (one, other)]
    sections = [list(file.iter_sections()) for file in files]
    names = [[section.name for section in each] for each in sections]
    if names[0] != names[1]:
        return f"sections: {_short(names[0])} and {_short(names[1])}"
    for left, right in zip(*sections, strict=True):
        contents = [section.data() for section in (left, right)]
        if contents[0] != contents[1]:
            shared = min(map(len, contents))
            at = next((i for i in range(shared) if contents[0][i] != contents[1][i]), shared)
            symbol = _symbol(files[0], left, at)
            lengths = (
                ""
                if len(contents[0]) == len(contents[1])
                else (f", which has {len(contents[0])} bytes and {len(contents[1])}")
            )
            return f"section {left.name}, offset {at:#x}{symbol}{lengths}"
    for left, right in zip(*sections, strict=True):
        for field in left.header:
            if left[field] != right[field]:
                return f"header of section {left.name}, {field}: {left[field]} and {right[field]}"
    return f"outside of sections, {_bytes(one, other)}"


def _symbol(file: ELFFile, section: Section, offset: int) -> str:
    """Names the symbol that an offset in a section belongs to."""
    # In an object, symbols' values are offsets; in a library, addresses.
    base = 0 if file["e_type"] == "ET_REL" else section["sh_addr"]
    index = file.get_section_index(section.name)
    for table in file.iter_sections():
        if isinstance(table, SymbolTableSection):
            for symbol in table.iter_symbols():
                inside = 0 <= offset - (symbol["st_value"] - base) < symbol["st_size"]
                if symbol["st_shndx"] == index and inside:
                    return f" (in {symbol.name})"
    return ""


_KINDS: Final[tuple[tuple[Callable[[bytes], bool], Callable[[bytes, bytes], str]], ...]] = (
    (lambda data: data.startswith(_ELF), _elf),
    (lambda data: data.startswith(_AR), _ar),
    (lambda data: data.startswith(_ZIP), _zip),
    (lambda data: data[_TAR[0] :].startswith(_TAR[1]), _tar),
    (lambda data: data[:1] in (b"{", b"["), _json),
    (_is_text, _text),
)
"""What files are, the most telling first, and how two of a kind are compared."""
