"""The command line: what each step is called with, what it says, what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.intake.archives import Parts
from wrapgen import cli
from wrapgen.target import parse


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Puts recorders in the steps' places; returns what they were called with."""
    seen: list[tuple[Any, ...]] = []

    def recorder(function: str) -> Any:
        return lambda *args, **kwargs: seen.append((function, args, kwargs))

    def module(name: str, *functions: str) -> None:
        fake = types.ModuleType(name)
        for function in functions:
            setattr(fake, function, recorder(function))
        monkeypatch.setitem(sys.modules, name, fake)

    module("wrapgen.lowering", "lower")
    module("wrapgen.kernels", "compile_kernel", "compile_shard")
    module("wrapgen.codegen", "wrap_files")
    module("wrapgen.export", "export")
    return seen


def test_lower(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["lower", "g.json", "--target", "sm_90", "-o", "out"]
    names = ["dependent_launch", "cooperative_reductions"]
    assert cli.main(argv) == 0
    assert cli.main([*argv, *(f"--option={name}" for name in names)]) == 0
    at = (Path("g.json"), parse("sm_90"), Path("out"))
    assert cli.main([*argv, "--tuning", "lock.json"]) == 0
    assert calls == [
        ("lower", at, {"num_shards": 8, "options": options, "tuning": tuning})
        for options, tuning in (([], None), (names, None), ([], Path("lock.json")))
    ]
    assert cli.main([*argv, "--option=fast"]) == 2
    assert (
        "unknown option 'fast': expected one of cooperative_reductions" in capsys.readouterr().err
    )


def test_compile(calls: list[Any]) -> None:
    argv = "compile s --target sm_90 --target compute_90 --ptxas /p --jobs 2 -o out".split()
    assert cli.main(argv) == 0
    assert cli.main([*argv, "--keep-going"]) == 0
    targets = [parse("sm_90"), parse("compute_90")]
    assert calls == [
        (
            "compile_shard",
            (Path("s"), targets, Path("out")),
            {"ptxas_path": Path("/p"), "jobs": 2, "keep_going": keep_going},
        )
        for keep_going in (False, True)
    ]


def test_compile_one_kernel(calls: list[Any]) -> None:
    argv = "compile s --kernel k --ttir k.ttir --num-warps 2 --target sm_90 -o out".split()
    assert cli.main(argv) == 0
    options = {"ttir": Path("k.ttir"), "num_warps": 2, "num_stages": None, "ptxas_path": None}
    arguments = (Path("s"), "k", [parse("sm_90")], Path("out"))
    assert calls == [("compile_kernel", arguments, options)]


@pytest.mark.parametrize("option", ["--ttir=k.ttir", "--num-warps=2", "--num-stages=2"])
def test_options_of_one_kernel(
    calls: list[Any], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compile", "s", option, "--target", "sm_90", "-o", "out"]) == 1
    assert f"{option.partition('=')[0]} needs --kernel" in capsys.readouterr().err
    assert not calls


def test_wrap(calls: list[Any]) -> None:
    argv = (
        "wrap --name m --target sm_90 --program sm_90=p.json --kernels a --kernels b -o o".split()
    )
    assert cli.main(argv) == 0
    sm_90 = parse("sm_90")
    arguments = ("m", {sm_90: Path("p.json")}, [Path("a"), Path("b")], [sm_90], Path("o"))
    plain = {"debug_modes": [], "aotinductor": False}
    assert calls == [("wrap_files", arguments, plain)]
    assert cli.main([*argv, "--instrument", "nan", "--instrument", "sync", "--aotinductor"]) == 0
    other = {"debug_modes": ["nan", "sync"], "aotinductor": True}
    assert calls[1:] == [("wrap_files", arguments, other)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n=32", 32),
        ("n=1e-3", 1e-3),
        ("n=True", True),
        ("n=[1, 'a']", [1, "a"]),
        ("n=word", "word"),
        ("n=a=b", "a=b"),
        ("n=", ""),
        ("n=__import__('os')", "__import__('os')"),
    ],
)
def test_export_arguments(calls: list[Any], text: str, value: object) -> None:
    others = "--weights w --import-from libs --import-from bin/libs -o o.pt2".split()
    assert cli.main(["export", "m.py", "--arg", text, *others]) == 0
    expected = (Path("m.py"), "export", {"n": value}, Path("w"), Path("o.pt2"))
    imports = {"imports": [Path("libs"), Path("bin/libs")]}
    assert calls == [("export", expected, imports)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "required: STEP"),
        ("bake", "invalid choice: 'bake'"),
        ("lower g.json -o out", "required: --target"),
        ("lower g.json --target sm_91 -o out", "unknown target 'sm_91'"),
        ("lower g.json --target sm_90 --shards 0 -o out", "from 1 to 100"),
        ("lower g.json --targ sm_90 -o out", "--target"),
        ("export m.py --arg depth -o o", "expected NAME=VALUE, got 'depth'"),
        ("build m.pt2 --target sm_90 --instrument slow -o o", "invalid choice: 'slow'"),
        ("wrap --name m --target sm_90 --program p.json -o o", "expected TARGET=FILE"),
        ("build m.pt2 -o out", "required: --target"),
    ],
)
def test_usage_errors(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv.split()) == 2
    assert message in capsys.readouterr().err


def test_an_option_given_twice(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main("export m.py --arg n=1 --arg n=2 -o o.pt2".split()) == 1
    assert capsys.readouterr().err == (
        "wrapgen export: --arg n is given twice; see wrapgen export --help\n"
    )
    assert not calls


def test_one_file_is_no_debug_build(calls: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    argv = "wrap --name m --target sm_90 --program sm_90=p --kernels a --standalone -o o".split()
    assert cli.main([*argv, "--instrument", "nan"]) == 1
    assert "--instrument is of a library" in capsys.readouterr().err
    assert not calls


def test_a_fault_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.pt2"
    model.write_text("no archive")
    argv = ["split", str(model), "--graph", str(tmp_path / "g"), "--weights", str(tmp_path / "w")]
    assert cli.main(argv) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"wrapgen split: {model}: not a .pt2 archive: ")
    assert err.count("\n") == 1
    assert cli.main([*argv, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["split", "none.pt2", "--graph", "g", "--weights", "w"]) == 1
    assert capsys.readouterr().err == "wrapgen split: none.pt2: No such file or directory\n"


def test_a_bug_is_no_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("wrapgen.lowering")

    def lower(*args: object, **kwargs: object) -> None:
        raise KeyError("a bug")

    fake.lower = lower  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wrapgen.lowering", fake)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["lower", "g.json", "--target", "sm_90", "-o", "out"])


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for step in ("build", "export", "split", "lower", "compile", "wrap", "package"):
        assert f"\n    {step} " in text
        assert cli.main([step, "--help"]) == 0
    assert cli.main(["--version"]) == 0


def test_split_as_a_process(tmp_path: Path) -> None:
    """``python -m wrapgen``, and nothing heavy is imported for a light step."""
    model = Parts().write(tmp_path / "m.pt2")
    paths = [str(Path(path or ".").absolute()) for path in sys.path]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-X", "importtime", "-m", "wrapgen", "split", str(model)]
    done = subprocess.run(
        [*command, "--graph", "g", "--weights", "w"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g", "m.pt2", "w"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "wrapgen.intake" in imported
    assert not imported & {"torch", "triton", "sympy", "wrapgen.lowering", "wrapgen.codegen"}
