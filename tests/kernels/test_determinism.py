"""The same shard gives the same bytes wherever, whenever and by whomever it is compiled."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import triton

import wrapgen
from tests.kernels import shards
from wrapgen.kernels import compile_shard
from wrapgen.target import parse

# Compiles argv[1] for the targets argv[3:] into argv[2]; jobs and umask come in the environment.
# torch cannot be imported, and nothing of it or of a driver may be loaded at the end.
_PROGRAM = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path

    class NoTorch:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("torch", "numpy"):
                raise ImportError(f"{name} must not be imported")

    sys.meta_path.insert(0, NoTorch())
    os.umask(int(os.environ["TEST_UMASK"], 8))
    from wrapgen.kernels import compile_shard
    from wrapgen.target import parse

    assert "triton" not in sys.modules
    compile_shard(
        Path(sys.argv[1]),
        [parse(name) for name in sys.argv[3:]],
        Path(sys.argv[2]),
        jobs=int(os.environ["TEST_JOBS"]),
    )
    assert "torch" not in sys.modules
    assert "libcuda" not in Path("/proc/self/maps").read_text()
    """
)

# Each of these changes what triton.compile or LLVM does, prints or reads.
_HOSTILE = {
    "AMDGCN_ENABLE_DUMP": "1",
    "DISABLE_LLVM_OPT": "1",
    "DISABLE_MMA_V3": "1",
    "DISABLE_PTXAS_OPT": "1",
    "LLVM_IR_ENABLE_DUMP": "1",
    "MLIR_ENABLE_DUMP": "1",
    "MLIR_ENABLE_TIMING": "1",
    "NVPTX_ENABLE_DUMP": "1",
    "PTXAS_OPTIONS": "--opt-level 0",
    "TRITON_ALWAYS_COMPILE": "1",
    "TRITON_DEFAULT_FP_FUSION": "0",
    "TRITON_DISABLE_LINE_INFO": "0",
    "TRITON_F32_DEFAULT": "ieee",
    "TRITON_KERNEL_DUMP": "1",
    "TRITON_LIBDEVICE_PATH": "/nonexistent/libdevice.bc",
    "TRITON_MOCK_PTX_VERSION": "Cuda compilation tools, release 11.8",
    "TRITON_OVERRIDE_ARCH": "sm80",
    "TRITON_PTXAS_PATH": "/nonexistent/ptxas",
}


def _environment(**variables: str) -> dict[str, str]:
    """A bare environment in which this repository and the installed packages are found."""
    root = str(Path(wrapgen.__file__).parent.parent)
    path = os.pathsep.join([root, *(entry for entry in sys.path if entry)])
    return {"PYTHONPATH": path, "TEST_JOBS": "1", "TEST_UMASK": "022", **variables}


def _compile(shard: Path, out: Path, cwd: Path, targets: list[str], **variables: str) -> None:
    subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(shard), str(out), *targets],
        cwd=cwd,
        env=_environment(**variables),
        check=True,
    )


def _digests(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards.write(tmp_path_factory.mktemp("shard") / "00", shards.KERNELS)


@pytest.fixture(scope="module")
def reference(shard: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    here = tmp_path_factory.mktemp("reference")
    _compile(shard, here / "out", here, ["sm_90", "compute_90"], PYTHONHASHSEED="0")
    digests = _digests(here / "out")
    assert len(digests) == 2 * 2 * len(shards.KERNELS)
    return digests


def test_other_place_user_time_and_order(
    shard: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "another place" / ("deep" * 20)
    home = tmp_path / "home"
    copy = elsewhere / "inputs"
    copy.mkdir(parents=True)
    home.mkdir()
    for path in sorted(shard.iterdir(), reverse=True):  # another order in the directory
        (copy / path.name).write_bytes(path.read_bytes())
        os.utime(copy / path.name, (86400, 86400))
    _compile(
        Path("inputs"),
        Path("out"),
        elsewhere,
        ["compute_90", "sm_90"],
        HOME=str(home),
        LANG="tr_TR.UTF-8",
        LC_ALL="C.UTF-8",
        PYTHONHASHSEED="4242",
        TEST_JOBS="3",
        TEST_UMASK="077",
        TMPDIR=str(tmp_path),
        TZ="Pacific/Kiritimati",
        USER="somebody",
    )
    assert _digests(elsewhere / "out") == reference
    assert list(home.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"another place", "home"}


def test_variables_that_steer_the_compiler_do_not(
    shard: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    _compile(shard, tmp_path / "out", tmp_path, ["sm_90", "compute_90"], **_HOSTILE)
    assert _digests(tmp_path / "out") == reference


def test_settings_of_this_process_do_not_matter(
    shard: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    """As when a program that uses Triton for itself compiles a shard."""
    knobs = triton.knobs
    with (
        knobs.compilation.scope(),
        knobs.language.scope(),
        knobs.nvidia.scope(),
        knobs.runtime.scope(),
    ):
        knobs.compilation.disable_line_info = False
        knobs.language.default_fp_fusion = False
        knobs.nvidia.libdevice_path = "/nonexistent/libdevice.bc"
        knobs.runtime.override_arch = "sm80"
        compile_shard(shard, [parse("sm_90"), parse("compute_90")], tmp_path / "out")
    assert _digests(tmp_path / "out") == reference


def test_a_changed_constant_changes_the_bytes(reference: dict[str, str], tmp_path: Path) -> None:
    changed = dataclasses.replace(shards.POINTWISE, constants={"BLOCK": 512})
    kernels = [changed if each is shards.POINTWISE else each for each in shards.KERNELS]
    shards.write(tmp_path / "00", kernels)
    _compile(tmp_path / "00", tmp_path / "out", tmp_path, ["sm_90", "compute_90"])
    digests = _digests(tmp_path / "out")
    assert {name for name in reference if digests[name] != reference[name]} == {
        "compute_90/pointwise.json",
        "compute_90/pointwise.ptx",
        "sm_90/pointwise.cubin",
        "sm_90/pointwise.json",
    }


def test_an_output_holds_no_path_and_no_line_table(shard: Path, tmp_path: Path) -> None:
    _compile(shard, tmp_path / "out", tmp_path, ["sm_90", "compute_90"])
    outputs = sorted((tmp_path / "out").rglob("*.*"))
    assert len(outputs) == 2 * 2 * len(shards.KERNELS)
    for path in outputs:
        data = path.read_bytes()
        for trace in ("/tmp", str(tmp_path), sys.prefix, ".ttir", "kernel.", "debug_line"):
            assert trace.encode() not in data, f"{path.name} holds {trace!r}"


def test_triton_itself_would_differ(tmp_path: Path) -> None:
    """Why all this: the comparison above would notice another directory."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        import triton
        from triton.backends.compiler import GPUTarget
        kernel = triton.compile(sys.argv[1], target=GPUTarget("cuda", 90, 32))
        Path(sys.argv[2]).write_bytes(kernel.asm["cubin"])
        """
    )
    ttir = shards.POINTWISE.ttir()
    for i in range(2):
        source = tmp_path / f"directory{i}" / "pointwise.ttir"
        source.parent.mkdir()
        source.write_text(ttir)
        subprocess.run(
            [sys.executable, "-c", program, str(source), str(tmp_path / f"{i}.cubin")],
            env=_environment(TRITON_CACHE_DIR=str(tmp_path / f"cache{i}")),
            check=True,
        )
    assert (tmp_path / "0.cubin").read_bytes() != (tmp_path / "1.cubin").read_bytes()
