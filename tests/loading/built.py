"""What Bazel built of ``net.py``, and a device to run it on: a GPU if there is one, else the
simulator."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from aoti.testing import caller
from aoti.testing.device import Gpu, find_gpu

HERE = Path("tests/loading")


def place() -> Path:
    """The directory that the build's outputs are in: what the environment variable LOADING_BUILD
    names, as tests find them, or in a workspace."""
    for directory in (Path(os.environ.get("LOADING_BUILD", HERE)), HERE, "bazel-bin" / HERE):
        if (directory / "libnet.so").exists():
            return directory
    raise FileNotFoundError("build //tests/loading:net.so and the other data of these tests")


def shard(kernel: str) -> Path:
    """The directory with a kernel's TTIR; names are matched by their beginning."""
    for folder, _, files in os.walk(place() / "net.programs", followlinks=True):
        if any(file.startswith(kernel) and file.endswith(".ttir") for file in files):
            return Path(folder)
    raise FileNotFoundError(f"no kernel {kernel}")


def kernels(text: str) -> list[str]:
    """The kernels whose TTIR has a text in it."""
    return sorted(
        path.stem
        for folder, _, files in os.walk(place() / "net.programs", followlinks=True)
        for path in (Path(folder, file) for file in files)
        if path.suffix == ".ttir" and text in path.read_text()
    )


_drivers: list[caller.Driver] = []


def driver(*directories: Path) -> caller.Driver:
    """The driver, one for the process. On the simulator kernels are also looked for in further
    directories, which the first call names."""
    if not _drivers:
        found = find_gpu()
        if isinstance(found, Gpu) and found.capability // 10 == 9:
            path = "libcuda.so.1"
        else:
            simulated = Path("simulator/libcuda.so.1")
            path = str((simulated if simulated.exists() else "bazel-bin" / simulated).absolute())
            searched = [place() / "net.programs", place() / "net.kernels", *directories]
            os.environ["SIMULATOR_KERNELS"] = os.pathsep.join(map(str, searched))
            os.environ["SIMULATOR_EXECUTOR"] = f"'{sys.executable}' -m simulator.executor"
            os.environ["SIMULATOR_QUIET"] = "1"
        _drivers.append(caller.Driver(path))
    return _drivers[0]


class Run:
    """A run's tensors on the device."""

    def __init__(self, device: caller.Driver, x: torch.Tensor) -> None:
        self.device = device
        self.batch = len(x)
        self.x = device.allocate(x.nbytes)
        device.write(self.x, x.numpy().tobytes())
        self.sizes = (self.batch * 8 * 4, 16 * 4)
        self.outputs = [device.allocate(size) for size in self.sizes]

    def results(self) -> list[bytes]:
        self.device.synchronize()
        pairs = zip(self.outputs, self.sizes, strict=True)
        return [self.device.read(address, size) for address, size in pairs]


FLOAT32 = {"dlpack_code": 2, "itemsize": 4}


def tensors(results: list[bytes]) -> list[torch.Tensor]:
    """What the bytes of the two outputs are."""
    probabilities, sums = (
        torch.frombuffer(bytearray(data), dtype=torch.float32) for data in results
    )
    return [probabilities.reshape(-1, 8), sums]


@contextmanager
def library(device: caller.Driver, kernels_dir: str = "") -> Iterator[Callable[[Run], list[bytes]]]:
    """The model as a library, loaded: a function that runs it. It ends with the block."""
    weights = str(place() / "net.safetensors")
    loaded = caller.Library(str(place() / "libnet.so"), weights, kernels_dir)
    session = loaded.session(0)

    def tensor(shape: list[int], strides: list[int], address: int) -> caller.DLTensor:
        spec = {"shape": shape, "strides": strides, "nbytes": 4} | FLOAT32
        return caller.dltensor(spec, address, caller.CUDA)

    def run(given: Run) -> list[bytes]:
        inputs = [tensor([given.batch, 16], [16, 1], given.x)]
        outputs = [
            tensor([given.batch, 8], [8, 1], given.outputs[0]),
            tensor([16], [1], given.outputs[1]),
        ]
        loaded.run(session, inputs, outputs)
        return given.results()

    try:
        yield run
    finally:
        loaded.close(session)
