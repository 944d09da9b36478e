"""Reads what a cubin says of its kernel.

A cubin is an ELF file. Section ``.nv.info`` holds attributes of all functions, ``.nv.info.NAME``
those of one, as records of a format byte, an attribute byte and a value: two bytes for the formats
NVAL, BVAL and HVAL, or for SVAL a two-byte size and that many bytes. NVIDIA does not document them;
names are as ``cuobjdump -elf`` prints them, and the tests compare what is read here with what that
tool prints.
"""

from __future__ import annotations

import dataclasses
import io
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from wrapgen.kernels.errors import KernelCompileError
from wrapgen.kernels.launch import MAX_ALIGNMENT

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_EM_CUDA: Final = 190
_EIFMT_SVAL: Final = 0x04
_EIATTR_PARAM_CBANK: Final = 0x0A
_EIATTR_REQNTID: Final = 0x10
_EIATTR_FRAME_SIZE: Final = 0x11
_EIATTR_MIN_STACK_SIZE: Final = 0x12
_EIATTR_KPARAM_INFO: Final = 0x17
_EIATTR_CBANK_PARAM_SIZE: Final = 0x19
_EIATTR_REGCOUNT: Final = 0x2F
_EIATTR_CUDA_API_VERSION: Final = 0x37
_EIATTR_CTA_PER_CLUSTER: Final = 0x3D


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where a parameter lies in the kernel's parameter space, in bytes."""

    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Cubin:
    """What a cubin says of its one kernel.

    ``registers`` a thread; ``frame`` and ``stack`` (frame and those of called functions) in bytes
    of local memory a thread; ``threads`` of a block and ``cluster`` blocks of a cluster are what
    the code requires; ``cuda`` is the toolkit's version as 10 * major + minor.
    """

    entry: str
    registers: int
    frame: int
    stack: int
    threads: int
    cluster: int
    params: tuple[Slot, ...]
    cuda: int


def preload() -> None:
    """Imports the ELF library, so that processes forked from this one need not."""
    import elftools.elf.elffile  # noqa: F401


def read(image: bytes) -> Cubin:
    """Reads a cubin with one kernel. Raises ``KernelCompileError`` that says what is missing."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(image))
    except ELFError as error:
        raise KernelCompileError(f"not a cubin: {error}") from error
    machine = elf.header["e_machine"]
    if machine not in (_EM_CUDA, "EM_CUDA"):
        raise KernelCompileError(f"not a cubin: the ELF file is for machine {machine}")
    entry, symbol = _entry(elf)
    everywhere = list(_records(elf, ".nv.info"))
    here = list(_records(elf, f".nv.info.{entry}"))
    return Cubin(
        entry=entry,
        registers=_of_function(everywhere, _EIATTR_REGCOUNT, symbol, entry),
        frame=_of_function(everywhere, _EIATTR_FRAME_SIZE, symbol, entry),
        stack=_of_function(everywhere, _EIATTR_MIN_STACK_SIZE, symbol, entry),
        threads=_extent(here, _EIATTR_REQNTID, entry),
        cluster=_extent(here, _EIATTR_CTA_PER_CLUSTER, entry, absent=1),
        params=_params(here, entry),
        cuda=_word(_one(here, _EIATTR_CUDA_API_VERSION, "CUDA_API_VERSION", entry)),
    )


def _entry(elf: ELFFile) -> tuple[str, int]:
    """Returns name and symbol index of the one kernel, the one function with attributes."""
    from elftools.elf.sections import SymbolTableSection

    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        raise KernelCompileError("the cubin has no symbol table")
    entries = [
        (symbol.name, index)
        for index, symbol in enumerate(table.iter_symbols())
        if symbol["st_info"]["type"] == "STT_FUNC"
        and elf.get_section_by_name(f".nv.info.{symbol.name}") is not None
    ]
    if len(entries) != 1:
        names = ", ".join(name for name, _ in entries) or "none"
        raise KernelCompileError(f"the cubin has kernels {names}: expected exactly one")
    return entries[0]


_Record = tuple[int, bytes]


def _records(elf: ELFFile, name: str) -> Iterator[_Record]:
    """Yields (attribute, value) of an attribute section."""
    section = elf.get_section_by_name(name)
    if section is None:
        raise KernelCompileError(f"the cubin has no section {name}")
    data = section.data()
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise KernelCompileError(f"section {name} of the cubin ends inside a record")
        form, attribute, short = struct.unpack_from("<BBH", data, at)
        value = data[at + 2 : at + 4]
        at += 4
        if form == _EIFMT_SVAL:
            value = data[at : at + short]
            at += short
            if len(value) != short:
                raise KernelCompileError(f"section {name} of the cubin ends inside a record")
        yield attribute, value


def _all(records: list[_Record], attribute: int) -> list[bytes]:
    return [value for kind, value in records if kind == attribute]


def _one(records: list[_Record], attribute: int, name: str, entry: str) -> bytes:
    values = _all(records, attribute)
    if len(values) != 1:
        raise KernelCompileError(
            f"kernel {entry}: the cubin has {len(values)} attributes {name}: expected one"
        )
    return values[0]


def _word(value: bytes) -> int:
    return int.from_bytes(value[:4], "little")


def _of_function(records: list[_Record], attribute: int, symbol: int, entry: str) -> int:
    """Returns the attribute's value for the function with that symbol index."""
    for value in _all(records, attribute):
        index, number = struct.unpack_from("<II", value)
        if index == symbol:
            return int(number)
    raise KernelCompileError(f"kernel {entry}: the cubin has no attribute {attribute:#x} for it")


def _extent(
    records: list[_Record], attribute: int, entry: str, *, absent: int | None = None
) -> int:
    """Returns the product of a three-dimensional extent."""
    values = _all(records, attribute)
    if not values and absent is not None:
        return absent
    if len(values) != 1 or len(values[0]) != 12:
        raise KernelCompileError(f"kernel {entry}: the cubin does not fix its block size")
    x, y, z = struct.unpack("<III", values[0])
    return int(x * y * z)


def _params(records: list[_Record], entry: str) -> tuple[Slot, ...]:
    """Returns the parameters in order, checked to lie one after another in the constant bank."""
    found: dict[int, Slot] = {}
    for value in _all(records, _EIATTR_KPARAM_INFO):
        # u32 index, u16 ordinal, u16 offset, u32 flags whose upper 14 bits are the size
        _, ordinal, offset, flags = struct.unpack("<IHHI", value)
        found[ordinal] = Slot(int(offset), int(flags >> 18))
    if sorted(found) != list(range(len(found))):
        raise KernelCompileError(f"kernel {entry}: the cubin lists parameters {sorted(found)}")
    slots = tuple(found[ordinal] for ordinal in range(len(found)))
    reserved = _word(_one(records, _EIATTR_PARAM_CBANK, "PARAM_CBANK", entry)[4:])
    begin, bank = reserved & 0xFFFF, reserved >> 16
    end = 0
    for ordinal, slot in enumerate(slots):
        # Aligned is the address in the bank, which parameters do not begin.
        aligned = not slot.size or (begin + slot.offset) % min(slot.size, MAX_ALIGNMENT) == 0
        if slot.offset < end or not aligned:
            raise KernelCompileError(
                f"kernel {entry}: parameter {ordinal} at offset {slot.offset} from {begin}, size "
                f"{slot.size}: expected it aligned to its size, to at most {MAX_ALIGNMENT}, at "
                f"{end} or later"
            )
        end = slot.offset + slot.size
    size = _word(_one(records, _EIATTR_CBANK_PARAM_SIZE, "CBANK_PARAM_SIZE", entry))
    if not end == bank == size:
        raise KernelCompileError(
            f"kernel {entry}: parameters end at {end}, the cubin reserves {bank} and {size} bytes"
        )
    return slots
