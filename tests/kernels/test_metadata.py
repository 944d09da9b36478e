"""What is read back from a cubin is what NVIDIA's tools print, and must fit the launch."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from tests.kernels import shards
from wrapgen.dtype import DType
from wrapgen.kernels import (
    CompiledKernel,
    KernelCompileError,
    KernelResourceError,
    Launch,
    Param,
    Request,
    compile_kernels,
    cubin,
    metadata,
    ptx,
    ptxas,
)
from wrapgen.target import Target, parse

SM_80, SM_90, COMPUTE_90 = parse("sm_80"), parse("sm_90"), parse("compute_90")


def compile_one(request: Request) -> CompiledKernel:
    [result] = compile_kernels([request])
    if isinstance(result, KernelCompileError):
        raise result
    return result


def refusal(request: Request) -> KernelCompileError:
    [result] = compile_kernels([request])
    assert isinstance(result, KernelCompileError)
    return result


@pytest.fixture(scope="module")
def compiled() -> dict[tuple[str, str], CompiledKernel]:
    requests = [
        kernel.request(target) for kernel in shards.KERNELS for target in (SM_80, SM_90, COMPUTE_90)
    ]
    results = {}
    for request, result in zip(requests, compile_kernels(requests, jobs=2), strict=True):
        assert isinstance(result, CompiledKernel), result
        results[request.launch.name, str(request.target)] = result
    return results


def sizes(kernel: CompiledKernel) -> list[tuple[int, int]]:
    return [(slot.offset, slot.size) for slot in kernel.metadata.params]


def test_pointwise(compiled: dict[tuple[str, str], CompiledKernel]) -> None:
    found = compiled["pointwise", "sm_90"].metadata
    assert (found.threads, found.num_warps, found.num_ctas) == (128, 4, 1)
    assert (found.shared_memory, found.local_memory, found.spill_stores) == (0, 0, 0)
    assert found.format == "cubin" and found.driver == 12000 and found.ptx_version == "8.7"
    assert sizes(compiled["pointwise", "sm_90"]) == [
        (0, 8),
        (8, 8),
        (16, 8),
        (24, 4),
        (32, 8),  # the scratch pointers, aligned
        (40, 8),
    ]


def test_dot_shares_memory(compiled: dict[tuple[str, str], CompiledKernel]) -> None:
    # Three stages of a 128x64 and a 64x128 tile of 2 bytes each on Hopper, whose instruction reads
    # shared memory; one stage less where operands go through registers.
    tile = 128 * 64 * 2
    assert compiled["dot", "sm_90"].metadata.shared_memory == 3 * 2 * tile
    assert compiled["dot", "sm_80"].metadata.shared_memory == 2 * 2 * tile
    assert compiled["dot", "compute_90"].metadata.shared_memory == 2 * 2 * tile
    assert compiled["dot", "sm_90"].metadata.threads == 256


def test_reduction_shares_a_little(compiled: dict[tuple[str, str], CompiledKernel]) -> None:
    # One partial sum of 4 bytes a warp.
    assert compiled["reduction", "sm_90"].metadata.shared_memory == 8 * 4


def test_every_size_of_scalar(compiled: dict[tuple[str, str], CompiledKernel]) -> None:
    for target in ("sm_80", "sm_90", "compute_90"):
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


def test_spills_are_told() -> None:
    tight = dataclasses.replace(shards.DOT, maxnreg=64)
    found = compile_one(tight.request(COMPUTE_90)).metadata
    assert found.registers == 64
    assert found.spill_stores > 0 and found.spill_loads > 0
    assert found.local_memory > 0


def test_clusters() -> None:
    pair = dataclasses.replace(shards.DOT, num_ctas=2)
    found = compile_one(pair.request(SM_90)).metadata
    assert (found.num_ctas, found.threads) == (2, 256)


def test_agrees_with_cuobjdump(
    compiled: dict[tuple[str, str], CompiledKernel], tmp_path: Path
) -> None:
    tool = ptxas.default_ptxas().parent / "cuobjdump"
    checked = 0
    for (name, target), kernel in sorted(compiled.items()):
        if kernel.metadata.format != "cubin":
            continue
        path = tmp_path / f"{name}.{target}.cubin"
        path.write_bytes(kernel.image)
        found = cubin.read(kernel.image)
        dump = subprocess.run([tool, "-elf", path], capture_output=True, text=True, check=True)
        # "Ordinal : 0x7  Offset  : 0x30  Size    : 0x8"
        slots = re.findall(r"Ordinal : (\S+)\s+Offset\s+: (\S+)\s+Size\s+: (\S+)", dump.stdout)
        assert {int(o, 16): (int(at, 16), int(size, 16)) for o, at, size in slots} == {
            i: (slot.offset, slot.size) for i, slot in enumerate(found.params)
        }
        assert re.findall(r"register count: (\d+)", dump.stdout) == [str(found.registers)]
        assert re.findall(r"\bframe size: (\S+)", dump.stdout) == [hex(found.frame)]
        assert re.findall(r"min stack size: (\S+)", dump.stdout) == [hex(found.stack)]
        [reqntid] = re.findall(r"EIATTR_REQNTID\s.*\s+Value:\s+(\S+)", dump.stdout)
        assert int(reqntid, 16) == found.threads
        [version] = re.findall(r"EIATTR_CUDA_API_VERSION\s.*\s+Value:\s+(\S+)", dump.stdout)
        assert int(version, 16) == found.cuda == 128
        usage = subprocess.run(
            [tool, "-res-usage", path], capture_output=True, text=True, check=True
        )
        assert f"REG:{found.registers} STACK:{found.stack} " in usage.stdout + usage.stderr
        checked += 1
    assert checked == 2 * len(shards.KERNELS)


def mutated(request: Request, **changes: object) -> Request:
    return dataclasses.replace(request, launch=dataclasses.replace(request.launch, **changes))


def with_param(launch: Launch, index: int, **changes: object) -> tuple[Param, ...]:
    params = list(launch.params)
    params[index] = dataclasses.replace(params[index], **changes)
    return tuple(params)


@pytest.fixture(scope="module")
def pointwise() -> Request:
    return shards.POINTWISE.request(SM_90)


def test_a_missing_parameter_is_refused(pointwise: Request) -> None:
    error = refusal(mutated(pointwise, params=pointwise.launch.params[:-1]))
    assert (
        "pointwise.ttir: kernel pointwise: the launch passes 3 parameters, the TTIR function takes "
        "4: !tt.ptr<f16>, !tt.ptr<f16>, !tt.ptr<f16>, i32" in str(error)
    )


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (
            3,
            {"dtype": DType.INT64},
            (
                "parameter 3 ('n'): the launch passes a scalar of int64, that is, i64; "
                "the TTIR function takes i32"
            ),
        ),
        (
            0,
            {"dtype": DType.FLOAT32},
            (
                "parameter 0 ('a'): the launch passes a pointer of float32, that is, !tt.ptr<f32>; "
                "the TTIR function takes !tt.ptr<f16>"
            ),
        ),
        (
            2,
            {"kind": "scalar"},
            (
                "parameter 2 ('c'): the launch passes a scalar of float16, that is, f16; "
                "the TTIR function takes !tt.ptr<f16>"
            ),
        ),
        (
            1,
            {"divisible_by_16": False},
            "parameter 1 ('b'): the launch does not promise a multiple of 16, the TTIR assumes one",
        ),
    ],
)
def test_another_parameter_is_refused(
    pointwise: Request, index: int, changes: dict[str, object], message: str
) -> None:
    error = refusal(mutated(pointwise, params=with_param(pointwise.launch, index, **changes)))
    assert f"kernel pointwise: {message}" in str(error)


def test_another_name_is_refused(pointwise: Request) -> None:
    error = refusal(mutated(pointwise, name="pointless"))
    assert "no public function of that name, only pointwise" in str(error)


@dataclasses.dataclass(frozen=True)
class Witnesses:
    """What gather() compares; built once so that each can be made to lie."""

    launch: Launch
    generated: ptx.Ptx
    assembled: ptxas.Assembled

    def gather(self, target: Target = SM_90) -> metadata.Metadata:
        found, _ = metadata.gather(self.launch, target, self.generated, self.assembled)
        return found


@pytest.fixture(scope="module")
def witnesses(tmp_path_factory: pytest.TempPathFactory) -> Witnesses:
    kernel = compile_one(shards.REDUCTION.request(SM_90))
    launch = shards.REDUCTION.request(SM_90).launch
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("assemble"))
        assembled = ptxas.assemble(launch, kernel.assembly, "sm_90a", ptxas.default_ptxas())
    assert assembled.cubin == kernel.image
    generated = ptx.Ptx(kernel.assembly, 87, 8, kernel.metadata.shared_memory, 0, 1, 0, ())
    return Witnesses(launch, generated, assembled)


def test_witnesses_agree(witnesses: Witnesses) -> None:
    assert witnesses.gather().registers == witnesses.assembled.report.registers


def test_sizes_are_compared_with_the_cubin(witnesses: Witnesses) -> None:
    """The second line of defence, should the TTIR's types not say it."""
    launch = witnesses.launch
    liar = dataclasses.replace(launch, params=with_param(launch, 2, dtype=DType.INT64))
    with pytest.raises(KernelCompileError) as caught:
        dataclasses.replace(witnesses, launch=liar).gather()
    assert str(caught.value) == (
        "kernel reduction: parameter 2 ('n'): expected 8 bytes, the cubin has 4 bytes at offset 16"
    )
    liar = dataclasses.replace(launch, params=launch.params[:-1])
    with pytest.raises(KernelCompileError, match=r"parameters: expected 4 .*, the cubin has 5"):
        dataclasses.replace(witnesses, launch=liar).gather()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warps": 4}, r"threads of a block: expected 128, the cubin says 256"),
        ({"profile_scratch": 64}, r"needs 64 bytes of profile scratch memory a block"),
    ],
)
def test_tritons_word_is_compared(
    witnesses: Witnesses, changes: dict[str, int], message: str
) -> None:
    generated = dataclasses.replace(witnesses.generated, **changes)
    with pytest.raises(KernelCompileError, match=message):
        dataclasses.replace(witnesses, generated=generated).gather()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"registers": 99}, r"registers: expected 99, the cubin, not ptxas, says \d+"),
        ({"stack": 8}, r"bytes of stack frame: expected 8, the cubin, not ptxas, says 0"),
        ({"static_shared_memory": 16}, r"static shared memory: expected 0, ptxas says 16"),
    ],
)
def test_the_report_is_compared(
    witnesses: Witnesses, changes: dict[str, int], message: str
) -> None:
    report = dataclasses.replace(witnesses.assembled.report, **changes)
    assembled = dataclasses.replace(witnesses.assembled, report=report)
    with pytest.raises(KernelCompileError, match=message):
        dataclasses.replace(witnesses, assembled=assembled).gather()


def test_too_much_shared_memory() -> None:
    error = refusal(dataclasses.replace(shards.DOT, num_stages=8).request(SM_90))
    assert isinstance(error, KernelResourceError)
    assert str(error).startswith(
        "dot.ttir: kernel dot: num_warps=8, num_stages=8 is impossible on sm_90 (NVIDIA H100): "
        "a block needs 262144 bytes of shared memory, the device has 232448"
    )


def test_too_many_threads() -> None:
    error = refusal(dataclasses.replace(shards.DOT, num_warps=64).request(COMPUTE_90))
    assert isinstance(error, KernelResourceError)
    assert "a block needs 2048 threads, the device has 1024" in str(error)


def test_too_many_registers(witnesses: Witnesses) -> None:
    # 4 registers a thread stand for a device with fewer of them.
    device = dataclasses.replace(SM_90.device, registers_per_multiprocessor=4096)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Target, "device", property(lambda _: device))
        with pytest.raises(KernelResourceError, match=r"a block needs 6144 registers, .* 4096"):
            witnesses.gather()


def test_too_few_registers_allowed() -> None:
    error = refusal(dataclasses.replace(shards.DOT, maxnreg=64).request(SM_90))
    assert isinstance(error, KernelResourceError)
    assert "num_stages=3, maxnreg=64" in str(error) and "Insufficient registers" in str(error)


def test_clusters_where_there_are_none() -> None:
    for target in (SM_80, COMPUTE_90):
        error = refusal(mutated(shards.POINTWISE.request(target), num_ctas=2))
        assert isinstance(error, KernelResourceError)
        assert f"num_ctas=2 is impossible on {target}" in str(error)


def test_descriptors_made_in_the_kernel() -> None:
    """Where there is TMA they lie in memory that the launch provides; elsewhere there are none."""
    found = compile_one(shards.DESCRIPTOR.request(SM_90)).metadata
    assert (found.global_scratch, found.global_scratch_align) == (128, 128)
    assert found.tensor_maps == ()
    for target in (SM_80, COMPUTE_90):
        assert compile_one(shards.DESCRIPTOR.request(target)).metadata.global_scratch == 0


def test_descriptors_made_by_the_host() -> None:
    compiled = compile_one(shards.TENSOR_MAP.request(SM_90))
    # The map, two sizes, two strides, n, c and the scratch pointers. The map begins at a multiple
    # of 64, which is 48 bytes behind where parameters begin.
    assert sizes(compiled) == [
        *[(48, 128), (176, 4), (180, 4), (184, 8), (192, 8)],
        *[(200, 4), (208, 8), (216, 8), (224, 8)],
    ]
    [found] = compiled.metadata.as_json()["tensor_maps"]
    # CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, CU_TENSOR_MAP_SWIZZLE_64B: rows of 32 elements.
    assert found == {"param": 0, "element": 9, "swizzle": 2, "box": [64, 32]}


def test_descriptors_made_by_the_host_where_there_is_no_tma() -> None:
    request = dataclasses.replace(shards.TENSOR_MAP.request(SM_90), target=COMPUTE_90)
    error = refusal(request)
    assert isinstance(error, KernelResourceError)
    assert "kernel tensor_map: parameter 'rows' is impossible on compute_90" in str(error)


def test_dependent_launches() -> None:
    text = compile_one(shards.DEPENDENT.request(SM_90)).assembly
    assert "griddepcontrol.wait" in text
    request = mutated(shards.POINTWISE.request(SM_90), launch_pdl=True)
    assert "never waits for that: call tl.extra.cuda.gdc_wait()" in str(refusal(request))
    error = refusal(mutated(shards.POINTWISE.request(SM_80), launch_pdl=True))
    assert "launch_pdl is impossible on sm_80" in str(error)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "not a cubin"),
        (b"\x7fELF", "not a cubin"),
        (Path("/proc/self/exe").read_bytes(), "not a cubin: the ELF file is for machine EM_"),
    ],
)
def test_not_a_cubin(image: bytes, message: str) -> None:
    with pytest.raises(KernelCompileError, match=message):
        cubin.read(image)
