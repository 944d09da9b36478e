"""``wrapgen build``: all steps in one process give the bytes that they give one by one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from wrapgen import build

MODEL = textwrap.dedent(
    """
    import torch

    def export():
        net = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
        return torch.export.export(net.half().eval(), (torch.zeros(4, 16).half(),))
    """
)


def wrapgen(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(path or ".").absolute()) for path in sys.path]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths)} | environment
    return subprocess.run(
        [sys.executable, "-m", "wrapgen", *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    (directory / "net.py").write_text(MODEL)
    done = wrapgen("export", "net.py", "-o", "net.pt2", cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory / "net.pt2"


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def steps(model: Path, out: Path) -> None:
    """What a build system does."""
    commands = [
        f"split {model} --graph graph.json --weights weights.safetensors",
        "lower graph.json --target sm_90 --shards 2 -o sm_90",
        "compile sm_90/shards/00 --target compute_90 --target sm_90 -o kernels/sm_90/00",
        "compile sm_90/shards/01 --target sm_90 --target compute_90 -o kernels/sm_90/01",
        "wrap --name net --target sm_90 --target compute_90 --program sm_90=sm_90/program.json "
        "--kernels kernels/sm_90/01 --kernels kernels/sm_90/00 -o generated",
    ]
    out.mkdir()
    (out / "kernels" / "sm_90").mkdir(parents=True)
    for command in commands:
        done = wrapgen(*command.split(), cwd=out, PYTHONHASHSEED="7", HOME="/")
        assert done.returncode == 0, done.stderr


def test_same_bytes_as_the_steps(model: Path, tmp_path: Path) -> None:
    done = wrapgen(
        "build",
        str(model),
        *"--target sm_90 --target compute_90 --shards 2 --no-link -o whole".split(),
        cwd=tmp_path,
        PYTHONHASHSEED="1",
        HOME=str(tmp_path),
        TZ="Asia/Tokyo",
    )
    assert done.returncode == 0, done.stderr
    steps(model, tmp_path / "steps")
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "steps")
    assert list(whole) == list(parts)
    assert whole == parts
    assert str(tmp_path).encode() not in b"".join(whole.values())
    lines = done.stderr.splitlines()
    assert lines[0] == "[1/4] splitting net.pt2"
    assert "[2/4] lowering for sm_90" in lines
    assert "[3/4] compiling kernels for compute_90, sm_90" in lines
    assert "[4/4] generating C++" in lines
    assert lines[-1].startswith("done in ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps", "whole"]


def test_a_refused_archive_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_text("no archive")
    done = wrapgen("build", "m.pt2", "--target", "sm_90", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("wrapgen build: m.pt2: not a .pt2 archive")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    done = wrapgen("build", "m.pt2", "--target", "sm_90", "-o", "out", cwd=tmp_path)
    assert done.returncode == 1
    assert "no output of an earlier build" in done.stderr
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"


def test_an_earlier_build_is_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "old").mkdir(parents=True)
    (tmp_path / "out" / "graph.json").write_text("{}")
    arguments = "--target sm_90 --shards 1 --no-link -o out".split()
    done = wrapgen("build", str(model), *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "generated",
        "graph.json",
        "kernels",
        "sm_90",
        "weights.safetensors",
    ]


def test_default_name() -> None:
    assert build.default_name(Path("a/resnet-50 v1.5.pt2")) == "resnet_50_v1_5"


def test_without_a_compiler_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build, "_runtime", lambda: tmp_path)
    with build._progress(1) as stage:
        build._link("net", "cuda", tmp_path, tmp_path, (), stage, aotinductor=False)
    assert "not linked: there is no C++ compiler" in capsys.readouterr().err
