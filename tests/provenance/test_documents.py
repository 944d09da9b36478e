"""Statement and bill of materials, as others' programs read them, and what they tell."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from tests.provenance.packages import contents, members
from wrapgen import __version__, package
from wrapgen.program import canonical_json
from wrapgen.provenance.verify import verify

BUILT = {name: Path(f"tests/bazel/small/{name}.tar") for name in ("small", "small_hip")}
"""Packages that Bazel made: there under Bazel alone."""


@pytest.fixture(scope="module", params=["net", *BUILT])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The name of a package, and its files by path below the folder."""
    name = request.param
    path = BUILT.get(name)
    if path is None:
        directory = tmp_path_factory.mktemp("documents")
        path = directory / "net.tar"
        package.write(contents(directory / "in"), path)
    elif not path.exists():
        pytest.skip(f"{path} is made by Bazel")
    assert verify(path).differences == ()
    return name, {member.partition("/")[2]: data for member, data in members(path)}


def documents(files: Any) -> tuple[str, Any, Any]:
    name, found = files
    return name, json.loads(found["provenance.json"]), json.loads(found["sbom.spdx.json"])


def test_spdx_tools_find_nothing_to_say(files: Any, tmp_path: Path) -> None:
    (tmp_path / "sbom.spdx.json").write_bytes(files[1]["sbom.spdx.json"])
    document = parse_file(str(tmp_path / "sbom.spdx.json"))
    assert validate_full_spdx_document(document) == []
    # The validator sees what it looks for.
    document.files[0].spdx_id = document.files[1].spdx_id
    assert validate_full_spdx_document(document) != []


def test_in_toto_reads_the_statement(files: Any) -> None:
    """Fields that its definitions do not have would be refused."""
    _, stated, _ = documents(files)
    Statement.copy_from_pb(json_format.ParseDict(stated, statement_pb2.Statement())).validate()
    predicate = json_format.ParseDict(stated["predicate"], provenance_pb2.Provenance())
    assert predicate.build_definition.build_type == "urn:rules-aoti:build:v1"
    assert predicate.run_details.builder.version["wrapgen"] == __version__
    with pytest.raises(json_format.ParseError):
        json_format.ParseDict({**stated, "more": 1}, statement_pb2.Statement())


def test_subjects_are_all_other_files(files: Any) -> None:
    name, found = files
    _, stated, _ = documents(files)
    assert {each["name"]: each["digest"] for each in stated["subject"]} == {
        f"{name}/{path}": {"sha256": hashlib.sha256(data).hexdigest()}
        for path, data in found.items()
        if path != "provenance.json"
    }


def test_nothing_of_the_machine_or_the_time(files: Any) -> None:
    _, found = files
    for path in ("provenance.json", "sbom.spdx.json"):
        data = found[path]
        assert canonical_json(json.loads(data)).encode() == data
        for trace in (b"/tmp/", b"/root/", b"/home/", b"external/", b"bazel-out", b"2026-"):
            assert trace not in data, trace
    details = json.loads(found["provenance.json"])["predicate"]["runDetails"]
    assert sorted(details) == ["builder", "byproducts"]


def test_parameters_and_tools(files: Any) -> None:
    name, stated, bill = documents(files)
    definition = stated["predicate"]["buildDefinition"]
    dependencies = {each["name"]: each for each in definition["resolvedDependencies"]}
    assert definition["externalParameters"]["name"] == name
    targets = {
        "small": ["compute_90", "sm_80", "sm_90"],
        "small_hip": ["gfx90a", "gfx942"],
        "net": ["compute_90", "sm_80", "sm_90"],
    }[name]
    assert definition["externalParameters"]["targets"] == targets
    assert definition["internalParameters"]["march"] == "x86-64-v2"
    assert dependencies["python/torch"]["uri"].startswith("pkg:pypi/torch@2.13.0")
    assert ("ptxas" in dependencies) == (name != "small_hip")
    if name != "small_hip":
        assert dependencies["ptxas"]["uri"] == "pkg:generic/ptxas@12.8.93"
    assert dependencies["c++ compiler"]["annotations"]["comment"]
    # The archive of the model, which a comment in its source changes, is no input.
    assert not [each for each in dependencies if ".pt2" in each]
    ids = {each["SPDXID"]: each for each in bill["packages"]}
    tools = {
        ids[each["spdxElementId"]]["name"]
        for each in bill["relationships"]
        if each["relationshipType"] == "BUILD_TOOL_OF"
    }
    assert {"torch", "wrapgen", "gcc"} <= tools
    linked = {
        (
            ids[each["relatedSpdxElement"]]["name"],
            ids[each["relatedSpdxElement"]]["licenseDeclared"],
        )
        for each in bill["relationships"]
        if each["relationshipType"] == "STATIC_LINK"
    }
    expected = {
        ("dlpack", "Apache-2.0"),
        ("nlohmann_json", "MIT"),
        ("rules_aoti-runtime", "NOASSERTION"),
    }
    assert linked == expected | ({("nvidia-nvtx", "NOASSERTION")} if name == "net" else set())


def test_the_runtime_that_is_linked(files: Any) -> None:
    name, _, bill = documents(files)
    sources = {
        each["fileName"] for each in bill["files"] if each["fileName"].startswith("./runtime/")
    }
    if name == "net":
        assert sources == {"./runtime/aoti.cc", "./runtime/aotinductor/torch.cc"}
        return
    assert ("./runtime/cuda.cc" in sources) == (name == "small")
    assert ("./runtime/hip.cc" in sources) == (name == "small_hip")
    assert not [
        each for each in sources if each.startswith(("./runtime/aotinductor/", "./runtime/debug/"))
    ]
    needed = {
        each["name"]
        for each in bill["packages"]
        if each["SPDXID"].startswith(("SPDXRef-Package-needed", "SPDXRef-Package-driver"))
    }
    driver = {"small": "libcuda.so.1", "small_hip": "libamdhip64.so.6"}[name]
    assert needed == {"libc.so.6", "libgcc_s.so.1", "libstdc++.so.6", driver}


def test_compiled_kernels_are_where_the_statement_says(files: Any) -> None:
    name, found = files
    _, stated, _ = documents(files)
    library = found[f"lib/lib{name}.so"]
    kernels = [
        each
        for each in stated["predicate"]["runDetails"]["byproducts"]
        if each["name"].startswith("kernels/")
    ]
    assert len(kernels) >= 3
    for kernel in kernels:
        place = kernel["annotations"]
        image = library[place["offset"] : place["offset"] + place["size"]]
        assert hashlib.sha256(image).hexdigest() == kernel["digest"]["sha256"]


def test_dir_hash_is_what_sha256sum_says(files: Any) -> None:
    """in-toto's definition: of ``sha256sum``'s output for the files, sorted by path."""
    _, stated, bill = documents(files)
    dependencies = {
        each["name"]: each
        for each in stated["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    lines = []
    for each in bill["files"]:
        if each["fileName"].startswith("./nlohmann/"):
            digests = {entry["algorithm"]: entry["checksumValue"] for entry in each["checksums"]}
            path = each["fileName"].removeprefix("./")
            lines.append((path, f"{digests['SHA256']}  {path}\n"))
    text = "".join(line for _, line in sorted(lines))
    digest = dependencies["nlohmann_json"]["digest"]["dirHash"]
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_another_namespace_for_another_content(tmp_path: Path) -> None:
    package.write(contents(tmp_path / "a"), tmp_path / "a.tar")
    package.write(contents(tmp_path / "b", build={"march": "x86-64-v3"}), tmp_path / "b.tar")
    package.write(contents(tmp_path / "c", build={"options": ()}), tmp_path / "c.tar")
    bills = [json.loads(dict(members(tmp_path / f"{n}.tar"))["net/sbom.spdx.json"]) for n in "abc"]
    # The manifest repeats the digest of the statement's predicate, so that it is another file.
    assert len({bill["documentNamespace"] for bill in bills}) == 3
