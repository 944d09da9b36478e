"""Which Bazel ``./bazelw`` runs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

FILES = (".bazelversion", "bazelw", "third_party", "tools/bootstrap")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        source = Path(name).resolve()
        if Path(name).is_dir():
            shutil.copytree(Path(name), root / name)
        else:
            shutil.copy(source, root / name)
    return root


def fake(directory: Path, name: str, version: str, code: int = 0) -> Path:
    """Writes a Bazel that says its name, its arguments and RULES_AOTI_BAZEL."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = --version ]; then echo "bazel {version}"; exit {code}; fi\n'
        f'echo "{directory.name}/{name} $* via $RULES_AOTI_BAZEL"\n'
    )
    path.chmod(0o755)
    return path


def run(
    workspace: Path, path: Sequence[Path] = (), **environ: str
) -> subprocess.CompletedProcess[str]:
    search = ":".join([*map(str, path), "/usr/bin", "/bin"])
    return subprocess.run(
        [str(workspace / "bazelw"), "build", "//a b"],
        env={"PATH": search, "HOME": str(workspace.parent)} | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def install(workspace: Path, directory: Path) -> Path:
    """Puts a finished private installation where the script looks for it; returns its Bazel."""
    shutil.rmtree(workspace / "tools/bootstrap")
    (workspace / "tools/bootstrap").mkdir()
    (workspace / "tools/bootstrap/install.py").write_text(
        "import pathlib, sys\n"
        "prefix = pathlib.Path(sys.argv[1])\n"
        "(prefix / 'bin').mkdir(parents=True)\n"
        "(prefix / 'bin/bazel').write_text('#!/bin/sh\\necho private \"$@\"\\n')\n"
        "(prefix / 'bin/bazel').chmod(0o755)\n"
        "(prefix / 'complete').touch()\n"
        "print('installing')\n"
    )
    return directory / "rules_aoti"


def test_bazelisk_comes_before_bazel(workspace: Path, tmp_path: Path) -> None:
    bazel = fake(tmp_path / "one", "bazel", "7.7.1")
    bazelisk = fake(tmp_path / "two", "bazelisk", "7.7.1")
    done = run(workspace, [bazel.parent, bazelisk.parent])
    assert done.stdout == f"two/bazelisk build //a b via {bazelisk}\n"


def test_one_that_does_not_work_is_passed_over(workspace: Path, tmp_path: Path) -> None:
    bazelisk = fake(tmp_path / "two", "bazelisk", "7.7.1", code=1)
    bazel = fake(tmp_path / "one", "bazel", "7.4.0")
    assert run(workspace, [bazelisk.parent, bazel.parent]).stdout.startswith("one/bazel build")


def test_another_major_version_is_passed_over_and_named(workspace: Path, tmp_path: Path) -> None:
    install(workspace, tmp_path)
    bazel = fake(tmp_path / "one", "bazel", "8.1.0")
    done = run(workspace, [bazel.parent])
    assert done.stdout == "installing\nprivate build //a b\n"
    assert done.stderr == f"bazelw: passing over {bazel}, which is bazel 8.1.0; this needs 7.7\n"


def test_the_variable_decides(workspace: Path, tmp_path: Path) -> None:
    named = fake(tmp_path / "named", "my-bazel", "9.9")
    bazel = fake(tmp_path / "one", "bazel", "7.7.1")
    done = run(workspace, [bazel.parent], RULES_AOTI_BAZEL=str(named))
    assert done.stdout.startswith("named/my-bazel build")
    install(workspace, tmp_path)
    done = run(workspace, [bazel.parent], RULES_AOTI_BAZEL="private")
    assert done.stdout == "installing\nprivate build //a b\n"


def test_installs_once_where_the_cache_is(workspace: Path, tmp_path: Path) -> None:
    install(workspace, tmp_path)
    cache = tmp_path / "cache"
    assert run(workspace, XDG_CACHE_HOME=str(cache)).stdout.startswith("installing\n")
    assert run(workspace, XDG_CACHE_HOME=str(cache)).stdout == "private build //a b\n"
    assert len(list((cache / "rules_aoti").iterdir())) == 1

    # A change to what installs makes another installation.
    with (workspace / "tools/bootstrap/install.py").open("a") as file:
        file.write("# changed\n")
    assert run(workspace, XDG_CACHE_HOME=str(cache)).stdout.startswith("installing\n")
    assert len(list((cache / "rules_aoti").iterdir())) == 2
