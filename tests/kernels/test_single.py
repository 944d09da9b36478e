"""One kernel, edited and compiled by itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import shards
from wrapgen.kernels import KernelCompileError, compile_kernel, compile_shard
from wrapgen.target import Target, parse

SM_80, SM_90, COMPUTE_90 = parse("sm_80"), parse("sm_90"), parse("compute_90")
NAME = shards.POINTWISE.name


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return shards.write(tmp_path / "shards" / "00", [shards.POINTWISE, shards.REDUCTION])


def edited(shard: Path) -> Path:
    """The kernel's TTIR with another constant, beside the shard."""
    text = (shard / f"{NAME}.ttir").read_text()
    assert "arith.addf" in text
    result = shard.parent / "edited.ttir"
    result.write_text(text.replace("arith.addf", "arith.subf"))
    return result


def metadata(out: Path, target: Target = SM_90) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((out / str(target) / f"{NAME}.json").read_text())
    return loaded


def test_is_what_the_shard_gives_where_nothing_was_edited(shard: Path, tmp_path: Path) -> None:
    compile_shard(shard, [SM_90, COMPUTE_90], tmp_path / "whole")
    compile_kernel(shard, NAME, [SM_90, COMPUTE_90], tmp_path / "one")
    for file in (f"sm_90/{NAME}.cubin", f"compute_90/{NAME}.ptx", f"sm_90/{NAME}.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert not list((tmp_path / "one").rglob(f"{shards.REDUCTION.name}*"))


def test_compiles_what_was_edited_and_keeps_it(shard: Path, tmp_path: Path) -> None:
    compile_shard(shard, [SM_90], tmp_path / "whole")
    source = edited(shard)
    compile_kernel(shard, NAME, [SM_90], tmp_path / "one", ttir=source, num_warps=1)
    made = metadata(tmp_path / "one")
    assert made["threads"] == 32
    assert made["ttir_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    cubin = (tmp_path / f"one/sm_90/{NAME}.cubin").read_bytes()
    assert made["sha256"] == hashlib.sha256(cubin).hexdigest()
    assert cubin != (tmp_path / f"whole/sm_90/{NAME}.cubin").read_bytes()
    # What it was compiled from is a shard.
    kept = tmp_path / "one/sm_90/shard"
    assert (kept / f"{NAME}.ttir").read_bytes() == source.read_bytes()
    compile_shard(kept, [SM_90], tmp_path / "again")
    assert (tmp_path / f"again/sm_90/{NAME}.cubin").read_bytes() == cubin


def test_replaces_its_own_files_and_no_others(shard: Path, tmp_path: Path) -> None:
    compile_kernel(shard, NAME, [SM_90], tmp_path / "one")
    compile_kernel(shard, shards.REDUCTION.name, [SM_90], tmp_path / "one")
    before = (tmp_path / f"one/sm_90/{shards.REDUCTION.name}.cubin").read_bytes()
    first = metadata(tmp_path / "one")
    compile_kernel(shard, NAME, [SM_90], tmp_path / "one", ttir=edited(shard))
    assert metadata(tmp_path / "one")["sha256"] != first["sha256"]
    assert (tmp_path / f"one/sm_90/{shards.REDUCTION.name}.cubin").read_bytes() == before
    names = {path.name for path in (tmp_path / "one/sm_90").iterdir()}
    assert names == {
        f"{name}{suffix}"
        for name in (NAME, shards.REDUCTION.name)
        for suffix in (".cubin", ".json")
    } | {"shard"}


def test_refuses_another_signature(shard: Path, tmp_path: Path) -> None:
    source = edited(shard)
    source.write_text(source.read_text().replace("f16", "bf16"))
    with pytest.raises(
        KernelCompileError, match=r"the launch passes a pointer of float16"
    ) as caught:
        compile_kernel(shard, NAME, [SM_90], tmp_path / "one", ttir=source)
    assert str(source) in str(caught.value)
    assert not (tmp_path / "one").exists()


def test_refuses_what_it_cannot_compile(shard: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelCompileError, match=rf"has no kernel other; it has .*{NAME}"):
        compile_kernel(shard, "other", [SM_90], tmp_path / "one")
    with pytest.raises(KernelCompileError, match="expected a power of two"):
        compile_kernel(shard, NAME, [SM_90], tmp_path / "one", num_warps=3)
    with pytest.raises(KernelCompileError, match="one compute capability"):
        compile_kernel(shard, NAME, [SM_80, SM_90], tmp_path / "one")
    source = edited(shard)
    source.write_text(source.read_text().replace("tt.return", "tt.retrun"))
    with pytest.raises(KernelCompileError, match=r"edited\.ttir"):
        compile_kernel(shard, NAME, [SM_90], tmp_path / "one", ttir=source)
    assert not (tmp_path / "one").exists()
