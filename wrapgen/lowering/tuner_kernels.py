"""Kernels that the tuner needs beside the candidates: they fill inputs and compare results.

They run on the device, so that the tuner needs no package for numbers, and the bytes of large
tensors need not come to the host.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import triton
import triton.language as tl

from wrapgen.dtype import INFO, DType
from wrapgen.lowering.kernel import Built, make_ttir
from wrapgen.program import Kernel, KernelParam
from wrapgen.target import Device

BLOCK: Final = 4096
"""Elements to a program, of either kernel."""

FIELDS: Final = 5
"""Numbers that a program of ``compare`` writes; ``compare`` says which."""


@triton.jit
def fill(out, n, seed, BLOCK: tl.constexpr, BOOL: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """Writes numbers that depend on place and seed alone: mean 0 and variance 1, nearly normal (the
    sum of four uniform ones); or 0 and 1."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    # The finalizer of MurmurHash3.
    h = at.to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32)
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    h = h ^ (h >> 16)
    if BOOL:
        value = (h & 1).to(tl.float32)
    else:
        total = (h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24)
        value = (total.to(tl.float32) - 510.0) * 0.0067658
    tl.store(out + at, value.to(out.dtype.element_ty), mask=at < n)


@triton.jit
def compare(found, wanted, out, n, BLOCK: tl.constexpr, EXACT: tl.constexpr):  # type: ignore[no-untyped-def] # noqa: N803
    """For each program, in ``out[field][program]``: the sum of squares of what differs, and of what
    was wanted; the largest of either, without its sign; how many elements are wrong. Those are the
    ones that are a finite number in one tensor and not in the other, or another infinity; of exact
    types, all that differ."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    own = tl.load(found + at, mask=at < n, other=0)
    other = tl.load(wanted + at, mask=at < n, other=0)
    a = own.to(tl.float32)
    b = other.to(tl.float32)
    if EXACT:
        finite = own == own
        wrong = tl.where(own == other, 0.0, 1.0)
    else:
        limit = 3.4028234e38
        finite = (tl.abs(a) <= limit) & (tl.abs(b) <= limit)
        same = (a == b) | ((a != a) & (b != b))
        wrong = tl.where(finite | same, 0.0, 1.0)
    difference = tl.abs(tl.where(finite, a - b, 0.0))
    b = tl.abs(tl.where(finite, b, 0.0))
    row = out + tl.program_id(0)
    step = tl.num_programs(0)
    tl.store(row, tl.sum(difference * difference, 0))
    tl.store(row + step, tl.sum(b * b, 0))
    tl.store(row + 2 * step, tl.max(difference, 0))
    tl.store(row + 3 * step, tl.max(b, 0))
    tl.store(row + 4 * step, tl.sum(wrong, 0))


def build(kind: str, dtype: DType, device: Device, num_shards: int) -> Built:
    """``fill`` or ``compare`` for tensors of one type."""
    element = INFO[dtype].triton
    function: Any = {"fill": fill, "compare": compare}[kind]
    constants: dict[str, Any] = {"BLOCK": BLOCK}
    if kind == "fill":
        kinds = {"out": f"*{element}", "n": "i64", "seed": "i32"}
        constants["BOOL"] = dtype == DType.BOOL
        dtypes = {"out": dtype, "n": DType.INT64, "seed": DType.INT32}
    else:
        kinds = {"found": f"*{element}", "wanted": f"*{element}", "out": "*fp32", "n": "i64"}
        constants["EXACT"] = not dtype.startswith(("float", "bfloat"))
        dtypes = {"found": dtype, "wanted": dtype, "out": DType.FLOAT32, "n": DType.INT64}
    signature = {**kinds, **dict.fromkeys(constants, "constexpr")}
    options = {"num_warps": 8, "num_stages": 1, "num_ctas": 1}
    ttir = make_ttir(function, signature, constants, {}, options, device)
    digest = hashlib.sha256(ttir.encode()).hexdigest()[:12]
    name = f"tuner_{kind}_{dtype}_{digest}"
    ttir = ttir.replace(f"@{kind}(", f"@{name}(")
    kernel = Kernel(
        name=name,
        shard=int(digest, 16) % num_shards,
        ttir_sha256=hashlib.sha256(ttir.encode()).hexdigest(),
        params=tuple(
            KernelParam(
                name=param,
                kind="pointer" if kinds[param].startswith("*") else "scalar",
                dtype=each,
                divisible_by_16=False,
            )
            for param, each in dtypes.items()
        ),
        num_warps=8,
        num_stages=1,
        num_ctas=1,
        template="",
        config=dict(sorted(constants.items())),
    )
    return Built(kernel, ttir, "", (), frozenset(), {}, constants)
