"""The kernel that lets a CUDA graph decide what it executes.

A conditional node of a graph executes its graph if, or as long as, the number behind its *handle*
is not 0, and only a kernel can set that number, with ``cudaGraphSetConditional``. Triton has no way
to call it, so this kernel is written in PTX. It reads the predicate of an ``If`` or a ``While``
(wrapgen/program.py). An ``If`` with two branches
takes two nodes and a handle for each: a single node has two branches for drivers of CUDA 12.8 and
later alone.

The driver knows the function by its name, as it does ``vprintf``: nothing is linked.
"""

from __future__ import annotations

import hashlib
from typing import Final

from wrapgen.dtype import DType
from wrapgen.program import Kernel, KernelParam

DRIVER: Final = 12040
"""The least CUDA version of a driver with conditional nodes, as cuDriverGetVersion spells it (CUDA
12.4 release notes, "CUDA Graphs")."""

DTYPES: Final = (DType.BOOL, DType.UINT8, DType.INT8, DType.INT16, DType.INT32, DType.INT64)
"""What a predicate can be."""

STEM: Final = "set_condition"

_PARAMS: Final = (
    KernelParam(name="predicate", kind="pointer", dtype=DType.UINT8, divisible_by_16=False),
    # How many bytes there are.
    KernelParam(name="nbytes", kind="scalar", dtype=DType.INT32, divisible_by_16=False),
    # Of the node that is executed if a byte is not 0.
    KernelParam(name="handle", kind="scalar", dtype=DType.INT64, divisible_by_16=False),
    # Of the node that is executed if all are 0, where there is one.
    KernelParam(name="otherwise", kind="scalar", dtype=DType.INT64, divisible_by_16=False),
    KernelParam(name="has_otherwise", kind="scalar", dtype=DType.INT32, divisible_by_16=False),
)

_TEXT: Final = """\
.extern .func cudaGraphSetConditional
(
    .param .b64 handle,
    .param .b32 value
)
;

.visible .entry @NAME@(
    .param .u64 .ptr .global .align 1 predicate,
    .param .u32 nbytes,
    .param .u64 handle,
    .param .u64 otherwise,
    .param .u32 has_otherwise,
    .param .u64 .ptr .global .align 1 global_scratch,
    .param .u64 .ptr .global .align 1 profile_scratch
)
.reqntid 32
{
    .reg .pred %p<6>;
    .reg .b32 %r<8>;
    .reg .b64 %rd<6>;

    // One thread of the block does it.
    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra END;

    // %r3: whether one of the bytes is not 0.
    ld.param.u64 %rd1, [predicate];
    cvta.to.global.u64 %rd2, %rd1;
    ld.param.u32 %r2, [nbytes];
    mov.u32 %r3, 0;
READ:
    setp.eq.u32 %p2, %r2, 0;
    @%p2 bra SET;
    ld.global.u8 %r4, [%rd2];
    or.b32 %r3, %r3, %r4;
    add.u64 %rd2, %rd2, 1;
    sub.u32 %r2, %r2, 1;
    bra READ;
SET:
    setp.ne.u32 %p3, %r3, 0;
    selp.u32 %r5, 1, 0, %p3;
    ld.param.u64 %rd3, [handle];
    {
    .param .b64 param0;
    st.param.b64 [param0], %rd3;
    .param .b32 param1;
    st.param.b32 [param1], %r5;
    call.uni cudaGraphSetConditional, (param0, param1);
    }
    ld.param.u32 %r6, [has_otherwise];
    setp.eq.u32 %p4, %r6, 0;
    @%p4 bra END;
    selp.u32 %r7, 0, 1, %p3;
    ld.param.u64 %rd4, [otherwise];
    {
    .param .b64 param0;
    st.param.b64 [param0], %rd4;
    .param .b32 param1;
    st.param.b32 [param1], %r7;
    call.uni cudaGraphSetConditional, (param0, param1);
    }
END:
    ret;
}
"""

NAME: Final = f"{STEM}_{hashlib.sha256(_TEXT.encode()).hexdigest()[:12]}"
"""The kernel's name, which ends in a digest of its text as others' do."""

PTX: Final = _TEXT.replace("@NAME@", NAME)
"""The kernel, but for the lines that say the version of PTX and the target. Like kernels of Triton
it takes two pointers to scratch memory in the end."""


PARAMS: Final = tuple((param.name, param.kind) for param in _PARAMS)
"""Name and kind of each parameter, without the pointers to scratch memory."""


def kernel(num_shards: int) -> Kernel:
    """The kernel as programs record it. Its source is ``NAME.ptx``, in place of TTIR."""
    return Kernel(
        name=NAME,
        shard=int(NAME.rpartition("_")[2], 16) % num_shards,
        ttir_sha256=hashlib.sha256(PTX.encode()).hexdigest(),
        params=_PARAMS,
        num_warps=1,
        num_stages=1,
        num_ctas=1,
        template=STEM,
        config={},
    )
