"""Compiled kernels: finds a program's images, checks them against its launches and embeds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import pydantic

from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.memory import ALIGNMENT
from wrapgen.dtype import INFO
from wrapgen.images import damage
from wrapgen.program import Kernel, KernelParam, place
from wrapgen.target import Target

METADATA_VERSION: Final = 2

POINTER_SIZE: Final = 8
MAP_SIZE: Final = 128
MAP_ALIGNMENT: Final = 64
"""Bytes of a tensor map, CUtensorMap, among a kernel's parameters."""
SCRATCH_POINTERS: Final = ("global scratch", "profile scratch")
"""What Triton appends to every kernel's parameters (triton/backends/nvidia/driver.c)."""

_FORMATS: Final = {"sm": "cubin", "compute": "ptx", "gfx": "hsaco"}

_Count = Annotated[int, pydantic.Field(ge=0)]


@dataclasses.dataclass(frozen=True)
class Param:
    """Where a parameter is in the kernel's parameter space; in bytes."""

    offset: _Count
    size: _Count

    __pydantic_config__ = pydantic.ConfigDict(strict=True)


@dataclasses.dataclass(frozen=True)
class TensorMap:
    """How a tensor map among the parameters is to be encoded, as cuTensorMapEncodeTiled takes it:
    which parameter, enumerators of element type and swizzle, and the sizes of what is copied at a
    time, in elements, outermost first."""

    param: _Count
    element: _Count
    swizzle: _Count
    box: tuple[_Count, ...]

    __pydantic_config__ = pydantic.ConfigDict(strict=True)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What the generator needs of a kernel's metadata file, as the compile step read it back from
    the image. Further fields are for people."""

    schema_version: int
    name: str
    target: str
    format: Literal["cubin", "ptx", "hsaco"]
    size: _Count
    sha256: str
    ttir_sha256: str
    driver: _Count
    threads: _Count
    num_ctas: _Count
    shared_memory: _Count
    params: tuple[Param, ...]
    global_scratch: _Count
    profile_scratch: _Count
    global_scratch_align: _Count = 1
    tensor_maps: tuple[TensorMap, ...] = ()

    __pydantic_config__ = pydantic.ConfigDict(strict=True, extra="ignore")


_ADAPTER: Final[pydantic.TypeAdapter[Metadata]] = pydantic.TypeAdapter(Metadata)


@dataclasses.dataclass(frozen=True)
class Image:
    """A kernel compiled for one target."""

    target: Target
    kernel: str
    metadata: Metadata
    data: bytes

    @property
    def path(self) -> str:
        """Where the image is in the generator's output."""
        return f"images/{self.target}/{self.kernel}.{self.metadata.format}"


def load(kernel: Kernel, target: Target, directories: Sequence[Path]) -> Image:
    """Finds and checks one kernel's image in the outputs of the compile step.

    Raises ``CodegenError`` if no directory has it, two have different ones, or it is not what the
    program launches.
    """
    found = [d for d in directories if (d / str(target) / f"{kernel.name}.json").is_file()]
    if not found:
        places = ", ".join(str(d / str(target)) for d in directories) or "no directory given"
        raise CodegenError(
            f"kernel {kernel.name} is not compiled for {target}: there is no {kernel.name}.json in "
            f"{places}. Compile its shard ({kernel.shard:02}) for {target} and pass that directory"
        )
    images = [_read(kernel, target, directory) for directory in found]
    for directory, image in zip(found[1:], images[1:], strict=True):
        if image != images[0]:
            raise CodegenError(
                f"kernel {kernel.name} for {target} differs between {found[0]} and {directory}"
            )
    return images[0]


def _read(kernel: Kernel, target: Target, directory: Path) -> Image:
    path = directory / str(target) / f"{kernel.name}.json"
    metadata = _metadata(path)
    expected = {
        "schema_version": METADATA_VERSION,
        "name": kernel.name,
        "target": str(target),
        "format": _FORMATS[target.kind],
        "ttir_sha256": kernel.ttir_sha256,
        "num_ctas": kernel.num_ctas,
    }
    for field, value in expected.items():
        if getattr(metadata, field) != value:
            raise CodegenError(
                f"{path}: {field} is {getattr(metadata, field)!r}, expected {value!r}"
            )
    image = path.with_suffix(f".{metadata.format}")
    try:
        data = image.read_bytes()
    except FileNotFoundError as error:
        raise CodegenError(f"{image} is missing, though {path.name} describes it") from error
    if message := damage(
        image,
        data,
        size=metadata.size,
        sha256=metadata.sha256,
        kernel=kernel.name,
        target=str(target),
    ):
        raise CodegenError(message)
    check(kernel, target, metadata, where=str(path))
    return Image(target, kernel.name, metadata, data)


def _metadata(path: Path) -> Metadata:
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        faults = [f"{path}: {place(fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise CodegenError("\n".join(faults)) from error


def check(kernel: Kernel, target: Target, metadata: Metadata, *, where: str) -> None:
    """Raises ``CodegenError`` unless the compiled kernel takes what the program passes it.

    Parameters are laid out one after the other, each at a multiple of its size: PTX ISA, "Kernel
    Function Parameters". A tensor map is at a multiple of 64, counted from where no parameter is:
    the compile step has seen to that, and here it may be up to so much further on.
    """
    expected = [
        (f"parameter {i} {param.name!r} ({_spell(param)})", _size(param))
        for i, param in enumerate(kernel.params)
    ]
    expected += [(f"the {name} pointer", POINTER_SIZE) for name in SCRATCH_POINTERS]
    if len(metadata.params) != len(expected):
        raise CodegenError(
            f"{where}: kernel {kernel.name} has {len(metadata.params)} parameters, expected "
            f"{len(expected)}: {len(kernel.params)} of the program and {len(SCRATCH_POINTERS)} "
            "scratch pointers"
        )
    end = 0
    for (label, size), param in zip(expected, metadata.params, strict=True):
        offset = -(-end // min(size, MAP_ALIGNMENT)) * min(size, MAP_ALIGNMENT)
        if size == MAP_SIZE and end <= param.offset < end + MAP_ALIGNMENT:
            offset = param.offset
        if (param.offset, param.size) != (offset, size):
            raise CodegenError(
                f"{where}: kernel {kernel.name}, {label}: expected {size} bytes at offset "
                f"{offset}, the compiled kernel has {param.size} bytes at offset {param.offset}"
            )
        end = offset + size
    _check_tensor_maps(kernel, metadata, where)
    _check_scratch(kernel, metadata, where)
    limit = target.device.shared_memory_per_block_optin
    if metadata.shared_memory > limit:
        raise CodegenError(
            f"{where}: kernel {kernel.name} needs {metadata.shared_memory} bytes of shared memory "
            f"a block, a device of {target} has {limit}; choose a smaller configuration"
        )
    threads = metadata.threads
    warp = target.device.warp_size
    if threads % warp or not warp <= threads <= target.device.max_threads_per_block:
        raise CodegenError(
            f"{where}: kernel {kernel.name} has blocks of {threads} threads, expected a multiple "
            f"of {warp} up to {target.device.max_threads_per_block}"
        )


def _check_tensor_maps(kernel: Kernel, metadata: Metadata, where: str) -> None:
    """Raises ``CodegenError`` unless the metadata describes each tensor map, for its parameter."""
    params = {i: param for i, param in enumerate(kernel.params) if param.kind == "tensor_map"}
    described = [each.param for each in metadata.tensor_maps]
    if described != list(params):
        raise CodegenError(
            f"{where}: kernel {kernel.name} has tensor maps at parameters {list(params)}, the "
            f"metadata describes those at {described}"
        )
    for each in metadata.tensor_maps:
        param = params[each.param]
        if len(each.box) != len(param.block) or any(
            not 0 < box <= size or size % box
            for box, size in zip(each.box, param.block, strict=True)
        ):
            raise CodegenError(
                f"{where}: kernel {kernel.name}, parameter {each.param} {param.name!r}: blocks of "
                f"{list(param.block)} are copied by {list(each.box)}, which do not make up one"
            )


def _check_scratch(kernel: Kernel, metadata: Metadata, where: str) -> None:
    if metadata.global_scratch and ALIGNMENT % max(metadata.global_scratch_align, 1):
        raise CodegenError(
            f"{where}: kernel {kernel.name} needs scratch memory at a multiple of "
            f"{metadata.global_scratch_align} bytes, expected a divisor of {ALIGNMENT}"
        )
    if metadata.profile_scratch:
        raise CodegenError(
            f"{where}: kernel {kernel.name} needs {metadata.profile_scratch} bytes of profile "
            "scratch memory a block, which is not supported; compile it without profiling"
        )


def _spell(param: KernelParam) -> str:
    if param.kind == "tensor_map":
        return f"tensor map of {param.dtype}"
    return f"pointer to {param.dtype}" if param.kind == "pointer" else str(param.dtype)


def _size(param: KernelParam) -> int:
    sizes = {"pointer": POINTER_SIZE, "tensor_map": MAP_SIZE}
    return sizes.get(param.kind) or INFO[param.dtype].itemsize


class Embedding:
    """The images of a model, each once, under symbols of the assembler."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._symbols: dict[bytes, str] = {}
        self.images: list[tuple[str, Image]] = []
        """Symbol and image, in the order of embedding."""

    def add(self, image: Image) -> str:
        """Embeds an image, unless its bytes already are; returns the symbol where they begin. They
        end at the symbol with ``_end`` behind it."""
        symbol = f"aoti_{self._model}_{image.target}_{image.kernel}"
        known = self._symbols.setdefault(image.data, symbol)
        if known == symbol:
            self.images.append((symbol, image))
        return known

    def files(self) -> dict[str, bytes]:
        """The image files that ``assembly`` includes, by path."""
        return {image.path: image.data for _, image in self.images}

    def assembly(self) -> str:
        """Text of kernels.S."""
        blocks = []
        for symbol, image in self.images:
            # PTX is text, which the driver reads up to a zero byte.
            zero = "    .byte 0\n" if image.metadata.format == "ptx" else ""
            alignment = 16 if image.metadata.format == "ptx" else 64
            blocks.append(
                f"""
    .balign {alignment}
    .global {symbol}
    .global {symbol}_end
    .hidden {symbol}
    .hidden {symbol}_end
    .type {symbol}, %object
    .type {symbol}_end, %object
{symbol}:
    .incbin "{image.path}"
{symbol}_end:
    .size {symbol}, {symbol}_end - {symbol}
    .size {symbol}_end, 0
{zero}"""
            )
        return _ASSEMBLY_HEAD + "".join(blocks)


_ASSEMBLY_HEAD: Final = """\
// The compiled kernels, for any ELF platform. Generated by wrapgen; do not edit.
//
// Paths are relative to this file's directory: pass it with -I.

    .section .note.GNU-stack,"",%progbits

    .section .rodata,"a",%progbits
"""
