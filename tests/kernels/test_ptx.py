"""Machine code is what Triton makes; portable PTX runs on what comes after."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import triton
import triton.language as tl
from elftools.elf.elffile import ELFFile

from tests.kernels import shards
from wrapgen.kernels import CompiledKernel, compile_kernels, ptx, ptxas
from wrapgen.target import DEVICES, Target, parse

_HOPPER_ONLY = re.compile(r"wgmma|setmaxnreg|tcgen05|\.target \S+[af]$", re.MULTILINE)


_FIRST = {100: ("8.6", 12070), 120: ("8.7", 12080)}
"""The PTX version, and the driver that reads it, of targets that 8.0 does not know."""


@triton.jit
def product8(a, b, c, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    at = i[:, None] * SIZE + i[None, :]
    tl.store(c + at, tl.dot(tl.load(a + at), tl.load(b + at)))


PRODUCT8 = shards.Kernel(product8, {"a": "*fp8e4nv", "b": "*fp8e4nv", "c": "*fp32"}, {"SIZE": 64})


def compiled(kernel: shards.Kernel, target: str) -> CompiledKernel:
    [result] = compile_kernels([kernel.request(parse(target))])
    assert isinstance(result, CompiledKernel), result
    return result


def assembles(text: str, arch: str, directory: Path) -> None:
    (directory / "in.ptx").write_text(text)
    command = [ptxas.default_ptxas(), f"--gpu-name={arch}", "in.ptx", "-o", "out.cubin"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arch}: {done.stdout}{done.stderr}"


def test_every_target_has_a_code_path() -> None:
    for capability in DEVICES:
        for kind in ("sm", "compute"):
            assert ptx.code_path(Target(capability, kind)).ptx_version >= 80


@pytest.mark.parametrize("kernel", shards.KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("capability", sorted(DEVICES))
def test_portable_ptx_assembles_for_every_later_device(
    kernel: shards.Kernel, capability: int, tmp_path: Path
) -> None:
    found = compiled(kernel, f"compute_{capability}")
    text = found.image.decode()
    assert text == found.assembly and found.metadata.format == "ptx"
    version, driver = _FIRST.get(capability, ("8.0", 12000))
    assert f"\n.version {version}\n.target sm_{capability}\n" in text
    assert not _HOPPER_ONLY.search(text)
    assert found.metadata.driver == driver
    for later in DEVICES:
        if later >= capability:
            assembles(text, f"sm_{later}", tmp_path)


@pytest.mark.parametrize(("target", "driver"), [("compute_89", 12040), ("compute_100", 12070)])
def test_products_of_8_bit_floats_keep_a_newer_version(target: str, driver: int) -> None:
    assert compiled(PRODUCT8, target).metadata.driver == driver


def test_products_of_8_bit_floats_need_a_newer_driver(tmp_path: Path) -> None:
    found = compiled(PRODUCT8, "compute_90")
    assert found.metadata.ptx_version == "8.4" and found.metadata.driver == 12040
    assert "\n.version 8.4\n.target sm_90\n" in found.assembly and "e4m3.e4m3" in found.assembly
    assert not _HOPPER_ONLY.search(found.assembly)
    for arch in ("sm_90", "sm_100", "sm_120"):
        assembles(found.assembly, arch, tmp_path)


def test_the_check_would_notice() -> None:
    """The machine code for Hopper does use what portable PTX must not."""
    found = compiled(shards.DOT, "sm_90")
    assert "wgmma" in found.assembly and ".target sm_90a\n" in found.assembly
    assert _HOPPER_ONLY.search(found.assembly)


def test_blackwell_has_its_own_instructions() -> None:
    """Sums of products are in its tensor memory, on 10.0 alone."""
    assert "tcgen05.mma" in compiled(shards.DOT, "sm_100").assembly
    assert "mma.sync" in compiled(shards.DOT, "sm_120").assembly
    assert "mma.sync" in compiled(shards.DOT, "compute_100").assembly


_COMPILE = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path
    import triton
    from triton.backends.compiler import GPUTarget
    path, capability, options, out = sys.argv[1:]
    target = GPUTarget("cuda", int(capability), 32)
    kernel = triton.compile(path, target=target, options=json.loads(options))
    Path(out).with_suffix(".ptx").write_text(kernel.asm["ptx"])
    Path(out).with_suffix(".cubin").write_bytes(kernel.asm["cubin"])
    """
)


def _code(image: bytes, name: str) -> bytes:
    return bytes(ELFFile(io.BytesIO(image)).get_section_by_name(f".text.{name}").data())


@pytest.mark.parametrize("kernel", [shards.DOT, shards.LIBRARY], ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("capability", sorted(DEVICES))
def test_code_is_what_triton_compiles(
    kernel: shards.Kernel, capability: int, tmp_path: Path
) -> None:
    source = tmp_path / f"{kernel.name}.ttir"
    source.write_text(kernel.ttir(capability))
    options = json.dumps({"num_warps": kernel.num_warps, "num_stages": kernel.num_stages})
    out = tmp_path / "out"
    subprocess.run(
        [sys.executable, "-c", _COMPILE, str(source), str(capability), options, str(out)],
        env={
            "PYTHONPATH": ":".join(entry for entry in sys.path if entry),
            "TRITON_CACHE_DIR": str(tmp_path / "cache"),
            "TRITON_DISABLE_LINE_INFO": "1",
            # Ours, in place of the second one in the wheel.
            "TRITON_PTXAS_BLACKWELL_PATH": str(ptxas.default_ptxas()),
        },
        check=True,
    )
    found = compiled(kernel, f"sm_{capability}")
    assert found.assembly == out.with_suffix(".ptx").read_text()
    cubin = out.with_suffix(".cubin").read_bytes()
    if capability == 100 and kernel is shards.DOT:
        # Triton asks ptxas for line tables, by which two uniform registers change places.
        assert len(_code(found.image, kernel.name)) == len(_code(cubin, kernel.name))
    else:
        assert _code(found.image, kernel.name) == _code(cubin, kernel.name)
