"""Which targets Bazel skips, by the GPU that is built for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bazel.integration import nested

GPUS = "//tests/bazel/gpus:"
TARGETS = ("hopper", "hopper_test", "hopper.package", "chosen", "chosen_test", "anywhere_test")
SHOW = '"%s %s" % (target.label.name, "IncompatiblePlatformProvider" in (providers(target) or {}))'


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nested.Workspace]:
    made = nested.Workspace(tmp_path_factory.mktemp("compatible") / "workspace", environ={})
    yield made
    made.close()


@pytest.mark.parametrize(
    ("flags", "skipped"),
    [
        (["--platforms=//tests/bazel/gpus:h100"], set()),
        # A library for another GPU, and all that is made of it.
        (["--platforms=//tests/bazel/gpus:a100"], {"hopper", "hopper_test", "hopper.package"}),
        # Tests of libraries for AMD's GPUs: by platform, by a select, by the flag.
        (
            ["--platforms=//tests/bazel/gpus:mi300"],
            {"hopper", "hopper_test", "hopper.package", "chosen_test", "anywhere_test"},
        ),
        (
            ["--platforms=//tests/bazel/gpus:h100", "--//aoti:targets=gfx942"],
            {"hopper_test", "chosen_test", "anywhere_test"},
        ),
    ],
)
def test_what_is_for_other_gpus_is_skipped(
    workspace: nested.Workspace, flags: list[str], skipped: set[str]
) -> None:
    said = workspace.cquery(*(GPUS + target for target in TARGETS), show=SHOW, flags=flags)
    found = dict(line.split() for line in said)
    assert found == {target: str(target in skipped) for target in TARGETS}
