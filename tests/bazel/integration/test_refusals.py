"""What fails before analysis: macros, and repositories whose Python or pip does not do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.integration import nested

LIBRARY = """\
load("//aoti:defs.bzl", "aoti_library")

aoti_library(
    name = "net",
    model = "net.pt2",
    {attributes},
)
"""

MACROS = {
    "interface": (
        'targets = ["sm_90"], aotinductor = "tpu"',
        '//refusals/interface:net: aotinductor = "tpu": expected cuda or cpu, which is where '
        "callers have their tensors, or nothing",
    ),
    "test_of_amds": (
        'targets = ["gfx942"], test = {"size": "small"}',
        "net: test: a library for AMD's GPUs has no test: the simulator is a GPU of NVIDIA's",
    ),
}

HELP = """
Install CPython 3.11 and put it on PATH as python3.11, or name it:
    --repo_env=RULES_AOTI_PYTHON=/path/to/python3.11"""

# In place of a Python: shell scripts, whose arguments are what the repositories run it with.
PYTHONS = {
    "broken": (
        "echo no such library >&2; exit 1",
        "broken.python does not work: no such library\n" + HELP,
    ),
    "older": ("echo /usr/bin/python3; echo 3.10.4", "/usr/bin/python3 is Python 3.10.4." + HELP),
    "uncopied": (
        """case "$*" in -c*) echo "$0"; echo 3.11.9;; *) echo no copy >&2; exit 1;; esac""",
        "no copy\n" + HELP,
    ),
}

PIPS = {
    "without_pip": (
        "echo /usr/bin/python3: No module named pip >&2; exit 1",
        "pip cannot install requirements.txt:\n/usr/bin/python3: No module named pip\nInstall pip"
        " for this Python, or name another with --repo_env=RULES_AOTI_PYTHON.",
    ),
    "without_torch": (
        "echo ERROR: No matching distribution found for torch==2.13.0+cpu >&2; exit 1",
        "No matching distribution found for torch==2.13.0+cpu\nPyTorch's CPU build is on PyTorch's"
        " own index, not on the default one. Name that index, or a\ndirectory with the wheel, in"
        " pip's configuration: PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS.",
    ),
    "nothing": ("exit 0", "pip installed nothing for requirements.txt"),
    "excluding": (
        """case "$*" in *" pip "*) mkdir site;; *trim*) echo not there >&2; exit 1;; esac""",
        "requirements.txt: exclude: not there",
    ),
    "unreadable": (
        """case "$*" in *" pip "*) mkdir site;; *stamp*) echo denied >&2; exit 1;; esac""",
        "site cannot be read: denied",
    ),
    "incomplete": (
        """case "$*" in *" pip "*) mkdir site;; esac""",
        "requirements.txt: the packages hold no bin/tool",
    ),
}

EXTENSION = """\
load("//aoti/private/repositories:pip_group.bzl", "pip_group")

def _refusals_impl(_mctx):
    for name in {names}:
        pip_group(
            name = name,
            files = ["bin/tool"],
            interpreter = Label("//refusals:" + name),
            lock = Label("//refusals:requirements.txt"),
        )

refusals = module_extension(implementation = _refusals_impl)
"""

USE = """
refusals = use_extension("//refusals:extension.bzl", "refusals")
use_repo(refusals, {names})
"""


def _fake(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nested.Workspace]:
    made = nested.Workspace(tmp_path_factory.mktemp("refusals") / "workspace", environ={})
    root = made.directory / "refusals"
    root.mkdir()
    (root / "BUILD.bazel").write_text("")
    (root / "requirements.txt").write_text("")
    for name, (attributes, _) in MACROS.items():
        (root / name).mkdir()
        (root / name / "BUILD.bazel").write_text(LIBRARY.format(attributes=attributes))
    for name, (script, _) in {**PYTHONS, **PIPS}.items():
        _fake(root / f"{name}.python", script)
        if name in PIPS:
            (root / name).write_text(str(root / f"{name}.python"))
    (root / "extension.bzl").write_text(EXTENSION.format(names=sorted(PIPS)))
    with (made.directory / "MODULE.bazel").open("a") as module:
        module.write(USE.format(names=", ".join(f'"{name}"' for name in sorted(PIPS))))
    yield made
    made.close()


@pytest.mark.parametrize("name", MACROS)
def test_macros(workspace: nested.Workspace, name: str) -> None:
    assert MACROS[name][1] in workspace.refusal("query", f"//refusals/{name}:all")


@pytest.mark.parametrize("name", PYTHONS)
def test_pythons(workspace: nested.Workspace, name: str) -> None:
    python = workspace.directory / f"refusals/{name}.python"
    flag = f"--repo_env=RULES_AOTI_PYTHON={python}"
    said = workspace.refusal("query", flag, "@aoti_host_python//:all")
    assert PYTHONS[name][1] in said


def test_no_python(workspace: nested.Workspace) -> None:
    flag = "--repo_env=RULES_AOTI_PYTHON=/nowhere/python3.11"
    said = workspace.refusal("query", flag, "@aoti_host_python//:all")
    assert "/nowhere/python3.11 not found." + HELP in said


@pytest.mark.parametrize("name", PIPS)
def test_pips(workspace: nested.Workspace, name: str) -> None:
    assert PIPS[name][1] in workspace.refusal("query", f"@{name}//:all")
