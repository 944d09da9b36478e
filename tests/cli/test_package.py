"""The package: the same bytes for the same parts, and nothing that does not belong together."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.provenance.packages import KERNEL, contents, library, members, small_program
from wrapgen import package, program
from wrapgen.codegen import model_source
from wrapgen.package import PackageError
from wrapgen.provenance.facts import ProvenanceError
from wrapgen.target import parse


def test_contents(tmp_path: Path) -> None:
    package.write(contents(tmp_path / "in"), tmp_path / "net.tar")
    files = dict(members(tmp_path / "net.tar"))
    assert list(files) == [
        "net/manifest.json",
        "net/provenance.json",
        "net/sbom.spdx.json",
        "net/include/net/model.h",
        "net/include/runtime/aoti.h",
        "net/lib/libnet.so",
        "net/net.safetensors",
    ]
    assert files["net/lib/libnet.so"] == library()
    manifest = json.loads(files["net/manifest.json"])
    assert manifest["name"] == "net"
    assert manifest["targets"] == {
        "sm_80": {"driver": 12000},  # no less than the runtime needs
        "sm_90": {"driver": 12080},
        "compute_90": {"driver": 12040},
    }
    weights = small_program(parse("sm_90")).weights
    assert manifest["weights_digest"] == program.weights_digest(weights)
    assert manifest["weights"] == [
        {"name": "a.weight", "dtype": "float16", "shape": [2, 3]},
        {"name": "z", "dtype": "bfloat16", "shape": []},
    ]
    assert sorted(manifest["files"]) == sorted(
        path.removeprefix("net/") for path in list(files)[3:]
    )
    assert manifest["files"]["net.safetensors"]["size"] == len(files["net/net.safetensors"])


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
    parts.weights.write_bytes(parts.weights.read_bytes() + b"another")
    package.write(parts, tmp_path / "c.tar")
    assert (tmp_path / "a.tar").read_bytes() != (tmp_path / "c.tar").read_bytes()


def test_metadata(tmp_path: Path) -> None:
    package.write(contents(tmp_path / "in"), tmp_path / "net.tar")
    with tarfile.open(tmp_path / "net.tar") as archive:
        found = archive.getmembers()
    assert found[0].name == "net/manifest.json", "first, so that it is read without the rest"
    for member in found:
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
        ({"kernels": ()}, f"kernel {KERNEL.name} for compute_90 is in none"),
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


def test_a_library_of_other_kernels(tmp_path: Path) -> None:
    parts = contents(tmp_path / "in")
    (parts.kernels[0] / "sm_80" / f"{KERNEL.name}.cubin").write_bytes(b"\x7fELF another")
    with pytest.raises(PackageError, match=f"does not have the kernel {KERNEL.name} of sm_80"):
        package.write(parts, tmp_path / "net.tar")


def test_what_the_statement_tells_must_be_there_to_be_found(tmp_path: Path) -> None:
    parts = contents(tmp_path / "in")
    headers = parts.build.components["dlpack"]
    for spoiled, text, message in [
        (
            parts.build.locks[0],
            "torch>=2\n",
            "'torch>=2': expected NAME==VERSION with at least one",
        ),
        (parts.build.ptxas, "#!/bin/sh\n", "no ptxas: it does not say which CUDA release"),
        (headers[0], "#pragma once\n", "dlpack: its files do not say which version they are"),
        (parts.library, "no ELF", "no ELF shared library"),
    ]:
        assert spoiled is not None
        data = spoiled.read_bytes()
        spoiled.write_text(text)
        with pytest.raises(ProvenanceError, match=message):
            package.write(parts, tmp_path / "net.tar")
        spoiled.write_bytes(data)
    package.write(parts, tmp_path / "net.tar")


def test_components(tmp_path: Path) -> None:
    stray = tmp_path / "json.hpp"
    stray.touch()
    for components, message in [
        (
            {"boost": (stray,)},
            "unknown component 'boost': known are runtime, dlpack, nlohmann_json",
        ),
        ({"nlohmann_json": (stray,)}, "a file of nlohmann_json is below a directory nlohmann/"),
        ({"runtime": ()}, "runtime: no file is given"),
    ]:
        parts = contents(tmp_path / "in", build={"components": components})
        with pytest.raises(ProvenanceError, match=message):
            package.write(parts, tmp_path / "net.tar")
