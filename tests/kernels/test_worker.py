"""The persistent worker, spoken to as Bazel does: a process, its pipes, one JSON object a line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import wrapgen
from tests.kernels import shards

# What a worker has to survive. Arguments: a verb, and what it needs.
_PROGRAM = textwrap.dedent(
    """
    import ctypes, os, sys, tempfile, time
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
        elif verb == "wait":
            # Says that it is there, then waits to be told to go on.
            Path(rest[0]).write_text(str(os.getpid()))
            while not Path(rest[1]).exists():
                time.sleep(0.005)
            print("went on")
        elif verb == "spawn":
            # A grandchild that does not care.
            import subprocess
            Path(rest[0]).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
            if rest[1:]:
                main(["wait", *rest[1:]])
        elif verb == "temporary":
            path = tempfile.mkdtemp()
            Path(path, "file").write_text("")
            print(path)
            if rest:
                main(["wait", *rest])
        elif verb == "import":
            import package_in_a_directory
            print(package_in_a_directory.__file__)
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

    def __init__(
        self,
        program: Path,
        cwd: Path,
        arguments: Sequence[str] = (),
        python_path: Path | None = None,
    ) -> None:
        self.program = program
        self.cwd = cwd
        self.process = subprocess.Popen(
            [sys.executable, str(program), *arguments, "--persistent_worker"],
            cwd=cwd,
            env=environment(cwd, python_path),
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

    def start(self, request_id: int, *arguments: str, **fields: Any) -> None:
        self.send(requestId=request_id, arguments=list(arguments), **fields)

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


def environment(cwd: Path, python_path: Path | None = None) -> dict[str, str]:
    root = str(Path(wrapgen.__file__).parent.parent)
    path = [root, *(entry for entry in sys.path if entry)]
    if python_path is not None:
        path.append(str(python_path))
    temporary = cwd.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path),
        "TEST_PRELOADS": str(cwd / "preloads"),
        "TMPDIR": str(temporary),
    }


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


def await_file(path: Path) -> str:
    """Waits until a file has content; returns it."""
    for _ in range(6000):
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.005)
    raise AssertionError(f"{path} did not come")


def await_end(pid: int) -> None:
    for _ in range(6000):
        status = Path(f"/proc/{pid}/stat")
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.005)
    raise AssertionError(f"process {pid} goes on")


def test_many_requests_at_once(running: Worker) -> None:
    for i in range(4):
        running.start(i, "wait", f"started{i}", f"go{i}")
    pids = {await_file(running.cwd / f"started{i}") for i in range(4)}
    assert len(pids) == 4
    assert running.ask("write", "out", request_id=9)["requestId"] == 9  # before the others
    for i in (2, 0, 3, 1):
        (running.cwd / f"go{i}").touch()
        assert running.receive() == {"exitCode": 0, "output": "went on\n", "requestId": i}
    assert (running.cwd / "preloads").read_text() == "once\n"
    assert running.finish()[0] == 0


def test_sandboxes(running: Worker) -> None:
    """The same relative paths in two directories, at once."""
    for name in ("a", "b"):
        (running.cwd / "__sandbox" / name / "_main").mkdir(parents=True)
    for i, name in enumerate(("a", "b")):
        running.start(i, "wait", "started", "go", sandboxDir=f"__sandbox/{name}/_main")
    for name in ("b", "a"):
        await_file(running.cwd / f"__sandbox/{name}/_main/started")
    for i, name in ((1, "b"), (0, "a")):
        (running.cwd / f"__sandbox/{name}/_main/go").touch()
        assert running.receive()["requestId"] == i
    running.start(2, "write", "out", "x", sandboxDir="__sandbox/b/_main")
    assert running.receive() == {"exitCode": 0, "output": "", "requestId": 2}
    inside = running.cwd / "__sandbox/b/_main"
    assert (inside / "out").read_text().startswith(f"['x'] served=1 cwd={inside} ")
    assert not (running.cwd / "out").exists()
    # The next one may do without.
    assert running.ask("write", "out", "x")["exitCode"] == 0
    assert (running.cwd / "out").exists()


def test_a_sandbox_that_is_not_there(running: Worker) -> None:
    running.start(5, "write", "out", sandboxDir="nowhere")
    assert running.receive() == {
        "exitCode": 1,
        "output": "worker: sandboxDir: nowhere: No such file or directory\n",
        "requestId": 5,
    }


def test_packages_in_a_directory_that_only_sandboxes_have(program: Path, cwd: Path) -> None:
    """Bazel puts files of the tool beside a multiplex worker, and no source directories."""
    stays = cwd.parent / "repository"
    stays.mkdir()
    (stays / "package_in_a_directory.py").write_text("")
    sandbox = cwd / "__sandbox" / "1"
    (sandbox / "tool.runfiles").mkdir(parents=True)
    (sandbox / "tool.runfiles" / "site").symlink_to(stays)
    worker = Worker(program, cwd, python_path=cwd / "tool.runfiles" / "site")
    worker.start(1, "import", sandboxDir="__sandbox/1")
    answer = worker.receive()
    assert answer["output"] == f"{stays}/package_in_a_directory.py\n", answer["output"]
    assert worker.ask("import")["exitCode"] == 0  # the sandbox may go
    worker.finish()


def test_cancellation(running: Worker) -> None:
    running.start(3, "spawn", "grandchild", "started", "go")
    running.start(4, "wait", "other", "go")
    grandchild = int(await_file(running.cwd / "grandchild"))
    child = int(await_file(running.cwd / "started"))
    await_file(running.cwd / "other")
    running.send(requestId=3, cancel=True)
    assert running.receive() == {"requestId": 3, "wasCancelled": True}
    for pid in (child, grandchild):
        await_end(pid)
    (running.cwd / "go").touch()
    assert running.receive() == {"exitCode": 0, "output": "went on\n", "requestId": 4}
    # Too late, or twice: it has been answered.
    running.send(requestId=3, cancel=True)
    running.send(requestId=4, cancel=True)
    assert running.ask("write", "out", request_id=3)["exitCode"] == 0
    assert running.finish()[:2] == (0, b"")


def test_nothing_is_left_behind(running: Worker, tmp_path: Path) -> None:
    """Neither processes nor files nor descriptors, however a request ends."""
    running.ask("print")
    process = Path(f"/proc/{running.process.pid}")
    before = len(list((process / "fd").iterdir()))
    temporary = []
    for i in range(5):
        answer = running.ask("spawn", f"grandchild{i}")
        assert answer["exitCode"] == 0
        await_end(int((running.cwd / f"grandchild{i}").read_text()))
        temporary.append(running.ask("temporary")["output"].strip())
        running.ask("abort")
        running.start(7, "temporary", f"started{i}", "never")
        await_file(running.cwd / f"started{i}")
        running.send(requestId=7, cancel=True)
        running.receive()
    assert not [path for path in temporary if Path(path).exists()]
    assert len(set(temporary)) == 5
    assert not list((tmp_path / "tmp").iterdir())
    assert len(list((process / "fd").iterdir())) == before
    assert not (process / f"task/{running.process.pid}/children").read_text()


def test_requests_are_answered_before_the_end(running: Worker) -> None:
    running.start(1, "write", "out")
    code, out, _ = running.finish()
    assert code == 0
    assert json.loads(out) == {"exitCode": 0, "output": "", "requestId": 1}


def test_arguments_of_the_worker_come_first(program: Path, cwd: Path) -> None:
    worker = Worker(program, cwd, ["write", "out"])
    assert worker.ask("x")["exitCode"] == 0
    assert (cwd / "out").read_text().startswith("['x'] served=1")
    assert worker.finish()[0] == 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"arguments": "print"}, "arguments are 'print': expected a list of strings"),
        ({"arguments": ["print", 1]}, "arguments are ['print', 1]: expected a list of strings"),
        ({"arguments": ["print"], "sandboxDir": 1}, "sandboxDir is 1: expected a path"),
        ({"cancel": "yes"}, "cancel is 'yes': expected true or false"),
    ],
)
def test_a_malformed_request_is_answered(
    running: Worker, request_: dict[str, Any], message: str
) -> None:
    running.send(requestId=6, **request_)
    assert running.receive() == {
        "exitCode": 1,
        "output": f"worker: malformed request: {message}\n",
        "requestId": 6,
    }
    assert running.ask("write", "out")["exitCode"] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1, 2]", b"expected an object: b'[1, 2]'"),
        (b'{"requestId": 1', b"Expecting"),
        (b"\xff\xfe", b"malformed request"),
        (b'{"requestId": "1", "arguments": []}', b"requestId is '1': expected an integer"),
        (b'{"requestId": 2, "arguments": ["print"]}', b"request 2 is running already"),
    ],
)
def test_what_cannot_be_answered_ends_the_worker(
    running: Worker, line: bytes, message: bytes
) -> None:
    running.start(2, "wait", "started", "never")
    child = int(await_file(running.cwd / "started"))
    assert running.process.stdin is not None
    running.process.stdin.write(line + b"\n")
    code, out, err = running.finish()
    assert (code, out) == (1, b"")
    assert b"worker: malformed request: " in err and message in err
    await_end(child)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_takes_its_requests_along(running: Worker, how: signal.Signals) -> None:
    for i in range(2):
        running.start(i, "wait", f"started{i}", "never")
    children = [int(await_file(running.cwd / f"started{i}")) for i in range(2)]
    running.process.send_signal(how)
    assert running.process.wait(timeout=30) != 0
    for pid in children:
        await_end(pid)


def test_a_worker_that_is_told_to_end_clears_up(running: Worker, tmp_path: Path) -> None:
    running.start(0, "temporary", "started", "never")
    await_file(running.cwd / "started")
    running.process.terminate()
    assert running.process.wait(timeout=30) == 128 + signal.SIGTERM
    assert not list((tmp_path / "tmp").iterdir())


def test_a_killed_request_is_an_error(running: Worker) -> None:
    running.start(1, "wait", "started", "never")
    os.kill(int(await_file(running.cwd / "started")), signal.SIGKILL)
    answer = running.receive()
    assert (answer["exitCode"], answer["output"]) == (1, "the process died of SIGKILL\n")


def test_nobody_reads(running: Worker) -> None:
    assert running.process.stdout is not None
    running.process.stdout.close()
    running.start(1, "write", "out")
    assert running.process.wait(timeout=30) == 1
    assert running.process.stderr is not None
    assert b"worker: nobody reads the responses" in running.process.stderr.read()


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
