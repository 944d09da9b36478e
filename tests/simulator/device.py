"""The simulated driver, called from Python."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

u64, size, pointer = ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p

# Name: version of the interface, types of the parameters.
FUNCTIONS: dict[str, tuple[int, list[Any]]] = {
    "cuInit": (2000, [ctypes.c_uint]),
    "cuDevicePrimaryCtxRetain": (7000, [pointer, ctypes.c_int]),
    "cuDevicePrimaryCtxRelease": (11000, [ctypes.c_int]),
    "cuCtxPushCurrent": (4000, [pointer]),
    "cuCtxPopCurrent": (4000, [pointer]),
    "cuModuleLoadDataEx": (2010, [pointer, pointer, ctypes.c_uint, pointer, pointer]),
    "cuModuleUnload": (2000, [pointer]),
    "cuModuleGetFunction": (2000, [pointer, pointer, ctypes.c_char_p]),
    "cuFuncGetAttribute": (2020, [pointer, ctypes.c_int, pointer]),
    "cuLaunchKernel": (4000, [pointer, *[ctypes.c_uint] * 7, pointer, pointer, pointer]),
    "cuMemAlloc": (3020, [pointer, size]),
    "cuMemFree": (3020, [u64]),
    "cuMemcpyHtoDAsync": (3020, [u64, pointer, size, pointer]),
    "cuMemcpyDtoHAsync": (3020, [pointer, u64, size, pointer]),
    "cuStreamSynchronize": (2000, [pointer]),
}


def library() -> Path:
    """Where the simulator is: as Bazel's tests find it, or in the build of a workspace."""
    places = [Path("simulator/libcuda.so.1"), Path("bazel-bin/simulator/libcuda.so.1")]
    if named := os.environ.get("AOTI_SIMULATOR"):
        places.insert(0, Path(named))
    for place in places:
        if place.exists():
            return place.absolute()
    raise FileNotFoundError(f"no simulator: build //simulator:libcuda.so.1, of {places}")


class Driver:
    """The functions of the driver, which return a CUresult."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(str(library()))
        self.library.simulator_misuse.restype = ctypes.c_char_p
        for name, (version, types) in FUNCTIONS.items():
            setattr(self, name, self._find(name, version, types))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def _find(self, name: str, version: int, types: Sequence[Any]) -> Any:
        address, status = pointer(), ctypes.c_int()
        found = self.library.cuGetProcAddress_v2(
            name.encode(), ctypes.byref(address), version, u64(0), ctypes.byref(status)
        )
        assert found == 0, name
        return ctypes.CFUNCTYPE(ctypes.c_int, *types)(address.value)  # type: ignore[arg-type]

    def reports(self) -> list[str]:
        """All reports since the last reset."""
        return bytes(self.library.simulator_misuse()).decode().splitlines()

    def reset(self) -> None:
        self.library.simulator_reset()


class Device:
    """A fresh context; everything in it ends with it."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._modules: list[pointer] = []
        self._memory: list[int] = []
        self._images: list[Any] = []

    def __enter__(self) -> Self:
        context = pointer()
        assert self.driver.cuInit(0) == 0, self.driver.reports()
        assert self.driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        assert self.driver.cuCtxPushCurrent(context) == 0
        return self

    def __exit__(self, *_: object) -> None:
        for module in self._modules:
            self.driver.cuModuleUnload(module)
        for address in self._memory:
            self.driver.cuMemFree(address)
        self.driver.cuCtxPopCurrent(ctypes.byref(pointer()))
        assert self.driver.cuDevicePrimaryCtxRelease(0) == 0

    def load(self, image: bytes, name: str) -> Any:
        """Returns the function of an image with one kernel, or the error's code and log."""
        module, function = pointer(), pointer()
        log = ctypes.create_string_buffer(4096)
        options = (ctypes.c_int * 2)(5, 6)  # CU_JIT_ERROR_LOG_BUFFER, and its size
        values = (pointer * 2)(ctypes.addressof(log), len(log))
        data = ctypes.create_string_buffer(image)
        result = self.driver.cuModuleLoadDataEx(ctypes.byref(module), data, 2, options, values)
        if result != 0:
            return result, log.value.decode()
        self._modules.append(module)
        found = self.driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
        assert found == 0
        return function

    def allocate(self, nbytes: int) -> int:
        address = u64()
        assert self.driver.cuMemAlloc(ctypes.byref(address), nbytes) == 0
        self._memory.append(address.value)
        return address.value

    def free(self, address: int) -> None:
        self._memory.remove(address)
        assert self.driver.cuMemFree(address) == 0

    def upload(self, tensor: torch.Tensor) -> int:
        address = self.allocate(tensor.nbytes)
        copied = self.driver.cuMemcpyHtoDAsync(address, tensor.data_ptr(), tensor.nbytes, None)
        assert copied == 0 and self.synchronize() == 0
        return address

    def download(self, address: int, like: torch.Tensor) -> torch.Tensor:
        result = torch.empty_like(like)
        copied = self.driver.cuMemcpyDtoHAsync(result.data_ptr(), address, result.nbytes, None)
        assert copied == 0 and self.synchronize() == 0
        return result

    def launch(self, function: Any, grid: int, *args: int, threads: int = 128) -> int:
        """Enqueues a launch. Pointers are given as addresses, all other arguments are 32 bits;
        Triton's two scratch pointers are added."""
        values = [u64(each) if each > 1 << 32 else ctypes.c_int32(each) for each in args]
        values += [u64(0), u64(0)]
        # With a null behind the last, so that a test of too few arguments finds the same each time.
        addresses = [ctypes.addressof(each) for each in values]
        params = (pointer * (len(values) + 1))(*addresses, None)
        result = self.driver.cuLaunchKernel(
            function, grid, 1, 1, threads, 1, 1, 0, None, params, None
        )
        return int(result)

    def synchronize(self) -> int:
        return int(self.driver.cuStreamSynchronize(None))
