"""With path mapping a cache serves what one configuration built to another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.integration import nested

KERNELS = "//tests/bazel/small:kernels"
STEPS = ("AotiExport", "AotiSplit", "AotiLower", "AotiCompile")


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[nested.Build]]:
    """The kernels of a model, built in two configurations that share a disk cache."""
    root = tmp_path_factory.mktemp("mapped")
    workspace = nested.Workspace(root / "workspace", environ={})
    flags = ["--config=path_mapping", f"--disk_cache={root / 'cache'}"]
    yield [
        workspace.build(KERNELS, flags=[*flags, f"--compilation_mode={mode}"])
        for mode in ("fastbuild", "opt")
    ]
    workspace.close()


def test_no_path_and_no_configuration_in_a_command_line(builds: list[nested.Build]) -> None:
    checked = 0
    for build in builds:
        for spawn in build.spawns:
            if spawn["mnemonic"] not in STEPS:
                continue
            texts = [*spawn["commandArgs"], *(entry["path"] for entry in spawn["inputs"])]
            texts += [variable["value"] for variable in spawn["environmentVariables"]]
            segments = {name for text in texts for name in re.findall(r"bazel-out/([^/]+)", text)}
            assert segments == {"cfg"}, spawn["commandArgs"]
            absolute = [text for text in spawn["commandArgs"] if Path(text).is_absolute()]
            assert not absolute
            checked += 1
    assert checked == 2 * (1 + 1 + 2 + 16)


def test_the_other_configuration_is_served_from_the_cache(builds: list[nested.Build]) -> None:
    first, second = builds
    assert first.counts() == second.counts()
    for mnemonic in STEPS:
        assert first.runners(mnemonic) == {"worker"}, mnemonic
        assert second.runners(mnemonic) == {"disk cache hit"}, mnemonic
