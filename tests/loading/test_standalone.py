"""A model in one file computes what the library of it does, to the bit."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.loading import built

FLAGS = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")

MESSAGE = 1024


class Standalone:
    """The model in one file, loaded."""

    def __init__(self, library: Path, kernels: Path, weights: bytes) -> None:
        self._lib = ctypes.CDLL(str(library))
        self._error = ctypes.create_string_buffer(MESSAGE)
        self._model = ctypes.c_void_p()
        self._call(
            "net_load",
            str(kernels).encode(),
            weights,
            ctypes.c_uint64(len(weights)),
            0,
            ctypes.byref(self._model),
        )

    def _call(self, name: str, *args: object) -> None:
        code = getattr(self._lib, name)(*args, self._error, ctypes.c_size_t(MESSAGE))
        if code:
            raise RuntimeError(self._error.value.decode())

    def run(self, run: built.Run, batch: int | None = None) -> list[bytes]:
        self._call(
            "net_run",
            self._model,
            (ctypes.c_void_p * 1)(run.x),
            (ctypes.c_void_p * 2)(*run.outputs),
            (ctypes.c_int64 * 1)(run.batch if batch is None else batch),
            None,
        )
        return run.results()

    def close(self) -> None:
        self._lib.net_free(self._model)


@pytest.fixture(scope="module")
def directory() -> Path:
    return built.place() / "net.standalone"


@pytest.fixture(scope="module")
def compiled(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("g++")
    assert compiler, "these tests compile C++: install g++"
    out = tmp_path_factory.mktemp("standalone") / "net.so"
    source = directory / "net.cc"
    command = [compiler, *FLAGS, str(source), "-o", str(out), "-ldl", "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def weights(directory: Path) -> bytes:
    return (directory / "net.weights").read_bytes()


@pytest.fixture
def model(compiled: Path, directory: Path, weights: bytes) -> Iterator[Standalone]:
    built.driver()
    loaded = Standalone(compiled, directory / "kernels", weights)
    yield loaded
    loaded.close()


def test_computes_what_the_library_does(model: Standalone) -> None:
    """At several sizes, of which some need more memory than those before."""
    device = built.driver()
    with built.library(device) as library:
        for batch in (4, 64, 1, 33):
            run = built.Run(device, torch.randn(batch, 16))
            expected = library(run)
            for address, size in zip(run.outputs, run.sizes, strict=True):
                device.write(address, b"\xff" * size)
            assert model.run(run) == expected
    assert not device.simulator_reports()


def test_refuses_sizes_and_addresses(model: Standalone) -> None:
    run = built.Run(built.driver(), torch.zeros(2, 16))
    with pytest.raises(RuntimeError) as caught:
        model.run(run, batch=65)
    assert str(caught.value) == "size 0 (dimension 0 of x): expected 1 <= s0 <= 64, got 65"
    run.x += 4
    with pytest.raises(RuntimeError) as caught:
        model.run(run)
    assert str(caught.value) == "input 0 (x): its address is not a multiple of 16 bytes"


def test_refuses_what_it_cannot_load(compiled: Path, directory: Path, weights: bytes) -> None:
    built.driver()
    with pytest.raises(
        RuntimeError, match=r"^the weights are not those of model net: expected a f"
    ):
        Standalone(compiled, directory / "kernels", weights + b"\0")
    with pytest.raises(RuntimeError, match=r"^the weights are not those of model net"):
        Standalone(compiled, directory / "kernels", weights.replace(b"weights 1", b"weights 2"))
    with pytest.raises(RuntimeError, match=r"^nowhere/sm_90/\w+\.cubin: cannot be opened: No such"):
        Standalone(compiled, Path("nowhere"), weights)
