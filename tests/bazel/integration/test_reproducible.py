"""Another place, user and schedule give the same bytes; a changed layer gives others.

The first of the two builds that are compared is the one that runs these tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.integration import nested

TARGETS = ("//tests/bazel/small:everything",)
MODEL = "tests/bazel/small/small.py"
PACKAGE = "models/resnet_aoti.tar"

DIFFERENTLY = (
    "--jobs=1",
    "--spawn_strategy=local",
    *(
        f"--strategy=Aoti{step}=local"
        for step in ("Compile", "Export", "Lower", "Package", "Split", "Wrap")
    ),
)
"""No sandbox, no worker, one action at a time."""

SUFFIXES = {
    ".a",
    ".cc",
    ".cubin",
    ".h",
    ".json",
    ".ptx",
    ".pt2",
    ".py",
    ".S",
    ".so",
    ".safetensors",
    ".tar",
}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nested.Workspace]:
    """A workspace that has little in common with the one this test lies in."""
    root = tmp_path_factory.mktemp("reproducible")
    home = root / "a home elsewhere"
    home.mkdir()
    workspace = nested.Workspace(
        root / "deeper" / "in" / "another_directory",
        environ={
            "HOME": str(home),
            "LANG": "tr_TR.UTF-8",
            "PYTHONHASHSEED": "12345",
            "TZ": "Asia/Kathmandu",
            "USER": "another",
        },
        umask=0o077,
    )
    yield workspace
    workspace.close()


def test_place_user_and_schedule_have_no_say(elsewhere: nested.Workspace) -> None:
    build = elsewhere.build(*TARGETS, flags=DIFFERENTLY)
    assert build.runners("AotiCompile") == build.runners("AotiWrap") == {"local"}
    here, there = nested.digests(Path(nested.SMALL)), elsewhere.outputs()
    generated = {path: digest for path, digest in here.items() if path in there}
    assert {Path(path).suffix for path in generated} >= SUFFIXES
    assert len(generated) > 50
    assert [path for path, digest in generated.items() if there[path] != digest] == []


def test_a_changed_layer_changes_the_bytes(elsewhere: nested.Workspace) -> None:
    """The negative control of the test above."""
    before = elsewhere.outputs()
    elsewhere.edit(MODEL, "torch.relu(self.second(x))", "torch.tanh(self.second(x))")
    elsewhere.build(*TARGETS, flags=DIFFERENTLY)
    after = elsewhere.outputs()
    for path in ("libsmall.so", "small.tar", "small/model.cc", "small.graph.json"):
        assert after[path] != before[path], path


def test_resnet(elsewhere: nested.Workspace) -> None:
    elsewhere.build("//models:resnet_aoti.package")
    here, there = Path(PACKAGE), elsewhere.directory / "bazel-bin" / PACKAGE
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (here, there)]
    assert digests[0] == digests[1]
