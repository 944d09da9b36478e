"""Children are alone with their state, and whatever ends them is told."""

from __future__ import annotations

import functools
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wrapgen import processes
from wrapgen.kernels import process


def _surroundings() -> tuple[dict[str, str], list[Path], Path]:
    return dict(os.environ), list(Path().iterdir()), Path.cwd()


def test_environment_and_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEBUG", "1")
    before = Path.cwd()
    outcomes = process.run_all([_surroundings] * 2, jobs=1, environment={"A": "b"})
    directories = set()
    for outcome in outcomes:
        assert outcome.value is not None
        environment, files, directory = outcome.value
        assert environment == {"A": "b"} and files == []
        directories.add(directory)
        assert not directory.exists()
    assert len(directories) == 2
    assert Path.cwd() == before and os.environ["TRITON_DEBUG"] == "1"


def _nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_results_are_in_order_of_tasks() -> None:
    naps = [0.4, 0.0, 0.2]
    ended: list[int] = []
    outcomes = process.run_all(
        [functools.partial(_nap, nap) for nap in naps],
        jobs=3,
        environment={},
        finished=ended.append,
    )
    assert [outcome.value for outcome in outcomes] == naps
    assert ended == [1, 2, 0]


def _now_and_later() -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(0.1)
    return start, time.monotonic()


@pytest.mark.parametrize("jobs", [1, 2])
def test_at_most_so_many_at_a_time(jobs: int) -> None:
    outcomes = process.run_all([_now_and_later] * 5, jobs=jobs, environment={})
    spans = [outcome.value for outcome in outcomes if outcome.value is not None]
    assert len(spans) == 5
    for start, _ in spans:
        assert sum(begin <= start < end for begin, end in spans) <= jobs


def _print_and_raise() -> None:
    print("to stdout")
    os.write(2, b"to the descriptor\n")
    raise FileNotFoundError("no such thing")


def _die(number: int) -> None:
    os.write(2, b"last words\n")
    os.kill(os.getpid(), number)


def _leave() -> None:
    os._exit(7)


def test_errors_and_deaths() -> None:
    raised, aborted, killed, left = process.run_all(
        [
            _print_and_raise,
            functools.partial(_die, signal.SIGABRT),
            functools.partial(_die, signal.SIGKILL),
            _leave,
        ],
        jobs=2,
        environment={},
    )
    assert isinstance(raised.error, FileNotFoundError) and raised.death == ""
    assert sorted(raised.output.splitlines()) == ["to stdout", "to the descriptor"]
    assert (aborted.death, aborted.output) == ("died of SIGABRT", "last words\n")
    assert (killed.death, killed.output) == ("died of SIGKILL", "last words\n")
    assert left.death == "exited 7"


def test_death_in_the_middle_of_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the kernel kills a child for its memory while the parent reads."""

    def send_half(*arguments: Any) -> None:
        sender = arguments[-1]
        os.write(sender.fileno(), struct.pack("!i", 100) + b"the beginning")  # of 100 bytes
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(process, "_run", send_half)
    (outcome,) = process.run_all([_leave], jobs=1, environment={})
    assert (outcome.death, outcome.error, outcome.output) == ("died of SIGKILL", None, "")


def test_nothing_is_printed_here(capfd: pytest.CaptureFixture[str]) -> None:
    process.run_all([_print_and_raise], jobs=1, environment={})
    assert capfd.readouterr() == ("", "")


def test_no_jobs() -> None:
    with pytest.raises(ValueError, match="jobs is 0"):
        process.run_all([], jobs=0, environment={})


def _parent_of_sleeper(path: str) -> None:
    pid = os.fork()
    if pid == 0:
        processes.die_with_parent()
        Path(path).write_text(str(os.getpid()))
        time.sleep(60)
        os._exit(0)
    while not Path(path).exists() or not Path(path).read_text():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="uses prctl")
def test_a_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    [outcome] = process.run_all(
        [functools.partial(_parent_of_sleeper, str(path))], jobs=1, environment={}
    )
    assert outcome.death == "died of SIGKILL"
    pid = int(path.read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":  # dead, and nobody's to bury in this container
            return
        time.sleep(0.02)
    pytest.fail("the sleeper lives on")
