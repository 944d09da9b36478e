"""Small kernels, and shards of them as ``lower`` writes them. Uses Triton's front end, no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton._C.libtriton import ir
from triton.backends.amd.compiler import HIPBackend
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.compiler import ASTSource
from triton.language.extra import libdevice

from wrapgen.dtype import INFO, DType
from wrapgen.kernels import Launch, Param, Request
from wrapgen.target import Target

_DTYPES = {info.triton: dtype for dtype, info in INFO.items()}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Triton function and how it is specialised. ``unaligned`` are the parameters of which
    nothing is promised."""

    function: Any
    signature: dict[str, str]
    constants: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    num_ctas: int = 1
    maxnreg: int | None = None
    unaligned: tuple[str, ...] = ()
    launch_pdl: bool = False

    @property
    def name(self) -> str:
        return str(self.function.__name__)

    @property
    def full_signature(self) -> dict[str, str]:
        """The signature with the constants, in the order of the function's parameters."""
        return {name: self.signature.get(name, "constexpr") for name in self.function.arg_names}

    @property
    def attributes(self) -> dict[tuple[int, ...], list[list[Any]]]:
        """Triton's attributes by parameter position."""
        return {
            (i,): [["tt.divisibility", 16]]
            for i, name in enumerate(self.function.arg_names)
            if name in self.signature
            and name not in self.unaligned
            and not self.signature[name].startswith("tensordesc")
        }

    def source(self) -> ASTSource:
        return ASTSource(self.function, self.full_signature, self.constants, self.attributes)

    def ttir(self, capability: int = 90) -> str:
        """TTIR without locations."""
        target = GPUTarget("cuda", capability, 32)
        backend = CUDABackend(target)
        options = backend.parse_options(
            {
                "num_warps": self.num_warps,
                "debug": bool(self.function.debug),
                "num_stages": self.num_stages,
                "num_ctas": self.num_ctas,
            }
        )
        context = ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        module = self.source().make_ir(
            target,
            options,
            backend.get_codegen_implementation(options),
            backend.get_module_map(),
            context,
        )
        return str(backend.make_ttir(module, {}, options, capability).str_nodebug())

    def hip_ttir(self, architecture: str) -> str:
        """TTIR without locations, as Triton makes it for one of AMD's architectures."""
        target = GPUTarget("hip", architecture, 64)
        backend = HIPBackend(target)
        options = backend.parse_options(
            {"num_warps": self.num_warps, "num_stages": self.num_stages}
        )
        context = ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        module = self.source().make_ir(
            target,
            options,
            backend.get_codegen_implementation(options),
            backend.get_module_map(),
            context,
        )
        return str(backend.make_ttir(module, {}, options).str_nodebug())

    def launch(self, ttir: str) -> Launch:
        params: list[Param] = []
        for name, kind in self.full_signature.items():
            if kind.startswith("tensordesc"):
                params += _tensor_map(name, kind)
            elif kind != "constexpr":
                pointer = "pointer" if kind.startswith("*") else "scalar"
                dtype = _DTYPES[kind.removeprefix("*")]
                params.append(Param(name, pointer, dtype, name not in self.unaligned))
        return Launch(
            name=self.name,
            ttir_sha256=hashlib.sha256(ttir.encode()).hexdigest(),
            num_warps=self.num_warps,
            num_stages=self.num_stages,
            num_ctas=self.num_ctas,
            params=tuple(params),
            maxnreg=self.maxnreg,
            launch_pdl=self.launch_pdl,
        )

    def request(self, target: Target) -> Request:
        amd = target.platform == "hip"
        ttir = self.hip_ttir(str(target)) if amd else self.ttir(target.capability)
        return Request(ttir.encode(), self.launch(ttir), target, f"{self.name}.ttir")


def _tensor_map(name: str, kind: str) -> list[Param]:
    """``tensordesc<fp16[64, 32]>``: the map, then the tensor's sizes and strides."""
    dtype, sizes = re.fullmatch(r"tensordesc<(\w+)\[(.*)\]>", kind).groups()  # type: ignore[union-attr]
    block = tuple(int(size) for size in sizes.split(","))
    described = [Param(name, "tensor_map", _DTYPES[dtype], False, block)]
    for what, of in (("shape", DType.INT32), ("stride", DType.INT64)):
        described += [Param(f"{name}_{what}_{i}", "scalar", of, False) for i in range(len(block))]
    return described


def launch_json(launch: Launch) -> dict[str, Any]:
    """The content of ``<kernel>.json``."""
    data = dataclasses.asdict(launch)
    return {key: value for key, value in data.items() if value is not None}


def write(shard: Path, kernels: Sequence[Kernel], capability: int = 90) -> Path:
    """Writes a shard; returns its directory."""
    shard.mkdir(parents=True)
    for kernel in kernels:
        ttir = kernel.ttir(capability)
        (shard / f"{kernel.name}.ttir").write_text(ttir, encoding="utf-8")
        text = json.dumps(launch_json(kernel.launch(ttir)))
        (shard / f"{kernel.name}.json").write_text(text, encoding="utf-8")
    return shard


@triton.jit
def pointwise(a, b, c, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < n
    value = tl.load(a + i, mask=mask) + tl.load(b + i, mask=mask)
    tl.store(c + i, tl.where(value > 0, value, 0.0).to(tl.float16), mask=mask)


@triton.jit
def dot(a, b, c, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, k, BK):
        at = start + depth
        left = tl.load(
            a + rows[:, None] * k + at[None, :],
            mask=(rows < m)[:, None] & (at < k)[None, :],
            other=0.0,
        )
        right = tl.load(
            b + at[:, None] * n + columns[None, :],
            mask=(columns < n)[None, :] & (at < k)[:, None],
            other=0.0,
        )
        total = tl.dot(left, right, total)
    mask = (rows < m)[:, None] & (columns < n)[None, :]
    tl.store(c + rows[:, None] * n + columns[None, :], total.to(tl.float16), mask=mask)


@triton.jit
def reduction(a, c, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = tl.program_id(0)
    value = tl.load(a + row * n + i, mask=i < n, other=0.0).to(tl.float32)
    tl.store(c + row, tl.sum(value / (1 + tl.exp(-value)), 0).to(tl.float16))


@triton.jit
def scalars(out, flag, small, wide, real, double, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = wide + small + real + double
    tl.store(out + i, tl.where(flag, value, 0.0).to(tl.float32) + i)


@triton.jit
def library(a, c, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(c + i, libdevice.tanh(tl.load(a + i)))


@triton.jit
def descriptor(a, c, n, BLOCK: tl.constexpr):
    rows = tl.make_tensor_descriptor(a, shape=[n, n], strides=[n, 1], block_shape=[BLOCK, BLOCK])
    value = rows.load([tl.program_id(0) * BLOCK, 0])
    i = tl.arange(0, BLOCK)
    tl.store(c + i[:, None] * BLOCK + i[None, :], value)


@triton.jit
def tensor_map(rows, n, c, BLOCK: tl.constexpr):
    value = rows.load([tl.program_id(0) * BLOCK, n])
    i = tl.arange(0, BLOCK)
    tl.store(c + i, tl.sum(value, 1))


@triton.jit
def dependent(a, c, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.extra.cuda.gdc_wait()
    tl.store(c + i, tl.load(a + i) + 1)


POINTWISE = Kernel(
    pointwise, {"a": "*fp16", "b": "*fp16", "c": "*fp16", "n": "i32"}, {"BLOCK": 1024}
)
DOT = Kernel(
    dot,
    {"a": "*fp16", "b": "*fp16", "c": "*fp16", "m": "i32", "n": "i32", "k": "i32"},
    {"BM": 128, "BN": 128, "BK": 64},
    num_warps=8,
)
REDUCTION = Kernel(
    reduction,
    {"a": "*fp16", "c": "*fp16", "n": "i32"},
    {"BLOCK": 2048},
    num_warps=8,
    unaligned=("n",),
)
SCALARS = Kernel(
    scalars,
    {"out": "*fp32", "flag": "i1", "small": "i16", "wide": "i64", "real": "fp32", "double": "fp64"},
    {"BLOCK": 128},
    num_warps=1,
    unaligned=("flag", "small", "wide", "real", "double"),
)
LIBRARY = Kernel(library, {"a": "*fp32", "c": "*fp32"}, {"BLOCK": 256})
DESCRIPTOR = Kernel(descriptor, {"a": "*fp16", "c": "*fp16", "n": "i32"}, {"BLOCK": 64})
TENSOR_MAP = Kernel(
    tensor_map,
    {"rows": "tensordesc<bf16[64, 32]>", "n": "i32", "c": "*bf16"},
    {"BLOCK": 64},
    unaligned=("n",),
)
DEPENDENT = Kernel(dependent, {"a": "*fp32", "c": "*fp32"}, {"BLOCK": 128}, launch_pdl=True)
KERNELS = (DOT, LIBRARY, POINTWISE, REDUCTION, SCALARS)
