"""A program that links a model as it does with --//aoti:simulator, and its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

PROGRAM = Path("tests/simulator/run_small")
SMALL = Path("tests/bazel/small")

Run = Callable[..., tuple[subprocess.CompletedProcess[str], torch.Tensor | None]]


def example() -> torch.Tensor:
    return torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(3)).half()


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    given = tmp_path / "input"
    given.write_bytes(example().numpy().tobytes())
    return [str(PROGRAM), str(SMALL / "small.safetensors"), str(given), str(tmp_path / "output")]


@pytest.fixture
def run(arguments: list[str]) -> Run:
    def start(
        *more: str, **environment: str
    ) -> tuple[subprocess.CompletedProcess[str], torch.Tensor | None]:
        done = subprocess.run(
            [*arguments, *more],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        taken = Path(arguments[-1])
        values = None
        if taken.exists():
            values = torch.frombuffer(bytearray(taken.read_bytes()), dtype=torch.float16)
        return done, values

    return start


def eager() -> torch.Tensor:
    program = torch.export.load(SMALL / "small_pt2.pt2")
    with torch.no_grad():
        return program.module()(example()).flatten()


NOTICE = "simulator: there is no GPU at work: kernels for compute capability {} are simulated"


@pytest.mark.parametrize("capability", ["8.0", "9.0", "10.0"])
def test_computes_what_eager_does(run: Run, capability: str) -> None:
    """With machine code for 8.0 and 9.0, with PTX on what is newer; twice, by a CUDA graph."""
    done, values = run("2", SIMULATOR_CAPABILITY=capability)
    assert done.stderr == NOTICE.format(capability) + " on the CPU\n"
    assert done.stdout == "on rules_aoti simulator\n"
    assert done.returncode == 0 and values is not None
    torch.testing.assert_close(values, eager(), rtol=1e-2, atol=1e-3)


def test_injects_faults(run: Run) -> None:
    done, values = run(SIMULATOR_FAIL="cuGraphLaunch:1:CUDA_ERROR_LAUNCH_FAILED")
    assert done.returncode == 1 and values is None
    assert (
        "run_small: launching a CUDA graph: cuGraphLaunch failed: CUDA_ERROR_LAUNCH_FAILED "
        "(unspecified launch failure)\n"
    ) in done.stderr


def test_says_what_became_of_the_executor(run: Run) -> None:
    done, _ = run(SIMULATOR_EXECUTOR="/nonexistent/executor")
    assert done.returncode == 1
    assert (
        "the executor (SIMULATOR_EXECUTOR=/nonexistent/executor) ended with status 127 before it "
        "was ready; what it printed tells more"
    ) in done.stderr
    done, _ = run(SIMULATOR_EXECUTOR="sh -c 'kill -9 $$'")
    assert "was killed by signal 9 (Killed) before it was ready" in done.stderr


def test_says_which_directories_have_no_kernels(run: Run, tmp_path: Path) -> None:
    done, _ = run(SIMULATOR_KERNELS=str(tmp_path))
    assert done.returncode == 1
    assert f".ttir below SIMULATOR_KERNELS={tmp_path}: name the directories that" in done.stderr
    assert "CUDA_ERROR_FILE_NOT_FOUND" in done.stderr


def test_does_not_run_without_its_runfiles(arguments: list[str], tmp_path: Path) -> None:
    """It might find a GPU's driver instead."""
    program = tmp_path / "alone"
    program.write_bytes(PROGRAM.read_bytes())
    program.chmod(0o755)
    done = subprocess.run(
        [str(program), *arguments[1:]],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        "model small was linked for the simulator (--//aoti:simulator): its runfiles were not found"
    )


def children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(each) for each in found]


def gone(process: int) -> bool:
    """Whether a process ends within a while; one that nobody waited for has ended as well."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def waiting(arguments: list[str]) -> subprocess.Popen[str]:
    """The program, its model loaded and its executor started, which waits for its input to end."""
    process = subprocess.Popen(
        [*arguments, "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "it ended early"
    return process


def test_leaves_nothing_behind(waiting: subprocess.Popen[str]) -> None:
    (executor,) = children(waiting.pid)
    _, said = waiting.communicate()
    assert waiting.returncode == 0
    assert gone(executor)
    # The model has not run, so nothing wrote its output.
    assert "a copy to the host: 20 of 20 bytes were never written, the first at byte 0 of" in said


def test_the_executor_ends_when_its_program_is_killed(waiting: subprocess.Popen[str]) -> None:
    (executor,) = children(waiting.pid)
    waiting.send_signal(signal.SIGKILL)
    waiting.communicate()
    assert gone(executor)
