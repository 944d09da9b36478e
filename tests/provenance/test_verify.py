"""``wrapgen verify``: whatever is changed in a package, it is told, and nothing makes it fail."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.provenance.packages import Members, contents, library, members, repack, safetensors
from wrapgen import cli, package
from wrapgen.program import canonical_json
from wrapgen.provenance import archive
from wrapgen.provenance.verify import Difference, verify

Json = Any


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("good")
    package.write(contents(directory / "in"), directory / "net.tar")
    return (directory / "net.tar").read_bytes()


@pytest.fixture
def net(good: bytes, tmp_path: Path) -> Path:
    """A package of one's own."""
    path = tmp_path / "net.tar"
    path.write_bytes(good)
    return path


def told(path: Path) -> dict[str, Difference]:
    """{``FILE: WHAT``: difference}"""
    return {f"{each.file}: {each.what}": each for each in verify(path).differences}


def edit(path: str, change: Callable[[Json], None]) -> Callable[[Members], Members]:
    """Changes a JSON file and nothing else."""

    def changed(found: Members) -> Members:
        files = dict(found)
        value = json.loads(files[f"net/{path}"])
        change(value)
        files[f"net/{path}"] = canonical_json(value).encode()
        return list(files.items())

    return changed


def replace(path: str, data: bytes) -> Callable[[Members], Members]:
    return lambda found: [(n, data if n == f"net/{path}" else d) for n, d in found]


def test_a_package(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = verify(net)
    assert report.differences == ()
    assert (report.verified, report.name, report.files, report.images) == (True, "net", 7, 3)
    assert cli.main(["verify", str(net)]) == 0
    assert capsys.readouterr().out == f"{net}: verified: 7 files, 3 kernel images\n"
    assert cli.main(["verify", str(net), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "differences": [],
        "files": 7,
        "images": 3,
        "name": "net",
        "package": str(net),
        "verified": True,
    }


def test_the_report_names_file_expected_and_found(
    net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repack(net, replace("include/net/model.h", b"another"))
    assert cli.main(["verify", str(net)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{net}: ")
    size = "net/manifest.json: files.include/net/model.h.size: expected 7, found 700"
    assert size in [line.strip() for line in out.splitlines()]
    assert err == f"wrapgen verify: {net}: not what its statement and its manifest say\n"
    assert cli.main(["verify", str(net), "--json"]) == 1
    differences = json.loads(capsys.readouterr().out)["differences"]
    assert {
        "file": "net/manifest.json",
        "what": "files.include/net/model.h.size",
        "expected": "7",
        "found": "700",
    } in differences


@pytest.mark.parametrize("i", range(7))
def test_a_flipped_bit_in_each_file(net: Path, i: int) -> None:
    for at in (0, 0.5, 1):

        def flip(found: Members, at: float = at) -> Members:
            name, data = found[i]
            spoiled = bytearray(data)
            spoiled[int(at * (len(data) - 1))] ^= 1
            return [*found[:i], (name, bytes(spoiled)), *found[i + 1 :]]

        before = net.read_bytes()
        repack(net, flip)
        assert told(net)
        net.write_bytes(before)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Of the archive itself: of headers and padding, too."""
    at = data.draw(st.integers(0, len(good) - 1))
    mask = data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "changed.tar"
    spoiled = bytearray(good)
    spoiled[at] ^= mask
    path.write_bytes(spoiled)
    assert not verify(path).verified


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_length_and_any_bytes(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A report comes of whatever the file holds, and no exception."""
    length = data.draw(st.integers(0, len(good) - 1))
    blocks = data.draw(st.lists(st.binary(min_size=512, max_size=512), max_size=2))
    path = tmp_path_factory.getbasetemp() / "cut.tar"
    path.write_bytes(good[:length] + b"".join(blocks))
    assert not verify(path).verified


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)


def _places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    keys = (
        value.keys()
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    return [*found, *(place for key in keys for place in _places(value[key], (*path, key)))]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_value_of_the_documents(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Another value anywhere, of another type as well, is told, and never an exception."""
    path = tmp_path_factory.getbasetemp() / "edited.tar"
    path.write_bytes(good)
    document = data.draw(st.sampled_from(["manifest.json", "provenance.json", "sbom.spdx.json"]))
    value = json.loads(dict(members(path))[f"net/{document}"])
    place = data.draw(st.sampled_from(_places(value)))

    def change(root: Json) -> None:
        for key in place[:-1]:
            root = root[key]
        new = data.draw(
            VALUES.filter(
                lambda new: new != root[place[-1]] or type(new) is not type(root[place[-1]])
            )
        )
        root[place[-1]] = new

    repack(path, edit(document, change))
    assert not verify(path).verified


def test_members(net: Path) -> None:
    before = net.read_bytes()
    added = ("net/include/runtime/extra.h", b"")
    for change, key in [
        (lambda found: found[1:], "net/manifest.json: file"),
        (lambda found: found[:1] + found[2:], "net/provenance.json: file"),
        (lambda found: found[:-1], "net/net.safetensors: file"),
        (lambda found: [*found, ("net/x", b"")], "net/x: file"),
        (
            lambda found: [*found[:4], added, *found[4:]],
            "net/provenance.json: subject[net/include/runtime/extra.h]",
        ),
        (lambda found: [*found, ("other/net", b"")], "other/net: file"),
        (lambda found: found + found[-1:], "net/net.safetensors: occurs"),
        (lambda found: [*found[:-1], ("net/weights", found[-1][1])], "net/weights: file"),
        (lambda found: [found[1], found[0], *found[2:]], ": member 0"),
    ]:
        repack(net, change)
        keys = told(net)
        assert any(each.startswith(key) for each in keys), (key, keys)
        net.write_bytes(before)


def test_another_name_of_the_whole(net: Path) -> None:
    repack(net, lambda found: [(n.replace("net/", "other/", 1), d) for n, d in found])
    assert told(net)["other/manifest.json: name"].found == "net"


@pytest.mark.parametrize(
    "name", ["../net/x", "/etc/passwd", "net/../../x", "net//x", "n\u00e9t/x", "net/x\ny"]
)
def test_names_that_are_no_paths(net: Path, name: str) -> None:
    found = members(net)
    with tarfile.open(net, "w") as opened:
        for path, data in [*found, (name, b"")]:
            member = tarfile.TarInfo(path)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    assert not verify(net).verified


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.GNUTYPE_SPARSE,
    ],
)
def test_members_that_are_no_files(net: Path, kind: bytes) -> None:
    def header(name: str) -> bytes:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = "/etc/passwd"
        return member.tobuf(tarfile.PAX_FORMAT)

    data = net.read_bytes()
    net.write_bytes(header("net/lib/libnet.so") + data)
    differences = told(net)
    assert differences["net/lib/libnet.so: header: type"].expected == "'0'"


def test_metadata(net: Path) -> None:
    with tarfile.open(net) as opened:
        member = opened.getmember("net/lib/libnet.so")
    at = member.offset
    data = bytearray(net.read_bytes())
    for field, begin, text in [
        ("mode", 100, b"0004755"),
        ("owner", 108, b"0001750"),
        ("time", 136, b"14000000000"),
        ("owner's name", 265, b"root"),
    ]:
        spoiled = bytearray(data)
        spoiled[at + begin : at + begin + len(text)] = text
        net.write_bytes(spoiled)
        assert f"net/lib/libnet.so: header: {field}" in told(net)
    net.write_bytes(bytes(data) + bytes(archive.RECORD))
    assert ": size of the archive" in told(net)


def test_swapped_weights(net: Path) -> None:
    """Of the same names and shapes, so that the library would take them."""
    repack(net, replace("net.safetensors", safetensors(fill=1)))
    keys = told(net)
    assert "net/manifest.json: files.net.safetensors.sha256" in keys
    assert "net/provenance.json: subject[net/net.safetensors].digest.sha256" in keys
    dependency = "predicate.buildDefinition.resolvedDependencies[weights.safetensors].digest.sha256"
    assert f"net/provenance.json: {dependency}" in keys


def test_weights_that_the_library_does_not_take(net: Path) -> None:
    other = safetensors().replace(b"[2, 3]", b"[3, 2]")
    repack(net, replace("net.safetensors", other))
    difference = told(net)["net/net.safetensors: tensor a.weight"]
    assert (difference.expected, difference.found) == ("F16 [2, 3]", "F16 [3, 2]")
    repack(net, replace("net.safetensors", b"short"))
    assert "net/net.safetensors: header" in told(net)


def test_a_swapped_kernel(net: Path) -> None:
    """Is named, beside the library that holds it."""
    repack(net, replace("lib/libnet.so", library().replace(b"ab for sm_90", b"ab for sm_9X")))
    place = "predicate.runDetails.byproducts[kernels/sm_90/add_0123456789ab.cubin].digest.sha256"
    assert f"net/provenance.json: {place}" in told(net)


def test_a_kernel_that_is_not_stated(net: Path) -> None:
    image = b"\x7fELF" + bytes(14) + (190).to_bytes(2, "little")
    repack(net, replace("lib/libnet.so", library() + image))
    assert f"net/lib/libnet.so: byte {len(library())}" in told(net)


def test_another_library(net: Path) -> None:
    repack(net, replace("lib/libnet.so", b"\x7fELF"))
    keys = told(net)
    assert keys["net/lib/libnet.so: content"].expected == "an ELF shared library"
    assert "net/lib/libnet.so: weights digest in it" in keys
    assert keys["net/lib/libnet.so: code in it"].found == "none"
    repack(net, replace("lib/libnet.so", library().replace(b"libnet.so\0", b"libnot.so\0")))
    assert told(net)["net/lib/libnet.so: SONAME"].found == "libnot.so"


@pytest.mark.parametrize(
    ("document", "change", "place"),
    [
        (
            "provenance.json",
            lambda value: value["predicate"]["buildDefinition"]["externalParameters"].update(
                options=[]
            ),
            "digest of its predicate",
        ),
        (
            "provenance.json",
            lambda value: value["predicate"]["buildDefinition"]["externalParameters"].update(
                targets=["sm_90"]
            ),
            "targets",
        ),
        (
            "provenance.json",
            lambda value: value["predicate"]["buildDefinition"]["resolvedDependencies"].pop(0),
            "content",
        ),
        (
            "provenance.json",
            lambda value: value.update(predicateType="https://slsa.dev/provenance/v0.2"),
            "predicateType",
        ),
        ("provenance.json", lambda value: value["subject"].pop(), "subject[net/sbom.spdx.json]"),
        ("provenance.json", lambda value: value.update(more=1), "more"),
        (
            "sbom.spdx.json",
            lambda value: value["creationInfo"].update(created="2026-01-01T00:00:00Z"),
            "creationInfo.created",
        ),
        ("sbom.spdx.json", lambda value: value["packages"].pop(1), "packages["),
        ("sbom.spdx.json", lambda value: value["relationships"].reverse(), "relationships: item 0"),
        (
            "manifest.json",
            lambda value: value["targets"].update(sm_100={"driver": 12080}),
            "code in it",
        ),
        ("manifest.json", lambda value: value.update(schema_version=1), "schema_version"),
    ],
)
def test_an_edited_document(
    net: Path, document: str, change: Callable[[Json], None], place: str
) -> None:
    repack(net, edit(document, change))
    assert any(f": {place}" in each for each in told(net)), told(net)


def test_an_edit_that_keeps_the_digests_in_step(net: Path) -> None:
    """A compiler that the library does not name, though statement, manifest and bill agree."""

    def change(found: Members) -> Members:
        return [(n, d.replace(b"GCC: (", b"GCC: [") if "json" in n else d) for n, d in found]

    repack(net, change)
    assert any("annotations.comment" in each for each in told(net))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"[]\n",
        b"{",
        b"\xff",
        b"NaN",
        b'{"a": 1, "a": 2}\n',
        b'{"a": "\\ud800"}\n',
        b"[" * 100000,
        b"1" * 5000,
    ],
)
@pytest.mark.parametrize("document", ["manifest.json", "provenance.json", "sbom.spdx.json"])
def test_no_document(net: Path, document: str, data: bytes) -> None:
    repack(net, replace(document, data))
    assert any(each.startswith(f"net/{document}: ") for each in told(net))


@pytest.mark.parametrize("data", [b"", b"no archive" * 100, bytes(1024), b"\x80" * 512])
def test_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    assert not verify(tmp_path / "x").verified


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path)]) == 1
    assert "expected a package as wrapgen package writes it, found no regular file" in (
        capsys.readouterr().out
    )


def test_a_size_beyond_the_end(net: Path) -> None:
    """Nothing is allocated for it. A negative one, with which Python's tarfile reads for ever, is
    no number."""
    data = bytearray(net.read_bytes())
    data[124:136] = b"77777777777\0"
    net.write_bytes(data)
    assert "more than the file has left" in told(net)[": archive"].found
    data[124:136] = b"\xff" * 12
    net.write_bytes(data)
    assert "no header of a tar archive" in told(net)[": archive"].found


def test_sizes_and_names_beyond_the_plain_header(tmp_path: Path) -> None:
    """8 GiB and 100 letters are what it has room for. The rest of the file is a hole."""
    name, size = f"net/{'x' * 120}", (8 << 30) + 5
    path = tmp_path / "net.tar"
    with path.open("wb") as stream:
        stream.write(archive.header(name, size))
        stream.seek(size + (-size % archive.BLOCK), 1)
        stream.write(archive.end(stream.tell()))
    with archive.opened(path) as opened:
        assert opened.oddities == ()
        assert [(each.name, each.size) for each in opened.members.values()] == [(name, size)]
