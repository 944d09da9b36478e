"""A shard goes in and comes out whole, or a message says what is wrong with which file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import shards
from wrapgen.kernels import KernelCompileError, compile_shard, metadata, ptx
from wrapgen.target import parse

SM_90, COMPUTE_90 = parse("sm_90"), parse("compute_90")


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return shards.write(tmp_path / "shards" / "00", [shards.POINTWISE, shards.REDUCTION])


def message(shard: Path, *targets: str, **options: Any) -> str:
    """Compiles, expects a refusal, and that nothing was left; returns what it says."""
    out = shard.parent / "out"
    with pytest.raises(KernelCompileError) as caught:
        compile_shard(shard, [parse(name) for name in targets or ("sm_90",)], out, **options)
    assert not out.exists()
    assert not list(shard.parent.glob(".out*"))
    return str(caught.value)


def test_keeping_going_leaves_out_what_the_device_cannot_run(tmp_path: Path) -> None:
    large = dataclasses.replace(shards.DOT, num_stages=8)
    shard = shards.write(tmp_path / "shards" / "00", [shards.POINTWISE, large])
    assert "a block needs 262144 bytes of shared memory" in message(shard)
    compile_shard(shard, [SM_90], tmp_path / "kept", keep_going=True)
    found = sorted(path.name for path in (tmp_path / "kept" / "sm_90").iterdir())
    assert found == ["pointwise.cubin", "pointwise.json", "refused.json"]
    refused = json.loads((tmp_path / "kept" / "sm_90" / "refused.json").read_text())
    assert list(refused) == ["dot"] and "a block needs 262144 bytes" in refused["dot"]


def test_keeping_going_stops_at_what_is_a_fault(shard: Path) -> None:
    ttir = shard / "pointwise.ttir"
    ttir.write_text("module {")
    edit(shard / "pointwise.json", ttir_sha256=hashlib.sha256(ttir.read_bytes()).hexdigest())
    assert "pointwise" in message(shard, keep_going=True)


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps({key: value for key, value in data.items() if value != "absent"}))


def test_what_is_written(shard: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    compile_shard(shard, [SM_90, COMPUTE_90], tmp_path / "out", progress=lines.append)
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert found == [
        "compute_90/pointwise.json",
        "compute_90/pointwise.ptx",
        "compute_90/reduction.json",
        "compute_90/reduction.ptx",
        "sm_90/pointwise.cubin",
        "sm_90/pointwise.json",
        "sm_90/reduction.cubin",
        "sm_90/reduction.json",
    ]
    text = (tmp_path / "out/sm_90/reduction.json").read_text()
    data = json.loads(text)
    assert text == json.dumps(data, sort_keys=True, indent=2) + "\n"
    assert set(data) == set(metadata.Metadata.__dataclass_fields__)
    assert data["params"][0] == {"offset": 0, "size": 8}
    assert lines == [
        "[1/4] pointwise for compute_90",
        "[2/4] reduction for compute_90",
        "[3/4] pointwise for sm_90",
        "[4/4] reduction for sm_90",
    ]


def test_permissions_follow_the_umask(shard: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        compile_shard(shard, [SM_90], tmp_path / "out")
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "out", tmp_path / "out/sm_90", *(tmp_path / "out/sm_90").iterdir())
    }
    assert modes == {
        "out": 0o750,
        "out/sm_90": 0o750,
        "out/sm_90/pointwise.cubin": 0o640,
        "out/sm_90/pointwise.json": 0o640,
        "out/sm_90/reduction.cubin": 0o640,
        "out/sm_90/reduction.json": 0o640,
    }


def test_an_empty_directory_is_filled(shard: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    identity = out.stat().st_ino
    compile_shard(shard, [SM_90], out)
    assert out.stat().st_ino == identity
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "shards"]


def test_a_full_directory_is_left_alone(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").touch()
    with pytest.raises(KernelCompileError, match=r"out: expected an empty directory or none"):
        compile_shard(shard, [SM_90], tmp_path / "out")


def test_an_empty_shard(tmp_path: Path) -> None:
    (tmp_path / "shard").mkdir()
    compile_shard(tmp_path / "shard", [SM_90, COMPUTE_90], tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").rglob("*")) == ["compute_90", "sm_90"]


def test_malformed_ttir(shard: Path) -> None:
    path = shard / "pointwise.ttir"
    path.write_text(path.read_text().replace("tt.make_range", "tt.make_mistake", 1))
    assert "SHA-256 is" in message(shard)
    edit(shard / "pointwise.json", ttir_sha256=_sha256(path))
    said = message(shard)
    assert said.startswith(f"{path}: the TTIR of kernel pointwise does not parse")
    assert "pointwise.ttir:" in said and "make_mistake" in said  # what MLIR printed


def test_every_failing_kernel_is_told(shard: Path) -> None:
    for name in ("pointwise", "reduction"):
        (shard / f"{name}.ttir").write_text("module {")
        edit(shard / f"{name}.json", ttir_sha256=_sha256(shard / f"{name}.ttir"))
    said = message(shard)
    assert f"{shard / 'pointwise.ttir'}: " in said and f"{shard / 'reduction.ttir'}: " in said


def test_ttir_that_is_not_text(shard: Path) -> None:
    path = shard / "pointwise.ttir"
    path.write_bytes(b"\x00\xff\xfe" * 100)
    edit(shard / "pointwise.json", ttir_sha256=_sha256(path))
    assert message(shard).startswith(f"{path}: the TTIR of kernel pointwise does not parse")


def test_a_crash_of_the_compiler(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        os.write(2, b"LLVM ERROR: Cannot select: intrinsic\n")
        os.abort()

    monkeypatch.setattr(ptx, "generate", crash)
    said = message(shard)
    assert (
        f"{shard / 'pointwise.ttir'}: the compiler died of SIGABRT on kernel pointwise for sm_90"
        in said
    )
    assert "LLVM ERROR: Cannot select" in said


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "other"}, "name is 'other': expected the stem of the file, 'pointwise'"),
        ({"name": "a-b"}, "name is 'a-b': expected an identifier"),
        ({"num_warps": 3}, "num_warps is 3: expected a power of two"),
        ({"num_warps": True}, "num_warps is True: expected an integer in 1..64"),
        ({"num_warps": "absent"}, "there is no num_warps: expected an integer in 1..64"),
        ({"num_stages": 0}, "num_stages is 0: expected an integer in 1..64"),
        ({"params": {}}, "params is {}: expected a list"),
        ({"params": [3]}, "params[0]: 3: expected an object"),
        ({"maxnreg": 1000}, "maxnreg is 1000: expected an integer in 1..255"),
        ({"fast": True}, "unknown field fast"),
        ({"target": "sm_3"}, "target: unknown target 'sm_3'"),
        ({"ttir_sha256": "00"}, "SHA-256 is"),
    ],
)
def test_a_malformed_launch(shard: Path, changes: dict[str, Any], expected: str) -> None:
    path = shard / "pointwise.json"
    edit(path, **changes)
    said = message(shard)
    assert expected in said and "pointwise" in said.partition(expected)[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"kind": "tensor"}, "params[1]: kind is 'tensor': expected 'pointer', 'scalar' or"),
        ({"dtype": "half"}, "params[1]: dtype is 'half': expected one of bool, uint8"),
        ({"divisible_by_16": 1}, "params[1]: divisible_by_16 is 1: expected true or false"),
    ],
)
def test_a_malformed_parameter(shard: Path, changes: dict[str, Any], expected: str) -> None:
    path = shard / "pointwise.json"
    params = json.loads(path.read_text())["params"]
    params[1].update(changes)
    edit(path, params=params)
    assert f"{path}: {expected}" in message(shard)


def test_launch_that_is_no_json(shard: Path) -> None:
    (shard / "pointwise.json").write_text("{")
    assert f"{shard / 'pointwise.json'}: not JSON" in message(shard)


def test_files_out_of_place(shard: Path) -> None:
    (shard / "pointwise.json").rename(shard / "pointwise.jsn")
    said = message(shard)
    assert said.startswith(f"{shard / 'pointwise.jsn'}: does not belong in a shard")
    (shard / "pointwise.jsn").unlink()
    assert message(shard).startswith(f"{shard / 'pointwise.json'}: is missing")
    assert "no directory" in message(shard.parent / "none")


def test_targets(shard: Path) -> None:
    assert "one compute capability" in message(shard, "sm_80", "sm_90")
    assert "one is named twice" in message(shard, "sm_90", "sm_90")
    edit(shard / "pointwise.json", target="sm_80")
    assert "lowered for sm_80, cannot be compiled for compute_90" in message(shard, "compute_90")


def test_ptxas_that_is_none(shard: Path, tmp_path: Path) -> None:
    assert "no executable file" in message(shard, ptxas_path=tmp_path / "ptxas")
    fake = tmp_path / "ptxas"
    fake.write_text("#!/bin/sh\necho not today >&2\nexit 3\n")
    fake.chmod(0o755)
    said = message(shard, ptxas_path=fake)
    assert "ptxas failed for sm_90a with num_warps=4, num_stages=3 (code 3):\nnot today" in said
    fake.write_text("#!/bin/sh\nexit 0\n")
    assert "cannot read ptxas's report" in message(shard, ptxas_path=fake)
