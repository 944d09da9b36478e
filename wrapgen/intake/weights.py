"""Tensors of an archive: where they lie, what they look like, and the file they leave in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors

from wrapgen.dtype import DType, info
from wrapgen.intake.errors import MalformedError, MissingMemberError, PayloadError, PickleError
from wrapgen.intake.schema import SCALAR_TYPES


@dataclasses.dataclass(frozen=True)
class Layout:
    """A tensor's place in its storage. Sizes, strides and offset count elements."""

    dtype: DType
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def contiguous(self) -> bool:
        """Whether it is row-major without gaps; the stride of a dimension of size 1 is free."""
        if 0 in self.sizes:
            return True
        pairs = zip(self.sizes, self.strides, row_major(self.sizes), strict=True)
        return all(size == 1 or stride == wanted for size, stride, wanted in pairs)

    @property
    def end(self) -> int:
        """One past the last element it reaches in its storage."""
        if 0 in self.sizes:
            return 0
        pairs = zip(self.sizes, self.strides, strict=True)
        return self.offset + sum((size - 1) * stride for size, stride in pairs) + 1


@dataclasses.dataclass(frozen=True)
class Payload:
    """A tensor that the archive declares: the member its storage is, and its place there."""

    member: str
    layout: Layout


def row_major(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements, the last dimension fastest; PyTorch's for sizes of 0 and 1 as well."""
    strides: list[int] = []
    step = 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def read_layout(meta: Mapping[str, Any], where: str) -> Layout:
    """Reads a ``TensorMeta`` of static size; raises ``MalformedError`` for any other."""
    sizes = tuple(_static(size, f"{where}: sizes") for size in meta["sizes"])
    strides = tuple(_static(stride, f"{where}: strides") for stride in meta["strides"])
    offset = _static(meta["storage_offset"], f"{where}: storage_offset")
    if len(sizes) != len(strides):
        raise MalformedError(f"{where}: {len(sizes)} sizes and {len(strides)} strides")
    dtype = SCALAR_TYPES[meta["dtype"]]
    assert isinstance(dtype, DType)  # schema.check refuses others
    return Layout(dtype, sizes, strides, offset)


def _static(size: Mapping[str, Any], where: str) -> int:
    if "as_int" not in size:
        raise MalformedError(f"{where}: a weight cannot have a size known only at run time")
    number: int = size["as_int"]
    if number < 0:
        raise MalformedError(f"{where}: {number} is negative")
    return number


def read_payloads(config: Mapping[str, Any], folder: str, where: str) -> dict[str, Payload]:
    """Reads a checked ``PayloadConfig``.

    Args:
      config: its ``config`` field.
      folder: the archive's folder that its paths are relative to.
      where: what messages start with.

    Raises:
      PickleError, MalformedError: as the classes say.
    """
    payloads = {}
    for fqn, entry in config.items():
        path = entry["path_name"]
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise PickleError(
                f"{where}: {fqn} is stored as a pickle ({folder}/{path}); pickles run code when "
                "opened and are never opened here. Export a model whose weights are plain tensors, "
                "not tensor subclasses or custom objects"
            )
        if "/" in path or path in ("", ".", ".."):
            raise MalformedError(f"{where}: {fqn}: path_name {path!r} is no file name")
        layout = read_layout(entry["tensor_meta"], f"{where}: {fqn}")
        payloads[fqn] = Payload(f"{folder}/{path}", layout)
    return payloads


def view(storage: npt.NDArray[np.uint8], layout: Layout, where: str) -> npt.NDArray[Any]:
    """Returns the tensor as a contiguous array of unsigned integers or bytes of its item size.

    It shares the storage's memory where the tensor is contiguous there, and is a copy elsewhere.

    Raises:
      PayloadError: the tensor reaches beyond its storage.
    """
    size = info(layout.dtype).itemsize
    if layout.end * size > storage.nbytes:
        hint = "; was the model exported with fake tensors?" if storage.nbytes == 0 else ""
        raise PayloadError(
            f"{where}: sizes {list(layout.sizes)}, strides {list(layout.strides)} and offset "
            f"{layout.offset} of {layout.dtype} need {layout.end * size} bytes, the archive holds "
            f"{storage.nbytes}{hint}"
        )
    if storage.nbytes % size:
        raise PayloadError(
            f"{where}: {storage.nbytes} bytes are no multiple of an element of {layout.dtype}"
        )
    if 0 in layout.sizes:
        return np.empty(layout.sizes, dtype=f"u{size}")
    elements = storage.view(f"u{size}")
    strided = np.lib.stride_tricks.as_strided(
        elements[layout.offset :],
        layout.sizes,
        tuple(stride * size for stride in layout.strides),
        writeable=False,
    )
    return np.ascontiguousarray(strided).reshape(layout.sizes)


def check_storage(payloads: Mapping[str, Payload], storages: Mapping[str, int], where: str) -> None:
    """Checks that every storage is there and as large as the tensors in it declare.

    Args:
      payloads: tensors by name.
      storages: bytes of each member of the archive.
      where: what messages start with.

    Raises:
      MissingMemberError, PayloadError: as the classes say.
    """
    needed: dict[str, int] = {}
    elements: dict[str, int] = {}
    for fqn, payload in sorted(payloads.items()):
        size = info(payload.layout.dtype).itemsize
        if payload.member not in storages:
            raise MissingMemberError(f"{where}: {fqn}: {payload.member} is missing")
        needed[payload.member] = max(needed.get(payload.member, 0), payload.layout.end * size)
        elements[payload.member] = elements.get(payload.member, 0) + size * math.prod(
            payload.layout.sizes
        )
        # A few bytes that are declared to be a huge tensor (stride 0) would fill the disk.
        if elements[payload.member] > 16 * max(storages[payload.member], 1 << 20):
            raise PayloadError(
                f"{where}: {fqn}: the tensors in {payload.member} add up to "
                f"{elements[payload.member]} bytes, its payload is {storages[payload.member]}"
            )
    for member, size in needed.items():
        if storages[member] < size:
            names = [fqn for fqn, payload in sorted(payloads.items()) if payload.member == member]
            hint = "; was the model exported with fake tensors?" if storages[member] == 0 else ""
            raise PayloadError(
                f"{where}: {names[0]}: {member} holds {storages[member]} bytes, its declared "
                f"sizes, strides and offset need {size}{hint}"
            )


def write_safetensors(tensors: Mapping[str, tuple[DType, npt.NDArray[Any]]], path: Path) -> None:
    """Writes contiguous arrays of raw elements; the same tensors give the same bytes.

    The library orders tensors by alignment and then by name. It is given addresses, not copies, so
    mapped payloads pass through without filling memory.
    """
    specs = {
        fqn: safetensors.TensorSpec(
            dtype=str(dtype),
            shape=list(array.shape),
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for fqn, (dtype, array) in sorted(tensors.items())
    }
    safetensors.serialize_file(specs, path)
