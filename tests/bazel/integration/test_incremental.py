"""What an edit re-runs, by Bazel's execution log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.integration import nested

PACKAGE = "//tests/bazel/small:small.package"
MODEL = "tests/bazel/small/small.py"
SHARDS = 8


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[nested.Workspace, nested.Build]]:
    """A workspace, and its first build."""
    workspace = nested.Workspace(tmp_path_factory.mktemp("incremental") / "workspace", environ={})
    yield workspace, workspace.build(PACKAGE)
    workspace.close()


def test_the_first_build_runs_every_step_through_workers(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    _, first = built
    assert first.counts() == {
        "AotiExport": 1,
        "AotiSplit": 1,
        "AotiLower": 2,
        "AotiCompile": 2 * SHARDS,
        "AotiWrap": 1,
        "AotiPackage": 1,
    }
    assert first.runners("AotiLower") == {"worker"}
    assert first.runners("AotiCompile") == {"worker"}
    assert first.runners("AotiWrap") == {"linux-sandbox"}


def test_no_torch_among_the_inputs_of_compile_wrap_and_package(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    _, first = built
    checked = 0
    for spawn in first.spawns:
        inputs = [entry["path"] for entry in spawn["inputs"]]
        if spawn["mnemonic"] in ("AotiCompile", "AotiWrap", "AotiPackage"):
            assert not [path for path in inputs if "aoti_pip_torch" in path]
            checked += 1
        if spawn["mnemonic"] == "AotiWrap":
            assert not [path for path in inputs if "aoti_pip_triton" in path]
        if spawn["mnemonic"] == "AotiLower":  # the check can see what it looks for
            assert [path for path in inputs if "aoti_pip_torch" in path]
    assert checked == 2 * SHARDS + 2


def test_nothing_to_do(built: tuple[nested.Workspace, nested.Build]) -> None:
    workspace, _ = built
    assert workspace.build(PACKAGE).spawns == ()


def test_new_weights_lower_compile_and_wrap_nothing(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    workspace, _ = built
    before = workspace.outputs()
    workspace.edit(MODEL, "SEED = 0", "SEED = 1")
    counts = workspace.build(PACKAGE).counts()
    after = workspace.outputs()
    assert counts == {"AotiExport": 1, "AotiSplit": 1, "AotiPackage": 1}
    changed = {path for path in after if before.get(path) != after[path]}
    assert changed == {"small_pt2.pt2", "small.safetensors", "small.tar"}


def test_another_activation_compiles_its_shards_alone(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    workspace, _ = built
    before = workspace.outputs()
    workspace.edit(MODEL, "torch.relu(self.second(x))", "torch.tanh(self.second(x))")
    counts = workspace.build(PACKAGE).counts()
    after = workspace.outputs()
    assert counts["AotiLower"] == 2
    edited = {
        str(Path(path).parent)
        for path in before.keys() | after.keys()
        if "/shards/" in path and before.get(path) != after.get(path)
    }
    assert 0 < len(edited) < 2 * SHARDS
    assert counts["AotiCompile"] == len(edited)
