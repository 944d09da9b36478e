"""Code for AMD's GPUs: what is read back from it, and that it depends on its input alone."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import triton
import triton.language as tl

from tests.kernels import shards
from wrapgen.dtype import DType
from wrapgen.kernels import (
    CompiledKernel,
    KernelCompileError,
    KernelResourceError,
    Request,
    amdgcn,
    compile_kernels,
    compile_shard,
    hsaco,
    metadata,
)
from wrapgen.target import parse

GFX90A, GFX942, SM_90 = parse("gfx90a"), parse("gfx942"), parse("sm_90")
INT64 = DType("int64")
Compiled = dict[tuple[str, str], CompiledKernel]


def compile_one(request: Request) -> CompiledKernel:
    [result] = compile_kernels([request])
    if isinstance(result, KernelCompileError):
        raise result
    return result


@triton.jit
def strided(out, n, BLOCK: tl.constexpr):
    step = BLOCK * tl.num_programs(0)
    for start in range(tl.program_id(0) * BLOCK, n, step):
        i = start + tl.arange(0, BLOCK)
        tl.store(out + i, i, mask=i < n)


@triton.jit
def lanes(out, BLOCK: tl.constexpr):
    lane = tl.inline_asm_elementwise("mov.u32 $0, %laneid;", "=r", [], tl.int32, True, 1)
    tl.store(out + tl.arange(0, BLOCK), lane)


STRIDED = shards.Kernel(strided, {"out": "*i32", "n": "i32"}, {"BLOCK": 256})


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    requests = [
        kernel.request(target)
        for kernel in (*shards.KERNELS, STRIDED)
        for target in (GFX90A, GFX942)
        if (kernel, target) != (shards.DOT, GFX90A)  # as large as on gfx942, and slow to compile
    ]
    results = {}
    for request, result in zip(requests, compile_kernels(requests, jobs=2), strict=True):
        assert isinstance(result, CompiledKernel), result
        results[request.launch.name, str(request.target)] = result
    return results


def sizes(kernel: CompiledKernel) -> list[tuple[int, int]]:
    return [(slot.offset, slot.size) for slot in kernel.metadata.params]


@pytest.mark.parametrize("target", ["gfx90a", "gfx942"])
def test_pointwise(compiled: Compiled, target: str) -> None:
    found = compiled["pointwise", target].metadata
    assert (found.threads, found.num_warps, found.num_ctas) == (4 * 64, 4, 1)
    assert (found.shared_memory, found.local_memory, found.spill_stores) == (0, 0, 0)
    assert (found.format, found.target, found.driver) == ("hsaco", target, 60000000)
    assert 0 < found.registers <= 512
    assert sizes(compiled["pointwise", target]) == [
        (0, 8),
        (8, 8),
        (16, 8),
        (24, 4),
        (32, 8),  # the scratch pointers, aligned
        (40, 8),
    ]


def test_shared_memory_is_the_launchs(compiled: Compiled) -> None:
    assert compiled["dot", "gfx942"].metadata.shared_memory == 64 << 10
    assert compiled["reduction", "gfx942"].metadata.shared_memory == 8 * 4
    # All of it dynamic.
    assert hsaco.read(compiled["dot", "gfx942"].image).shared_memory == 0


def test_every_size_of_scalar(compiled: Compiled) -> None:
    for target in ("gfx90a", "gfx942"):
        assert sizes(compiled["scalars", target]) == [
            (0, 8),  # out
            (8, 1),  # flag
            (10, 2),  # small
            (16, 8),  # wide
            (24, 4),  # real
            (32, 8),  # double
            (40, 8),
            (48, 8),
        ]


def test_what_hip_adds_is_no_parameter(compiled: Compiled) -> None:
    found = hsaco.read(compiled["strided", "gfx942"].image)
    assert found.hidden[:3] == (
        "hidden_block_count_x",
        "hidden_block_count_y",
        "hidden_block_count_z",
    )
    assert sizes(compiled["strided", "gfx942"]) == [(0, 8), (8, 4), (16, 8), (24, 8)]


def test_agrees_with_the_assembly(compiled: Compiled) -> None:
    """What LLVM writes as text, before it is assembled, is what is read of the binary."""
    for kernel in compiled.values():
        found = hsaco.read(kernel.image)
        text = kernel.assembly[kernel.assembly.index(".amdgpu_metadata") :]
        for key, value in (
            ("vgpr_count", found.registers),
            ("sgpr_count", found.scalar_registers),
            ("vgpr_spill_count", found.spills),
            ("sgpr_spill_count", found.scalar_spills),
            ("private_segment_fixed_size", found.stack),
            ("group_segment_fixed_size", found.shared_memory),
            ("max_flat_workgroup_size", found.threads),
            ("wavefront_size", found.wavefront),
        ):
            assert re.findall(rf"\.{key}: *(\d+)", text) == [str(value)]
        places = re.findall(r"\.offset: *(\d+)\n *\.size: *(\d+)\n *\.value_kind: *(\w+)", text)
        explicit = [(int(a), int(b)) for a, b, kind in places if not kind.startswith("hidden")]
        assert explicit == sizes(kernel)
        assert tuple(kind for *_, kind in places if kind.startswith("hidden")) == found.hidden


def test_matrix_products_use_matrix_cores(compiled: Compiled) -> None:
    assert "v_mfma_f32" in compiled["dot", "gfx942"].assembly


def test_amds_device_functions_are_linked_in(compiled: Compiled) -> None:
    # __ocml_tanh_f32, which is no one instruction: inlined, so that nothing is left to call.
    assert "s_swappc" not in compiled["library", "gfx942"].assembly


def test_spills_are_told() -> None:
    # 128x128 sums in float32 of one wavefront are all the registers there are.
    big = dataclasses.replace(shards.DOT, num_warps=1, num_stages=1)
    found = compile_one(big.request(GFX90A)).metadata
    assert found.registers == 512
    assert found.spill_stores > 0 and found.local_memory > 0


def test_nvidias_device_functions_are_refused() -> None:
    request = dataclasses.replace(shards.LIBRARY.request(SM_90), target=GFX942)
    with pytest.raises(KernelCompileError, match=r"calls __nv_tanhf of NVIDIA's .* is gfx942"):
        compile_one(request)


def test_nvidias_assembly_is_refused() -> None:
    kernel = shards.Kernel(lanes, {"out": "*i32"}, {"BLOCK": 256})
    with pytest.raises(KernelCompileError) as caught:
        compile_one(kernel.request(GFX942))
    assert "its assembly is refused; what the kernel itself writes in assembly must be AMD's" in (
        str(caught.value)
    )
    assert "invalid instruction" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maxnreg": 64}, "maxnreg=64: only NVIDIA's compiler is told a number of registers"),
        ({"num_ctas": 2}, "impossible on gfx942: Triton makes clusters of blocks for sm_90"),
        ({"num_warps": 32}, "a block needs 2048 threads, the device has 1024"),
        ({"num_stages": 6}, r"a block needs \d+ bytes of shared memory, the device has 65536"),
    ],
)
def test_impossible_launches(change: dict[str, int], message: str) -> None:
    launch = dataclasses.replace(shards.DOT.request(GFX942).launch, **change)
    request = dataclasses.replace(shards.DOT.request(GFX942), launch=launch)
    with pytest.raises(KernelCompileError, match=message) as caught:
        compile_one(request)
    assert isinstance(caught.value, KernelResourceError) or "maxnreg" in message


@pytest.mark.parametrize(
    ("launch", "code", "message"),
    [
        ({"name": "other"}, {}, "entry point: expected other, the code object says pointwise"),
        ({}, {"warps": 8}, "threads of a block: expected 512, the code object says 256"),
        ({"num_warps": 8}, {}, "warps of a block: expected 8, Triton says 4"),
        ({"params": ()}, {}, r"parameters: expected 2 \(0 of the .* the code object has 6"),
        ({}, {"profile_scratch": 64}, "needs 64 bytes of profile scratch memory a block"),
    ],
)
def test_witnesses_must_agree(
    compiled: Compiled, launch: dict[str, Any], code: dict[str, int], message: str
) -> None:
    kernel = compiled["pointwise", "gfx942"]
    declared = dataclasses.replace(shards.POINTWISE.request(GFX942).launch, **launch)
    said = amdgcn.Amdgcn(kernel.assembly, kernel.image, 4, 0, 0, 0)
    with pytest.raises(KernelCompileError, match=message):
        metadata.gather_hsaco(declared, GFX942, dataclasses.replace(said, **code))


def test_sizes_are_compared_with_the_code_object(compiled: Compiled) -> None:
    kernel = compiled["pointwise", "gfx942"]
    declared = shards.POINTWISE.request(GFX942).launch
    *pointers, n = declared.params
    wide = dataclasses.replace(declared, params=(*pointers, dataclasses.replace(n, dtype=INT64)))
    message = r"parameter 3 \('n'\): expected 8 bytes, the code object has 4 bytes at offset 24"
    with pytest.raises(KernelCompileError, match=message):
        metadata.gather_hsaco(
            wide, GFX942, amdgcn.Amdgcn(kernel.assembly, kernel.image, 4, 0, 0, 0)
        )
    with pytest.raises(KernelCompileError, match="architecture: expected gfx90a, the code object"):
        metadata.gather_hsaco(
            declared, GFX90A, amdgcn.Amdgcn(kernel.assembly, kernel.image, 4, 0, 0, 0)
        )


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "not a code object"),
        (b"\x7fELF", "not a code object"),
        (Path("/proc/self/exe").read_bytes(), "not a code object: the ELF file is for machine EM_"),
    ],
)
def test_not_a_code_object(image: bytes, message: str) -> None:
    with pytest.raises(KernelCompileError, match=message):
        hsaco.read(image)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b".vgpr_count", b".vgpr_cound", r"\.vgpr_count is None: expected int"),
        (b"by_value", b"by_valve", "argument 3 is a by_valve: expected a global_buffer or a by_va"),
        (b"amdhsa.kernels\x91", b"amdhsa.kernels\x90", "malformed: "),
        (b"\xa5.size\x04", b"\xa5.size\x70", "argument 4 at offset 32: expected 136 or later"),
        (b"AMDGPU\0", b"AMDGPV\0", "has 0 notes of AMD's: expected one"),
    ],
)
def test_damaged(compiled: Compiled, old: bytes, new: bytes, message: str) -> None:
    image = compiled["pointwise", "gfx942"].image
    assert old in image
    with pytest.raises(KernelCompileError, match=message):
        hsaco.read(image.replace(old, new))


def test_metadata_and_descriptor_must_agree(compiled: Compiled) -> None:
    image = compiled["pointwise", "gfx942"].image
    size = b".kernarg_segment_size\x30"
    assert size in image
    with pytest.raises(KernelCompileError, match=r"the descriptor says \(0, 0, 48\), the metadata"):
        hsaco.read(image.replace(size, b".kernarg_segment_size\x38"))


_COMPILE = """
import sys
from pathlib import Path
from wrapgen.kernels import compile_shard
from wrapgen.target import parse
compile_shard(Path(sys.argv[1]), [parse("gfx942")], Path(sys.argv[2]), jobs=int(sys.argv[3]))
"""


def _tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    """Elsewhere, with another environment, hash seed, order and number of jobs."""
    shard = tmp_path / "shard"
    shards.write(shard, [shards.POINTWISE, shards.REDUCTION])
    compile_shard(shard, [GFX942], tmp_path / "first")
    other = tmp_path / "elsewhere" / "deep"
    other.mkdir(parents=True)
    hostile = {
        "PYTHONHASHSEED": "7",
        "TZ": "Pacific/Kiritimati",
        "TMPDIR": str(other),
        "HOME": str(other),
        "AMDGCN_USE_BUFFER_OPS": "0",
        "TRITON_HIP_USE_BLOCK_PINGPONG": "0",
        "TRITON_DISABLE_LINE_INFO": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run(
        [sys.executable, "-c", _COMPILE, str(shard), str(other / "out"), "2"],
        check=True,
        cwd=other,
        env=hostile,
    )
    first = _tree(tmp_path / "first")
    assert sorted(first) == [
        "gfx942/pointwise.hsaco",
        "gfx942/pointwise.json",
        "gfx942/reduction.hsaco",
        "gfx942/reduction.json",
    ]
    assert first == _tree(other / "out")
    # What a change of the input does to them: the comparison can fail.
    changed = tmp_path / "changed"
    shards.write(changed, [dataclasses.replace(shards.POINTWISE, constants={"BLOCK": 512})])
    compile_shard(changed, [GFX942], tmp_path / "third")
    name = "gfx942/pointwise.hsaco"
    assert _tree(tmp_path / "third")[name] != first[name]
    for data in first.values():
        assert b"tmp" not in data and b"wrapgen-" not in data and b".ttir" not in data
