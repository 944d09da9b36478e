"""Actions that run Python where the machine has none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bazel.integration import nested

CONTROL = """\
genrule(
    name = "{name}",
    outs = ["{name}.txt"],
    cmd = "'{python}' -c 'print(1)' > $@",
)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[nested.Workspace]:
    workspace = nested.Workspace(tmp_path / "workspace", environ={})
    yield workspace
    workspace.close()


def machines_python() -> tuple[Path, Path]:
    """Returns the interpreter that the build's was copied from, and its standard library."""
    copy = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    python = Path((copy.parent.parent / "interpreter").read_text()).resolve()
    assert python != copy
    command = [python, "-I", "-c", "import os; print(os.path.dirname(os.__file__))"]
    return python, Path(subprocess.check_output(command, text=True).strip())


def test_actions_need_no_python_of_the_machine(workspace: nested.Workspace) -> None:
    python, library = machines_python()
    package = workspace.directory / "control"
    package.mkdir()
    texts = [CONTROL.format(name=name, python=python) for name in ("seen", "hidden")]
    (package / "BUILD.bazel").write_text("\n".join(texts))
    # Not by workers, which are not in a sandbox that hides anything.
    hide = ["--spawn_strategy=sandboxed", "--strategy=AotiExport=sandboxed"]
    hide.append("--strategy=AotiSplit=sandboxed")
    hide += [f"--sandbox_block_path={path}" for path in (python, library)]

    workspace.build("//control:seen")
    assert "hidden.txt" in workspace.refuse("//control:hidden", flags=hide).said
    built = workspace.build(f"//{nested.SMALL}:weights", flags=hide)
    assert built.counts() == {"AotiExport": 1, "AotiSplit": 1}
    for mnemonic in built.counts():
        assert built.runners(mnemonic) == {"linux-sandbox"}
