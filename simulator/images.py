"""Reads what a driver would of machine code and PTX: kernels, their parameters and their needs."""

from __future__ import annotations

import dataclasses
import io
import re
from typing import Final

from wrapgen.kernels import cubin
from wrapgen.kernels.errors import KernelCompileError

_SM_SHIFT: Final = {7: 0, 8: 8}
"""Where in a cubin's ELF flags the eight bits of the compute capability begin, by the version of
CUDA's ELF ABI: LLVM, ``EF_CUDA_SM_MASK`` and ``EF_CUDA_SM_OFFSET``."""

_PARAM_BYTES: Final = {"8": 1, "16": 2, "32": 4, "64": 8}
_TARGET: Final = re.compile(r"^\s*\.target\s+sm_(\d+)", re.M)
_ENTRY: Final = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)(.*?)\{", re.S)
_PARAM: Final = re.compile(r"\.param\s+\.(?:[usbf])(8|16|32|64)\b[^,\[]*?([\w$]+)\s*$")
_THREADS: Final = re.compile(r"\.(reqntid|maxntid)\s+([\d\s,]+)")
_CLUSTER: Final = re.compile(r"\.reqnctapercluster\s+([\d\s,]+)")
_STATIC: Final = re.compile(r"^\s*\.shared\s[^;\n]*\.b8\s+[\w$]+\[(\d+)\]\s*;", re.M)


class ImageError(Exception):
    """An image that no driver would load; the message says why."""


@dataclasses.dataclass(frozen=True)
class Image:
    """What an image says of its one kernel.

    ``target`` is such as ``sm_90`` or ``compute_90``. ``threads`` are a block's, at most, or
    exactly where ``exact``; ``cluster`` counts the blocks of a cluster. ``static`` is the shared
    memory of a block in bytes, what a launch adds not counted; ``registers`` those of a thread, 0
    where only a later compilation decides. ``params`` has the size of each parameter in bytes.
    """

    entry: str
    target: str
    threads: int
    exact: bool
    cluster: int
    static: int
    registers: int
    params: tuple[int, ...]


def read(image: bytes) -> Image:
    """Reads a cubin or PTX. Raises ``ImageError``."""
    if image.startswith(b"\x7fELF"):
        return _read_cubin(image)
    return _read_ptx(image.decode("utf-8", errors="replace"))


def _read_cubin(image: bytes) -> Image:
    from elftools.elf.elffile import ELFFile

    try:
        binary = cubin.read(image)
    except KernelCompileError as error:
        raise ImageError(str(error)) from error
    elf = ELFFile(io.BytesIO(image))
    version = elf.header["e_ident"]["EI_ABIVERSION"]
    if version not in _SM_SHIFT:
        raise ImageError(f"the cubin is of version {version} of CUDA's ELF ABI: expected 7 or 8")
    shared = elf.get_section_by_name(f".nv.shared.{binary.entry}")
    static = 0 if shared is None else int(shared["sh_size"])
    # From 9.0 on a block's first KiB is the system's, which the device's limit does not count.
    if static and elf.get_section_by_name(".nv.shared.reserved.0") is not None:
        static -= 1024
    return Image(
        entry=binary.entry,
        target=f"sm_{int(elf.header['e_flags']) >> _SM_SHIFT[version] & 0xFF}",
        threads=binary.threads,
        exact=True,
        cluster=binary.cluster,
        static=static,
        registers=binary.registers,
        params=tuple(slot.size for slot in binary.params),
    )


def _read_ptx(text: str) -> Image:
    text = re.sub(r"//[^\n]*", "", text)
    target = _TARGET.search(text)
    entries = _ENTRY.findall(text)
    if target is None:
        raise ImageError("the PTX has no .target")
    if len(entries) != 1:
        names = ", ".join(name for name, _, _ in entries) or "none"
        raise ImageError(f"the PTX has kernels {names}: expected exactly one")
    name, params, directives = entries[0]
    threads = _THREADS.search(directives)
    cluster = _CLUSTER.search(directives)
    return Image(
        entry=name,
        target=f"compute_{target[1]}",
        threads=_product(threads[2]) if threads else 1024,
        exact=threads is not None and threads[1] == "reqntid",
        cluster=_product(cluster[1]) if cluster else 1,
        static=sum(int(size) for size in _STATIC.findall(text)),
        registers=0,
        params=tuple(_param_bytes(name, each) for each in params.split(",") if each.strip()),
    )


def _product(extents: str) -> int:
    result = 1
    for extent in extents.split(","):
        result *= int(extent)
    return result


def _param_bytes(kernel: str, declaration: str) -> int:
    match = _PARAM.search(declaration.strip())
    if match is None:
        raise ImageError(f"kernel {kernel}: parameter {declaration.strip()!r} is of no known type")
    return _PARAM_BYTES[match[1]]
