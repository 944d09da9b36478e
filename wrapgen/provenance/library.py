"""What a shared library says of itself: its compiler, what it is linked with, its kernels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from io import BytesIO
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from wrapgen.provenance.facts import ProvenanceError

_GPU_MACHINES: Final = {190: "NVIDIA's", 224: "AMD's"}
"""``e_machine`` of images for GPUs (System V ABI: EM_CUDA, EM_AMDGPU)."""


@dataclasses.dataclass(frozen=True)
class Library:
    """``compilers`` is the text of ``.comment``, ``symbols`` what the library exports."""

    soname: str
    needed: tuple[str, ...]
    compilers: tuple[str, ...]
    symbols: frozenset[str]


def read(data: bytes, where: str) -> Library:
    """Reads an ELF shared library.

    Raises:
      ProvenanceError: it is none.
    """
    soname = ""
    needed: list[str] = []
    symbols: set[str] = set()
    try:
        elf = ELFFile(BytesIO(data))
        for section in elf.iter_sections():
            if isinstance(section, DynamicSection):
                for tag in section.iter_tags():
                    if tag.entry.d_tag == "DT_NEEDED":
                        needed.append(str(tag.needed))
                    elif tag.entry.d_tag == "DT_SONAME":
                        soname = str(tag.soname)
        comment = elf.get_section_by_name(".comment")
        texts = comment.data().split(b"\0") if comment is not None else []
        dynamic = elf.get_section_by_name(".dynsym")
        if dynamic is not None:
            symbols = {
                str(symbol.name)
                for symbol in dynamic.iter_symbols()
                if symbol.entry.st_shndx != "SHN_UNDEF"
            }
    except (ELFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        # What the reader trips over in a damaged file is of many kinds.
        raise ProvenanceError(f"{where}: no ELF shared library: {error}") from error
    compilers = sorted({text.decode("utf-8", "replace") for text in texts if text})
    return Library(soname, tuple(sorted(needed)), tuple(compilers), frozenset(symbols))


def gpu_images(data: bytes) -> Iterator[int]:
    """Yields the offset of each ELF image for a GPU in a library. PTX, being text, is none."""
    at = data.find(b"\x7fELF", 1)
    while at >= 0:
        if int.from_bytes(data[at + 18 : at + 20], "little") in _GPU_MACHINES:
            yield at
        at = data.find(b"\x7fELF", at + 4)


def tool(comment: str) -> tuple[str, str]:
    """Returns name and version of a compiler by its entry in ``.comment``.

    ``GCC: (Debian 12.2.0-14) 12.2.0`` is ``("gcc", "12.2.0")``; of what has no known form the
    version is empty.
    """
    if match := re.fullmatch(r"GCC: \(.*\) ([0-9][0-9A-Za-z.]*).*", comment):
        return "gcc", match[1]
    if match := re.search(r"\bclang version ([0-9][0-9A-Za-z.]*)", comment):
        return "clang", match[1]
    if match := re.match(r"Linker: LLD ([0-9][0-9A-Za-z.]*)", comment):
        return "lld", match[1]
    return "compiler", ""
