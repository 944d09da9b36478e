"""The package: the same bytes for the same parts, and a reader that believes nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from wrapgen import package, program
from wrapgen.codegen import model_source
from wrapgen.dtype import DType
from wrapgen.package import Contents, PackageError
from wrapgen.program import Kernel, Procedure, Program, Weight
from wrapgen.target import Target, parse

KERNEL = Kernel(
    name="add_0123456789ab",
    shard=0,
    ttir_sha256="0" * 64,
    params=(),
    num_warps=4,
    num_stages=1,
    num_ctas=1,
    template="",
    config={},
)


def small_program(target: Target, *, shape: tuple[int, ...] = (2, 3)) -> Program:
    nothing = Procedure(buffers=(), steps=())
    weights = (
        Weight(name="z", dtype=DType.BFLOAT16, shape=()),
        Weight(name="a.weight", dtype=DType.FLOAT16, shape=shape),
    )
    return Program(
        schema_version=program.SCHEMA_VERSION,
        target=str(target),
        num_shards=1,
        symbols=(),
        inputs=(),
        outputs=(),
        weights=weights,
        constants=(),
        kernels=(KERNEL,),
        folding=nothing,
        main=nothing,
    )


def contents(directory: Path, **changes: Any) -> Contents:
    """Parts of a package, written with times and permissions of their own."""
    directory.mkdir(exist_ok=True)
    for name in ("library.so", "weights.safetensors", "model.h", "aoti.h"):
        (directory / name).write_bytes(name.encode() * 100)
        (directory / name).chmod(0o600)
    targets = tuple(parse(text) for text in ("sm_80", "sm_90", "compute_90"))
    for target, driver in zip(targets, (11000, 12080, 12040), strict=True):
        folder = directory / "kernels" / str(target)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{KERNEL.name}.json").write_text(json.dumps({"driver": driver}))
    programs = {}
    for target in sorted({target.lowering for target in targets}):
        programs[target] = directory / f"{target}.json"
        programs[target].write_text(program.dumps(small_program(target)))
    made = Contents(
        name="net",
        library=directory / "library.so",
        weights=directory / "weights.safetensors",
        header=directory / "model.h",
        runtime_headers=(directory / "aoti.h",),
        targets=targets,
        programs=programs,
        kernels=(directory / "kernels",),
    )
    return dataclasses.replace(made, **changes)


def test_contents(tmp_path: Path) -> None:
    package.write(contents(tmp_path / "in"), tmp_path / "net.tar")
    read = package.read(tmp_path / "net.tar")
    assert sorted(read.files) == [
        "include/net/model.h",
        "include/runtime/aoti.h",
        "lib/libnet.so",
        "net.safetensors",
    ]
    assert read.files["lib/libnet.so"] == b"library.so" * 100
    assert read.manifest["name"] == "net"
    assert read.manifest["targets"] == {
        "sm_80": {"driver": 12000},  # no less than the runtime needs
        "sm_90": {"driver": 12080},
        "compute_90": {"driver": 12040},
    }
    weights = small_program(parse("sm_90")).weights
    assert read.manifest["weights_digest"] == program.weights_digest(weights)
    assert read.manifest["files"]["net.safetensors"]["size"] == 1900


def test_same_bytes(tmp_path: Path) -> None:
    package.write(contents(tmp_path / "a"), tmp_path / "a.tar")
    old = os.umask(0o077)
    try:
        parts = contents(tmp_path / "b")
        os.utime(parts.library, (0, 0))
        package.write(parts, tmp_path / "b.tar")
    finally:
        os.umask(old)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    parts.library.write_bytes(b"another")
    package.write(parts, tmp_path / "c.tar")
    assert (tmp_path / "a.tar").read_bytes() != (tmp_path / "c.tar").read_bytes()


def test_metadata(tmp_path: Path) -> None:
    package.write(contents(tmp_path / "in"), tmp_path / "net.tar")
    with tarfile.open(tmp_path / "net.tar") as archive:
        members = archive.getmembers()
    assert members[0].name == "net/manifest.json", "first, so that it is read without the rest"
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
        assert member.mode == (0o755 if member.name.endswith(".so") else 0o644)


def test_driver_of_the_runtime() -> None:
    assert package.RUNTIME_DRIVERS == {
        "cuda": model_source.RUNTIME_DRIVER,
        "hip": model_source.HIP_RUNTIME_DRIVER,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "not a C identifier"),
        ({"targets": ()}, "no target"),
        ({"kernels": ()}, f"kernel {KERNEL.name} for sm_80 is in none"),
        ({"programs": {}}, "sm_80 needs the program lowered for sm_80"),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PackageError, match=message):
        package.write(contents(tmp_path / "in", **changes), tmp_path / "net.tar")
    assert not list(tmp_path.glob("net.tar*"))


def test_programs_of_different_graphs(tmp_path: Path) -> None:
    parts = contents(tmp_path / "in")
    other = small_program(parse("sm_90"), shape=(3, 2))
    parts.programs[parse("sm_90")].write_text(program.dumps(other))
    with pytest.raises(PackageError, match="need different weights"):
        package.write(parts, tmp_path / "net.tar")


def repack(path: Path, change: Any) -> None:
    with tarfile.open(path) as archive:
        members = []
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None
            members.append((member, stream.read()))
    with tarfile.open(path, "w") as archive:
        for member, data in change(members):
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members[1:], "manifest.json is missing"),
        (lambda members: members[:-1], "missing, though in"),
        (lambda members: [*members, (tarfile.TarInfo("net/x"), b"")], "not in its manifest"),
        (lambda members: members + members[-1:], "occurs twice"),
        (lambda members: [*members[:-1], (members[-1][0], b"other")], "damaged"),
        (lambda members: [(members[0][0], b"{}"), *members[1:]], "malformed"),
        (
            lambda members: [(members[0][0], b'{"schema_version": 2, "files": {}}'), *members[1:]],
            "schema_version is 2",
        ),
    ],
)
def test_damaged_packages(tmp_path: Path, change: Any, message: str) -> None:
    package.write(contents(tmp_path / "in"), tmp_path / "net.tar")
    repack(tmp_path / "net.tar", change)
    with pytest.raises(PackageError, match=message):
        package.read(tmp_path / "net.tar")


def test_no_package(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no archive" * 100)
    with pytest.raises(PackageError, match="not a package"):
        package.read(tmp_path / "x")
