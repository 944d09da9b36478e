"""The persistent worker, spoken to as Bazel does: a process, its pipes, one JSON object a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import wrapgen
from tests.kernels import shards

# What a worker has to survive. Arguments: a verb, and what it needs.
_PROGRAM = textwrap.dedent(
    """
    import ctypes, os, sys
    from pathlib import Path
    from wrapgen import worker

    served = 0

    def preload():
        print("noise while loading")
        os.write(1, b"more noise")
        Path(os.environ["TEST_PRELOADS"]).open("a").write("once\\n")

    def main(args):
        global served
        served += 1
        verb, *rest = args
        if verb == "write":
            Path(rest[0]).write_text(f"{rest[1:]} served={served} cwd={os.getcwd()} "
                                     f"leak={os.environ.get('LEAK')} argv={len(sys.argv)}")
        elif verb == "print":
            print("from print")
            sys.stdout.flush()
            os.write(1, b"from a descriptor\\n")
            libc = ctypes.CDLL(None)
            libc.puts(b"from C")
            libc.fflush(None)
            print("from stderr", file=sys.stderr)
        elif verb == "leak":
            os.environ["LEAK"] = "yes"
            os.chdir("/")
            os.umask(0o777)
            sys.argv = ["x", "y", "z"]
            os.close(0)
        elif verb == "raise":
            raise ValueError("the tensor has three dimensions")
        elif verb == "exit":
            sys.exit(rest[0] if rest[0].startswith("text") else int(rest[0]))
        elif verb == "abort":
            print("before the end", flush=True)
            os.abort()
        elif verb == "read":
            print(repr(sys.stdin.read()))
        elif verb == "compile":
            from wrapgen.kernels import KernelCompileError, compile_shard
            from wrapgen.target import parse
            try:
                compile_shard(Path(rest[0]), [parse("sm_90"), parse("compute_90")], Path(rest[1]))
            except KernelCompileError as error:
                print(error, file=sys.stderr)
                return 1
        return 0

    sys.exit(worker.run(main, preload=preload))
    """
)


class Worker:
    """A running worker."""

    def __init__(self, program: Path, cwd: Path, arguments: Sequence[str] = ()) -> None:
        self.program = program
        self.cwd = cwd
        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments, "--persistent_worker"],
            cwd=cwd,
            env=environment(cwd),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send(self, **request: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker is gone"
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    def ask(self, *arguments: str, request_id: int = 0) -> dict[str, Any]:
        request: dict[str, Any] = {
            "arguments": list(arguments),
            "inputs": [{"path": "some/input", "digest": "c2hhMjU2"}],
        }
        if request_id:
            request["requestId"] = request_id
        self.send(**request)
        return self.receive()

    def finish(self) -> tuple[int, bytes, bytes]:
        """Closes its input, as Bazel does at the end; returns exit code and what was left."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def environment(cwd: Path) -> dict[str, str]:
    root = str(Path(wrapgen.__file__).parent.parent)
    path = os.pathsep.join([root, *(entry for entry in sys.path if entry)])
    return {"PYTHONPATH": path, "TEST_PRELOADS": str(cwd / "preloads")}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(_PROGRAM)
    return path


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    path = tmp_path / "execroot"
    path.mkdir()
    return path


@pytest.fixture
def running(program: Path, cwd: Path) -> Iterator[Worker]:
    worker = Worker(program, cwd)
    yield worker
    worker.process.kill()
    worker.process.communicate()


def once(worker: Worker, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(worker.program), *arguments],
        cwd=worker.cwd,
        env=environment(worker.cwd),
        capture_output=True,
        text=True,
        check=False,
    )


def test_requests_one_after_another(running: Worker) -> None:
    for i in range(3):
        answer = running.ask("write", f"out{i}", "a b", "", "@@c", request_id=i)
        assert answer == {"exitCode": 0, "output": "", "requestId": i}
        assert (running.cwd / f"out{i}").read_text() == (
            f"['a b', '', '@@c'] served=1 cwd={running.cwd} leak=None argv=2"
        )
    code, out, _ = running.finish()
    assert (code, out) == (0, b"")
    assert (running.cwd / "preloads").read_text() == "once\n"


def test_errors_in_between(running: Worker) -> None:
    answer = running.ask("raise")
    assert answer["exitCode"] == 1
    assert answer["output"].endswith("ValueError: the tensor has three dimensions\n")
    assert running.ask("exit", "0") == {"exitCode": 0, "output": "", "requestId": 0}
    assert running.ask("exit", "5") == {"exitCode": 5, "output": "", "requestId": 0}
    assert running.ask("exit", "text") == {"exitCode": 1, "output": "text\n", "requestId": 0}
    answer = running.ask("abort")
    assert answer["exitCode"] == 1
    assert answer["output"].splitlines()[0] == "before the end"
    assert answer["output"].splitlines()[-1] == "the process died of SIGABRT"
    assert running.ask("write", "out")["exitCode"] == 0
    assert running.finish()[0] == 0


def test_noise_stays_out_of_the_protocol(running: Worker) -> None:
    answer = running.ask("print", request_id=7)
    assert answer["requestId"] == 7 and answer["exitCode"] == 0
    assert sorted(answer["output"].splitlines()) == [
        "from C",
        "from a descriptor",
        "from print",
        "from stderr",
    ]
    assert running.ask("read")["output"] == "''\n"  # and requests are not for reading
    assert running.ask("write", "out")["output"] == ""
    code, out, err = running.finish()
    assert (code, out) == (0, b"")
    assert sorted(err.split(b"noise")) == [b"", b"more ", b" while loading\n"] or b"noise" in err


def test_nothing_leaks_into_the_next_request(running: Worker) -> None:
    running.ask("write", "before", "x")
    assert running.ask("leak")["exitCode"] == 0
    assert running.ask("write", "after", "x")["exitCode"] == 0
    before, after = running.cwd / "before", running.cwd / "after"
    assert before.read_text() == after.read_text()
    assert before.stat().st_mode == after.stat().st_mode


def test_cancellation_is_ignored(running: Worker) -> None:
    running.send(requestId=3, cancel=True)
    answer = running.ask("write", "out", request_id=4)
    assert answer["requestId"] == 4 and answer["exitCode"] == 0
    assert running.finish()[1] == b""


def test_arguments_of_the_worker_come_first(program: Path, cwd: Path) -> None:
    worker = Worker(program, cwd, ["write", "out"])
    assert worker.ask("x")["exitCode"] == 0
    assert (cwd / "out").read_text().startswith("['x'] served=1")
    assert worker.finish()[0] == 0


def test_a_malformed_request_ends_the_worker(running: Worker) -> None:
    assert running.process.stdin is not None
    running.process.stdin.write(b"[1, 2]\n")
    code, out, err = running.finish()
    assert (code, out) == (1, b"")
    assert b"worker: malformed request" in err


def test_a_killed_worker_takes_its_request_along(running: Worker) -> None:
    running.send(arguments=["write", "out"])
    running.receive()
    running.process.terminate()
    assert running.process.wait(timeout=30) != 0


@pytest.mark.parametrize(
    "arguments",
    [["print"], ["raise"], ["exit", "5"], ["exit", "text"], ["write", "out", "a b", "", "@@c"]],
    ids=lambda arguments: " ".join(arguments),
)
def test_with_and_without_a_worker(running: Worker, arguments: list[str]) -> None:
    (running.cwd / "params").write_text("".join(f"{each}\n" for each in arguments))
    answer = running.ask(*arguments)
    asked = _files(running.cwd)
    alone = once(running, "@params")
    assert alone.returncode == answer["exitCode"]
    lines = sorted((alone.stdout + alone.stderr).splitlines())
    assert lines == sorted(answer["output"].splitlines())
    assert {k: v.replace(b"argv=2", b"") for k, v in _files(running.cwd).items()} == {
        k: v.replace(b"argv=2", b"") for k, v in asked.items()
    }


def test_arguments_in_a_file(running: Worker) -> None:
    (running.cwd / "inner").write_text("c d\n")
    (running.cwd / "outer").write_text("a\n@inner\n@@x\n@repository//a:b\n\ne")
    done = once(running, "write", "out", "@outer")
    assert done.returncode == 0, done.stderr
    text = (running.cwd / "out").read_text()
    assert text.startswith("['a', 'c d', '@@x', '@repository//a:b', '', 'e'] served=1")
    missing = once(running, "@nowhere")
    assert missing.returncode == 1 and "nowhere" in missing.stderr


def test_compiling_with_and_without_a_worker(running: Worker) -> None:
    shards.write(running.cwd / "in", [shards.POINTWISE, shards.REDUCTION])
    shards.write(running.cwd / "bad", [shards.POINTWISE])
    (running.cwd / "bad/pointwise.ttir").write_text("module {")
    for name in ("0", "1"):
        answer = running.ask("compile", "in", name)
        assert answer == {"exitCode": 0, "output": "", "requestId": 0}
        answer = running.ask("compile", "bad", "none")
        assert answer["exitCode"] == 1
        assert answer["output"].startswith("bad/pointwise.ttir: SHA-256 is")
    assert once(running, "compile", "in", "2").returncode == 0
    outputs = [_files(running.cwd / name) for name in ("0", "1", "2")]
    assert len(outputs[0]) == 8
    assert outputs[0] == outputs[1] == outputs[2]
    assert not (running.cwd / "none").exists()


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
