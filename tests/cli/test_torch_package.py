"""The package for PyTorch: laid out as PyTorch's own, the same bytes for the same parts."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from pathlib import Path

import pytest

from wrapgen import cli, torch_package
from wrapgen.target import parse
from wrapgen.torch_package import Contents, TorchPackageError


def contents(directory: Path) -> Contents:
    """Parts of a package, written with times and permissions of their own."""
    directory.mkdir()
    for name in ("library.so", "weights.safetensors", "model.cc"):
        (directory / name).write_bytes(name.encode() * 100)
        (directory / name).chmod(0o600)
    return Contents(
        name="net",
        library=directory / "library.so",
        weights=directory / "weights.safetensors",
        source=directory / "model.cc",
        targets=(parse("sm_90"), parse("compute_90")),
    )


def test_contents(tmp_path: Path) -> None:
    """PyTorch's loader knows a package by its first two names, and the library by its ending."""
    torch_package.write(contents(tmp_path / "in"), tmp_path / "net.pt2")
    with zipfile.ZipFile(tmp_path / "net.pt2") as archive:
        read = {name: archive.read(name) for name in archive.namelist()}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    model = "net/data/aotinductor/model/net"
    assert list(read) == [
        "net/.data/serialization_id",
        "net/.data/version",
        "net/archive_format",
        "net/archive_version",
        "net/byteorder",
        f"{model}.safetensors",
        f"{model}.wrapper.cpp",
        f"{model}.wrapper.so",
        f"{model}.wrapper_metadata.json",
    ]
    assert read["net/archive_format"] == b"pt2"
    assert read["net/archive_version"] == b"0"
    assert read[f"{model}.wrapper.so"] == b"library.so" * 100
    assert read[f"{model}.safetensors"] == b"weights.safetensors" * 100
    assert read[f"{model}.wrapper.cpp"] == b"model.cc" * 100
    assert json.loads(read[f"{model}.wrapper_metadata.json"]) == {
        "AOTI_DEVICE_KEY": "cuda",
        "RULES_AOTI_MODEL": "net",
        "RULES_AOTI_TARGETS": "compute_90,sm_90",
    }


def test_same_bytes(tmp_path: Path) -> None:
    torch_package.write(contents(tmp_path / "a"), tmp_path / "a.pt2")
    old = os.umask(0o077)
    try:
        parts = contents(tmp_path / "b")
        os.utime(parts.library, (0, 0))
        torch_package.write(parts, tmp_path / "b.pt2")
    finally:
        os.umask(old)
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()
    parts.weights.write_bytes(b"others")
    torch_package.write(parts, tmp_path / "c.pt2")
    identities = []
    for name in ("b", "c"):
        with zipfile.ZipFile(tmp_path / f"{name}.pt2") as archive:
            identities.append(archive.read("net/.data/serialization_id"))
    assert identities[0] != identities[1]
    assert [len(identity) for identity in identities] == [40, 40]


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    parts = contents(tmp_path / "in")
    with pytest.raises(TorchPackageError, match="'a b' is not a C identifier"):
        torch_package.write(dataclasses.replace(parts, name="a b"), tmp_path / "net.pt2")
    parts.library.unlink()
    with pytest.raises(FileNotFoundError):
        torch_package.write(parts, tmp_path / "net.pt2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_command(tmp_path: Path) -> None:
    parts = contents(tmp_path / "in")
    argv = ["torch-package", "--name", "net", "--device", "cpu", "--target", "sm_90"]
    argv += ["--library", str(parts.library), "--weights", str(parts.weights)]
    assert cli.main([*argv, "--source", str(parts.source), "-o", str(tmp_path / "net.pt2")]) == 0
    with zipfile.ZipFile(tmp_path / "net.pt2") as archive:
        read = archive.read("net/data/aotinductor/model/net.wrapper_metadata.json")
    assert json.loads(read)["AOTI_DEVICE_KEY"] == "cpu"
