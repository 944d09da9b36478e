"""Weights as one packed file, which a model in one file takes: no reader of safetensors is in it.

A header of 256 bytes: ``MAGIC``, the weights' digest (``program.weights_digest``) in 64 hexadecimal
digits, zeros. Then each weight, by name, row-major, at a multiple of 256 bytes, with zeros between.
Offsets depend on the weights' names, dtypes and shapes and on nothing else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from wrapgen import program as program_module
from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.memory import ALIGNMENT, align
from wrapgen.dtype import INFO
from wrapgen.program import Weight, weight_nbytes, weights_digest

MAGIC: Final = "rules_aoti weights 1\n"
HEADER: Final = 256
_CHUNK: Final = 1 << 20


def layout(weights: Iterable[Weight]) -> list[tuple[int, Weight]]:
    """The offset of each weight, in the order of the file."""
    placed, end = [], HEADER
    for weight in sorted(weights, key=lambda weight: weight.name.encode()):
        placed.append((end, weight))
        end += align(weight_nbytes(weight))
    return placed


def size(weights: Sequence[Weight]) -> int:
    """Bytes of the file."""
    return HEADER + sum(align(weight_nbytes(weight)) for weight in weights)


def pack(weights: Path, program: Path, out: Path) -> None:
    """Writes the packed file of a program's weights, read from a safetensors file.

    Raises ``CodegenError`` where a weight is missing or another than the program says.
    """
    wanted = program_module.load(program).weights
    scratch = out.with_name(f".{out.name}.new")
    with weights.open("rb") as source:
        begin, entries = _read_header(source, weights)
        places = [(offset, _find(weight, entries, weights)) for offset, weight in layout(wanted)]
        try:
            with scratch.open("wb") as target:
                target.write((MAGIC + weights_digest(wanted)).encode().ljust(HEADER, b"\0"))
                for offset, (first, end) in places:
                    assert target.tell() == offset
                    source.seek(begin + first)
                    _copy(source, target, end - first, weights)
                    target.write(bytes(align(end - first) - (end - first)))
            scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)


def _read_header(source: BinaryIO, path: Path) -> tuple[int, dict[str, object]]:
    """Where the data begins, and the header's entries."""
    (length,) = struct.unpack("<Q", source.read(8).ljust(8, b"\xff"))
    try:
        entries = json.loads(source.read(min(length, 100_000_000)))
    except (UnicodeDecodeError, ValueError) as error:
        raise CodegenError(f"{path}: not a safetensors file: {error}") from error
    if not isinstance(entries, dict):
        raise CodegenError(f"{path}: not a safetensors file: its header is no object")
    return 8 + length, entries


def _find(weight: Weight, entries: dict[str, object], path: Path) -> tuple[int, int]:
    entry = entries.get(weight.name)
    if not isinstance(entry, dict):
        raise CodegenError(f"{path}: has no weight {weight.name}; was it split from another model?")
    expected = {
        "dtype": INFO[weight.dtype].safetensors,
        "shape": list(weight.shape),
    }
    for field, value in expected.items():
        if entry.get(field) != value:
            raise CodegenError(
                f"{path}: weight {weight.name}: {field} is {entry.get(field)}, expected {value}"
            )
    first, end = entry["data_offsets"]
    if end - first != weight_nbytes(weight):
        raise CodegenError(
            f"{path}: weight {weight.name} has {end - first} bytes, expected "
            f"{weight_nbytes(weight)}"
        )
    return first, end


def _copy(source: BinaryIO, target: BinaryIO, nbytes: int, path: Path) -> None:
    while nbytes:
        data = source.read(min(nbytes, _CHUNK))
        if not data:
            raise CodegenError(f"{path}: is cut short")
        target.write(data)
        nbytes -= len(data)


assert HEADER % ALIGNMENT == 0
