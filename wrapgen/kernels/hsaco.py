"""Reads what a code object of AMD's (hsaco) says of its kernel.

It is an ELF file. A note holds a MessagePack map that describes each kernel; a symbol ``NAME.kd``
is the kernel's descriptor, 64 bytes that the hardware's front end reads. LLVM documents both: "User
Guide for AMDGPU Backend", "Code Object V5 Metadata" and "Code Object V3 Kernel Descriptor". What
both say must agree.
"""

from __future__ import annotations

import dataclasses
import io
import struct
from typing import TYPE_CHECKING, Any, Final

from wrapgen.kernels.cubin import Slot
from wrapgen.kernels.errors import KernelCompileError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_EM_AMDGPU: Final = 224
_ABI_V5: Final = 3
"""``EI_ABIVERSION`` of a code object of version 5."""
_NT_AMDGPU_METADATA: Final = 32
_TRIPLE: Final = "amdgcn-amd-amdhsa--"


@dataclasses.dataclass(frozen=True)
class Hsaco:
    """What a code object says of its one kernel.

    ``registers`` are a work-item's vector registers, accumulators included, ``scalar_registers`` a
    wavefront's; ``spills`` and ``scalar_spills`` count registers of each kind that are stored for
    want of room. ``stack`` in bytes of private memory a work-item, ``shared_memory`` in bytes of
    LDS a block that the code itself reserves. ``threads`` of a block at most, ``wavefront`` threads
    of a wavefront. ``params`` are what a launch passes; ``hidden`` names what HIP adds behind.
    """

    entry: str
    architecture: str
    registers: int
    scalar_registers: int
    spills: int
    scalar_spills: int
    stack: int
    shared_memory: int
    threads: int
    wavefront: int
    params: tuple[Slot, ...]
    hidden: tuple[str, ...]


def read(image: bytes) -> Hsaco:
    """Reads a code object with one kernel. Raises ``KernelCompileError`` that says what is off."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(image))
    except ELFError as error:
        raise KernelCompileError(f"not a code object: {error}") from error
    machine = elf.header["e_machine"]
    if machine not in (_EM_AMDGPU, "EM_AMDGPU"):
        raise KernelCompileError(f"not a code object: the ELF file is for machine {machine}")
    version = elf.header["e_ident"]["EI_ABIVERSION"]
    if version != _ABI_V5:
        raise KernelCompileError(f"the code object has ABI version {version}: expected {_ABI_V5}")
    told = _Map(_metadata(elf), "the code object's metadata")
    target = told.text("amdhsa.target")
    kernels = told.list("amdhsa.kernels")
    if len(kernels) != 1:
        raise KernelCompileError(f"the code object has {len(kernels)} kernels: expected one")
    entry = _Map(kernels[0], "the code object's kernel").text(".name")
    kernel = _Map(kernels[0], f"kernel {entry}: the code object's metadata")
    params, hidden = _params(kernel, entry)
    found = Hsaco(
        entry=entry,
        architecture=target.removeprefix(_TRIPLE).partition(":")[0],
        registers=kernel.integer(".vgpr_count"),
        scalar_registers=kernel.integer(".sgpr_count"),
        spills=kernel.integer(".vgpr_spill_count"),
        scalar_spills=kernel.integer(".sgpr_spill_count"),
        stack=kernel.integer(".private_segment_fixed_size"),
        shared_memory=kernel.integer(".group_segment_fixed_size"),
        threads=kernel.integer(".max_flat_workgroup_size"),
        wavefront=kernel.integer(".wavefront_size"),
        params=params,
        hidden=hidden,
    )
    _check_descriptor(elf, kernel, found)
    _check_complete(elf, entry)
    return found


def _metadata(elf: ELFFile) -> Any:
    from elftools.elf.sections import NoteSection

    section = elf.get_section_by_name(".note")
    notes = section.iter_notes() if isinstance(section, NoteSection) else ()
    found = [
        note["n_descdata"]
        for note in notes
        if note["n_name"] == "AMDGPU" and note["n_type"] == _NT_AMDGPU_METADATA
    ]
    if len(found) != 1:
        raise KernelCompileError(f"the code object has {len(found)} notes of AMD's: expected one")
    # The library decodes what it does not know as text, a character a byte.
    data = found[0].encode("latin-1") if isinstance(found[0], str) else bytes(found[0])
    return _unpack(data)


def _params(kernel: _Map, entry: str) -> tuple[tuple[Slot, ...], tuple[str, ...]]:
    """Returns explicit and hidden arguments, checked to lie in order in the argument segment."""
    slots: list[Slot] = []
    hidden: list[str] = []
    end = 0
    for number, argument in enumerate(kernel.list(".args")):
        fields = _Map(argument, f"kernel {entry}: argument {number} of the code object")
        kind = fields.text(".value_kind")
        slot = Slot(fields.integer(".offset"), fields.integer(".size"))
        if slot.offset < end:
            raise KernelCompileError(
                f"kernel {entry}: argument {number} at offset {slot.offset}: expected {end} or "
                "later"
            )
        end = slot.offset + slot.size
        if kind.startswith("hidden_"):
            hidden.append(kind)
        elif hidden:
            raise KernelCompileError(
                f"kernel {entry}: argument {number}, a {kind}, is behind the hidden {hidden[0]}"
            )
        elif kind not in ("global_buffer", "by_value"):
            raise KernelCompileError(
                f"kernel {entry}: argument {number} is a {kind}: expected a global_buffer or a "
                "by_value"
            )
        else:
            slots.append(slot)
    size = kernel.integer(".kernarg_segment_size")
    if size < end:
        raise KernelCompileError(
            f"kernel {entry}: arguments end at {end}, the code object reserves {size} bytes"
        )
    return tuple(slots), tuple(hidden)


def _check_descriptor(elf: ELFFile, kernel: _Map, found: Hsaco) -> None:
    """Compares the descriptor's sizes with the metadata's."""
    table = elf.get_section_by_name(".dynsym")
    symbols = table.get_symbol_by_name(f"{found.entry}.kd") if table is not None else None
    if not symbols or symbols[0]["st_size"] != 64:
        raise KernelCompileError(f"kernel {found.entry}: the code object has no descriptor of it")
    [symbol] = symbols
    section = elf.get_section(symbol["st_shndx"])
    at = symbol["st_value"] - section["sh_addr"]
    sizes = struct.unpack_from("<III", section.data(), at)
    expected = (found.shared_memory, found.stack, kernel.integer(".kernarg_segment_size"))
    if sizes != expected:
        raise KernelCompileError(
            f"kernel {found.entry}: bytes of LDS, private memory and arguments: the descriptor "
            f"says {sizes}, the metadata {expected}"
        )


def _check_complete(elf: ELFFile, entry: str) -> None:
    """Refuses calls of functions that are not there, which would fail when the code is loaded."""
    missing = sorted(
        symbol.name
        for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
        if symbol.name and symbol["st_shndx"] == "SHN_UNDEF"
    )
    if missing:
        raise KernelCompileError(
            f"kernel {entry}: calls {', '.join(missing)}, which AMD's device libraries lack"
        )


class _Map:
    """A map of the metadata whose fields must have a type."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise KernelCompileError(f"{where}: {data!r}: expected a map")
        self._data = data
        self._where = where

    def integer(self, key: str) -> int:
        return int(self._get(key, int))

    def text(self, key: str) -> str:
        return str(self._get(key, str))

    def list(self, key: str) -> list[Any]:
        return list(self._get(key, list))

    def _get(self, key: str, kind: type) -> Any:
        value = self._data.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise KernelCompileError(f"{self._where}: {key} is {value!r}: expected {kind.__name__}")
        return value


def _unpack(data: bytes) -> Any:
    """Decodes MessagePack; of its types, those that LLVM writes."""
    try:
        value, end = _unpack_at(data, 0)
    except (IndexError, TypeError, RecursionError, struct.error, UnicodeDecodeError) as error:
        raise KernelCompileError(f"the code object's metadata is malformed: {error}") from error
    if end != len(data):
        raise KernelCompileError(
            f"the code object's metadata is malformed: {len(data) - end} bytes behind its end"
        )
    return value


_SCALARS: Final = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}
_STRINGS: Final = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_ARRAYS: Final = {0xDC: ">H", 0xDD: ">I"}
_MAPS: Final = {0xDE: ">H", 0xDF: ">I"}


def _unpack_at(data: bytes, at: int) -> tuple[Any, int]:
    """Returns the value at an offset and the offset behind it."""
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag >= 0xE0:
        return tag - 0x100, at
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag in _SCALARS:
        return _number(_SCALARS[tag], data, at)
    if tag < 0x90:
        return _unpack_map(data, at, tag & 0xF)
    if tag < 0xA0:
        return _unpack_array(data, at, tag & 0xF)
    if tag < 0xC0:
        return _unpack_string(data, at, tag & 0x1F)
    for forms, unpack in (
        (_STRINGS, _unpack_string),
        (_ARRAYS, _unpack_array),
        (_MAPS, _unpack_map),
    ):
        if tag in forms:
            count, at = _number(forms[tag], data, at)
            return unpack(data, at, count)
    raise KernelCompileError(f"the code object's metadata is malformed: type {tag:#x}")


def _number(form: str, data: bytes, at: int) -> tuple[Any, int]:
    return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)


def _unpack_string(data: bytes, at: int, length: int) -> tuple[str, int]:
    if at + length > len(data):
        raise IndexError(f"a text of {length} bytes is cut off")
    return data[at : at + length].decode(), at + length


def _unpack_array(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(count):
        value, at = _unpack_at(data, at)
        values.append(value)
    return values, at


def _unpack_map(data: bytes, at: int, count: int) -> tuple[dict[Any, Any], int]:
    flat, at = _unpack_array(data, at, 2 * count)
    return dict(zip(flat[::2], flat[1::2], strict=True)), at
