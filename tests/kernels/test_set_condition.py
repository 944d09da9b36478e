"""The kernel that sets the conditions of CUDA graphs is compiled like those of Triton."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from wrapgen import set_condition
from wrapgen.kernels import KernelCompileError, compile_shard, cubin
from wrapgen.program import canonical_json
from wrapgen.target import parse

NAME = set_condition.NAME


def shard(directory: Path) -> Path:
    """A shard with the kernel alone, as lowering writes it."""
    kernel = set_condition.kernel(1)
    directory.mkdir()
    launch = {
        field: getattr(kernel, field)
        for field in ("name", "ttir_sha256", "num_warps", "num_stages", "num_ctas")
    }
    params = [dataclasses.asdict(param) for param in kernel.params]
    (directory / f"{NAME}.json").write_text(canonical_json(launch | {"params": params}))
    (directory / f"{NAME}.ptx").write_text(set_condition.PTX)
    return directory


@pytest.mark.parametrize("capability", ["80", "90"])
def test_compiles(capability: str, tmp_path: Path) -> None:
    """For machine code and as PTX, with the parameters that programs and the runtime give it; the
    driver must have conditional nodes."""
    targets = [parse(f"sm_{capability}"), parse(f"compute_{capability}")]
    compile_shard(shard(tmp_path / "shard"), targets, tmp_path / "out")
    for target, suffix in zip(targets, ("cubin", "ptx"), strict=True):
        stem = tmp_path / "out" / str(target) / NAME
        metadata = json.loads(stem.with_suffix(".json").read_text())
        assert metadata["driver"] == 12040
        assert metadata["threads"] == 32
        image = stem.with_suffix(f".{suffix}").read_bytes()
        assert b"cudaGraphSetConditional" in image
        if target.kind == "sm":
            sizes = [slot.size for slot in cubin.read(image).params]
            assert sizes == [8, 4, 8, 8, 4, 8, 8]
        else:
            assert f"\n.target sm_{capability}\n".encode() in image


def test_is_the_same_each_time(tmp_path: Path) -> None:
    for out in ("a", "b"):
        compile_shard(shard(tmp_path / f"shard {out}"), [parse("sm_90")], tmp_path / out)
    a, b = (tmp_path / out / "sm_90" / f"{NAME}.cubin" for out in ("a", "b"))
    assert a.read_bytes() == b.read_bytes()


def test_amds_graphs_decide_nothing(tmp_path: Path) -> None:
    with pytest.raises(KernelCompileError, match=r"for gfx942: .* HIP's graphs have none"):
        compile_shard(shard(tmp_path / "shard"), [parse("gfx942")], tmp_path / "out")
