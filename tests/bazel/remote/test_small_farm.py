"""Bazel with the smallest farm: every action remote, the same bytes, and no work done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.integration import nested
from tests.bazel.remote import remote
from tools.farm.small import SmallFarm

MODELS = ("//models:resnet_aoti.package", "//models:bert_small_aoti.package")
PACKAGES = ("models/resnet_aoti.tar", "models/bert_small_aoti.tar")
SMALL = "//tests/bazel/small:everything"
OUTPUTS = (".a", ".o", ".cubin", ".json", ".pt2", ".so", ".tar", ".ttir")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFarm]:
    with SmallFarm(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nested.Workspace]:
    workspace = nested.Workspace(tmp_path_factory.mktemp("first") / "workspace", environ={})
    yield workspace
    workspace.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nested.Workspace]:
    """Another workspace, by another name, with an output base of its own."""
    root = tmp_path_factory.mktemp("second")
    workspace = nested.Workspace(root / "another" / "place", environ={"HOME": str(root)})
    yield workspace
    workspace.close()


@pytest.fixture(scope="module")
def built(farm: SmallFarm, workspace: nested.Workspace) -> nested.Build:
    """The first build: nothing of it is in the cache."""
    return workspace.build(
        *MODELS, SMALL, flags=remote.flags(farm.address, "--remote_download_outputs=all")
    )


def test_every_action_is_run_by_the_farm(built: nested.Build) -> None:
    assert remote.runners(built) == {"remote"}
    counts = built.counts()
    assert counts["AotiExport"] == 3
    assert counts["AotiLower"] == 2 + 1 + 2
    assert counts["AotiCompile"] == 8 * counts["AotiLower"]
    assert counts["AotiPackage"] == 3


def test_the_bytes_are_those_of_a_local_build(
    built: nested.Build, workspace: nested.Workspace
) -> None:
    here, there = nested.digests(Path(nested.SMALL)), workspace.outputs()
    assert [path for path in here if path in there and here[path] != there[path]] == []
    assert len(here.keys() & there.keys()) > 50
    for package in PACKAGES:
        remotely = workspace.directory / "bazel-bin" / package
        assert remotely.read_bytes() == Path(package).read_bytes(), package


def test_another_workspace_runs_nothing_and_downloads_nothing(
    built: nested.Build, farm: SmallFarm, elsewhere: nested.Workspace
) -> None:
    flags = remote.flags(farm.address, "--remote_download_minimal")
    build = elsewhere.build(*MODELS, SMALL, flags=flags)
    assert remote.runners(build) == {"remote cache hit"}
    assert build.counts() == built.counts()
    assert remote.present(elsewhere, "", OUTPUTS) == []


def test_what_was_asked_for_is_downloaded_and_nothing_else(
    built: nested.Build, farm: SmallFarm, elsewhere: nested.Workspace
) -> None:
    flags = remote.flags(farm.address, "--remote_download_toplevel")
    build = elsewhere.build(*MODELS, flags=flags)
    assert remote.runners(build) <= {"remote cache hit"}
    assert remote.present(elsewhere, "", OUTPUTS) == sorted(PACKAGES)
    for package in PACKAGES:
        found = elsewhere.directory / "bazel-bin" / package
        assert found.read_bytes() == Path(package).read_bytes(), package
