"""What an edit re-runs, by Bazel's execution log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.bazel.integration import nested

PACKAGE = "//tests/bazel/small:small.package"
MODEL = "tests/bazel/small/small.py"
BUILD = "tests/bazel/small/BUILD.bazel"
TARGET = '        "sm_80",\n'
BESIDE = '        "sm_90",\n'
SHARDS = 8


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[nested.Workspace, nested.Build]]:
    """A workspace, and its first build, in which the model has code for one lowering alone."""
    workspace = nested.Workspace(tmp_path_factory.mktemp("incremental") / "workspace", environ={})
    workspace.edit(BUILD, TARGET, "")
    yield workspace, workspace.build(PACKAGE)
    workspace.close()


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The outputs that are others than before, or new."""
    return {path for path, digest in after.items() if before.get(path) != digest}


def test_the_first_build_runs_every_step_through_workers(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    _, first = built
    assert first.counts() == {
        "AotiExport": 1,
        "AotiSplit": 1,
        "AotiLower": 1,
        "AotiCompile": SHARDS,
        "AotiWrap": 1,
        "AotiPackage": 1,
    }
    for mnemonic in first.counts():
        assert first.runners(mnemonic) == {"worker"}, mnemonic


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
    assert checked == SHARDS + 2


def test_nothing_to_do(built: tuple[nested.Workspace, nested.Build]) -> None:
    workspace, _ = built
    assert workspace.build(PACKAGE).spawns == ()


def test_new_weights_are_packaged_and_nothing_else(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    workspace, _ = built
    before = workspace.outputs()
    workspace.edit(MODEL, "SEED = 0", "SEED = 1")
    counts = workspace.build(PACKAGE).all_counts()
    after = workspace.outputs()
    assert counts == {"AotiExport": 1, "AotiSplit": 1, "AotiPackage": 1}
    assert changed(before, after) == {"small_pt2.pt2", "small.safetensors", "small.tar"}


def test_a_comment_in_the_model_runs_nothing_behind_split(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    """Above the model, in it, and behind an operation: that moves lines and changes them."""
    workspace, _ = built
    before = workspace.outputs()
    workspace.edit(MODEL, "SEED = ", "# How weights are drawn.\nSEED = ")
    workspace.edit(
        MODEL, "(self.first(x)))\n", "(self.first(x)))  # folded\n        # Once more.\n"
    )
    counts = workspace.build(PACKAGE).all_counts()
    after = workspace.outputs()
    assert counts == {"AotiExport": 1, "AotiSplit": 1}
    assert changed(before, after) == {"small_pt2.pt2"}


def test_another_text_of_the_generated_code_is_wrapped_and_linked(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    workspace, _ = built
    before = workspace.outputs()
    workspace.edit("wrapgen/codegen/launch.py", "no source recorded", "no line recorded")
    counts = workspace.build(PACKAGE).all_counts()
    after = workspace.outputs()
    # A package says what its generator was. The objects are the same: it is a comment.
    assert counts == {"AotiWrap": 1, "CppCompile": 1, "AotiPackage": 1}
    assert changed(before, after) - {"small.tar"} == {"small/model.cc"}

    workspace.edit(
        "wrapgen/codegen/model_source.py",
        "RUNTIME_DRIVER: Final = 12000",
        "RUNTIME_DRIVER: Final = 12010",
    )
    counts = workspace.build(PACKAGE).all_counts()
    assert counts == {"AotiWrap": 1, "CppCompile": 1, "CppLink": 1, "AotiPackage": 1}


def test_another_target_is_built_beside_those_that_are_there(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    workspace, _ = built
    before = workspace.outputs()
    workspace.edit(BUILD, BESIDE, TARGET + BESIDE)
    build = workspace.build(PACKAGE)
    after = workspace.outputs()
    assert build.all_counts() == {
        "AotiLower": 1,
        "AotiCompile": SHARDS,
        "AotiWrap": 1,
        "CppCompile": 3,
        "CppLink": 1,
        "AotiPackage": 1,
    }
    assert [path for path in changed(before, after) if "sm_90" in path or "_90" in path] == []


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


def test_an_entry_of_the_tuning_lock_compiles_the_shards_of_its_kernel_alone(
    built: tuple[nested.Workspace, nested.Build],
) -> None:
    workspace, _ = built
    package = workspace.directory / nested.SMALL
    file = package / "small.tuning.json"

    def write(config: dict[str, int]) -> None:
        value = {"schema_version": 1, "targets": {"sm_90": {site["site"]: {"config": config}}}}
        file.write_text(json.dumps(value))

    # Every lowering writes it; where the lock is none of its inputs, too.
    sites = json.loads(
        (
            workspace.directory / "bazel-bin" / nested.SMALL / "small.programs/sm_90/sites.json"
        ).read_text()
    )["sites"]
    site = next(each for each in sites if each["site"].startswith("mm "))
    write(site["config"])
    lock = '    tuning = "small.tuning.json",\n'
    workspace.edit(BUILD, '    name = "small",\n', f'    name = "small",\n{lock}')
    same = workspace.build(PACKAGE).counts()
    assert same["AotiLower"] == 2, "it is an input from now on"
    assert same["AotiCompile"] == same["AotiWrap"] == 0, "and says what holds without it"

    before = workspace.outputs()
    tile = {"block_m": 16, "block_n": 16, "block_k": 16, "num_stages": 3, "num_warps": 2}
    assert site["config"] != site["config"] | tile
    write(site["config"] | tile)
    counts = workspace.build(PACKAGE).counts()
    after = workspace.outputs()
    edited = {
        str(Path(path).parent)
        for path in before.keys() | after.keys()
        if "/shards/" in path and before.get(path) != after.get(path)
    }
    # The one that the old kernel was in, and the one with the new.
    assert 1 <= len(edited) <= 2
    assert all("/sm_90/" in shard for shard in edited), "the entry is of no other target"
    assert counts["AotiCompile"] == len(edited)
    assert counts["AotiWrap"] == counts["AotiPackage"] == 1
