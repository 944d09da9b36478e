"""What the shared library of a model needs and shows."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

LIBRARIES = {
    "resnet_aoti": Path("models/libresnet_aoti.so"),
    "small": Path("tests/bazel/small/libsmall.so"),
    "small_hip": Path("tests/bazel/small/libsmall_hip.so"),
}

NEEDED = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}

MEGABYTE = 1 << 20


@pytest.fixture(params=sorted(LIBRARIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def dynamic(elf: ELFFile) -> DynamicSection:
    section = elf.get_section_by_name(".dynamic")
    assert isinstance(section, DynamicSection)
    return section


def test_needs_the_c_library_and_no_driver(name: str) -> None:
    with LIBRARIES[name].open("rb") as file:
        tags = list(dynamic(ELFFile(file)).iter_tags())
    needed = {tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"}
    assert "libc.so.6" in needed
    assert needed <= NEEDED
    assert not [tag for tag in tags if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH", "DT_TEXTREL")]
    assert [tag.soname for tag in tags if tag.entry.d_tag == "DT_SONAME"] == [f"lib{name}.so"]


def test_exports_the_c_abi_and_nothing_else(name: str) -> None:
    header = Path("runtime/aoti.h").read_text()
    declared = set(re.findall(r"^AOTI_EXPORT [^;(]*?\**(aoti_\w+)\(", header, re.M))
    assert len(declared) > 8
    with LIBRARIES[name].open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        assert isinstance(table, SymbolTableSection)
        exported = {
            symbol.name
            for symbol in table.iter_symbols()
            if symbol.entry.st_shndx not in ("SHN_UNDEF", "SHN_ABS")
        }
    assert exported == declared | {f"{name}_description"}


def test_holds_nothing_of_the_build(name: str) -> None:
    data = LIBRARIES[name].read_bytes()
    for trace in (
        b"/sandbox/",
        b"/execroot/",
        b"bazel-out",
        b"/home/",
        b"/root/",
        b"/tmp/",
        b".ttir",
    ):
        assert trace not in data, trace


def test_is_small(name: str) -> None:
    """At most 5 MB a target without weights; both carry three."""
    assert LIBRARIES[name].stat().st_size < 3 * 5 * MEGABYTE


def test_package_holds_what_is_deployed() -> None:
    library = LIBRARIES["small"].read_bytes()
    with tarfile.open("tests/bazel/small/small.tar") as archive:
        members = {member.name: member for member in archive.getmembers()}
        for path in (
            "manifest.json",
            "small.safetensors",
            "include/small/model.h",
            "include/runtime/aoti.h",
        ):
            assert f"small/{path}" in members
        packed = archive.extractfile("small/lib/libsmall.so")
        assert packed is not None
        assert packed.read() == library
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members.values()} == {
        (0, 0, 0, "", "")
    }


def test_package_for_amds() -> None:
    with tarfile.open("tests/bazel/small/small_hip.tar") as archive:
        stream = archive.extractfile("small_hip/manifest.json")
        assert stream is not None
        manifest = json.load(stream)
    # HIP 6.0, as hipRuntimeGetVersion spells it.
    assert manifest["targets"] == {"gfx90a": {"driver": 60000000}, "gfx942": {"driver": 60000000}}


def test_amds_code_is_in_its_library_alone() -> None:
    """And finds AMD's driver by name, at run time."""
    hip, cuda = (LIBRARIES[name].read_bytes() for name in ("small_hip", "small"))
    assert b"libamdhip64.so.6" in hip and b"libcuda.so" not in hip
    assert b"libcuda.so.1" in cuda and b"libamdhip64" not in cuda
    assert b"amdgcn-amd-amdhsa--gfx90a" in hip and b"amdgcn-amd-amdhsa--gfx942" in hip
