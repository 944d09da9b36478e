"""As much of CUDA's driver as the tuner needs, by ctypes."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any, Final

VERSION: Final = 12000
"""Of CUDA, as whose functions the driver's are looked up: what the runtime works with, at least."""

_MAJOR: Final = 75
_MINOR: Final = 76
_DYNAMIC_SHARED: Final = 8

FORMATS: Final = {
    "bool": "?",
    "uint8": "B",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}
"""How ``struct`` packs a number of each type that kernels take by value."""


class DriverError(RuntimeError):
    """There is no driver, or a call of it failed."""


class _KernelNode(ctypes.Structure):
    """``CUDA_KERNEL_NODE_PARAMS_v2``."""

    _fields_ = [
        ("function", ctypes.c_void_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_memory", ctypes.c_uint),
        ("params", ctypes.c_void_p),
        ("extra", ctypes.c_void_p),
        ("kernel", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    ]


class Launch:
    """A launch with its arguments. They live as long as this does."""

    def __init__(
        self,
        function: int,
        grid: Sequence[int],
        threads: int,
        shared_memory: int,
        arguments: Sequence[bytes],
    ) -> None:
        self._values = [ctypes.create_string_buffer(each, max(8, len(each))) for each in arguments]
        addresses = [ctypes.addressof(each) for each in self._values]
        self._pointers = (ctypes.c_void_p * (len(addresses) + 1))(*addresses, None)
        self.node = _KernelNode(
            function=function,
            grid=(ctypes.c_uint * 3)(*grid),
            block=(ctypes.c_uint * 3)(threads, 1, 1),
            shared_memory=shared_memory,
            params=ctypes.addressof(self._pointers),
        )


class Driver:
    """The driver and the first device, whose primary context is current from here on.

    Attributes:
      name: the device's.
      capability: its compute capability, such as 90.
      version: of CUDA that the driver has, 12080 for 12.8.
    """

    def __init__(self, path: str = "libcuda.so.1") -> None:
        try:
            self._lib = ctypes.CDLL(path)
        except OSError as error:
            raise DriverError(f"cannot load the driver {path}: {error}") from None
        self._functions: dict[str, Any] = {}
        self._call("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if count.value < 1:
            raise DriverError("the driver has no device")
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", name, ctypes.c_int(256), device)
        self.name = name.value.decode()
        self.capability = 10 * self._attribute(_MAJOR, device) + self._attribute(_MINOR, device)
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        self.version = version.value
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxPushCurrent", context)
        self._stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(1))
        self._events = (ctypes.c_void_p(), ctypes.c_void_p())
        for event in self._events:
            self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))

    def _function(self, name: str) -> Any:
        """Looks a function up as the runtime does."""
        if name not in self._functions:
            address, status = ctypes.c_void_p(), ctypes.c_int()
            code = self._lib.cuGetProcAddress_v2(
                name.encode(),
                ctypes.byref(address),
                ctypes.c_int(VERSION),
                ctypes.c_uint64(0),
                ctypes.byref(status),
            )
            if code or not address.value:
                raise DriverError(f"the driver has no {name} ({code}): it is older than CUDA 12.0")
            self._functions[name] = ctypes.CFUNCTYPE(ctypes.c_int)(address.value)
        return self._functions[name]

    def _call(self, name: str, *args: Any) -> None:
        code = self._function(name)(*args)
        if code:
            text = ctypes.c_char_p()
            self._function("cuGetErrorName")(ctypes.c_int(code), ctypes.byref(text))
            raise DriverError(f"{name}: {(text.value or b'?').decode()} ({code})")

    def _attribute(self, attribute: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), device)
        return value.value

    def function(self, image: bytes, name: str, shared_memory: int) -> int:
        """Loads a kernel; it stays loaded."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        none = ctypes.c_void_p()
        data = ctypes.create_string_buffer(image, len(image) + 1)
        self._call("cuModuleLoadDataEx", ctypes.byref(module), data, ctypes.c_uint(0), none, none)
        self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        if shared_memory > 48 << 10:
            self._call(
                "cuFuncSetAttribute",
                function,
                ctypes.c_int(_DYNAMIC_SHARED),
                ctypes.c_int(shared_memory),
            )
        assert function.value is not None
        return function.value

    def allocate(self, nbytes: int) -> int:
        """Gives the address of fresh device memory."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc", ctypes.byref(address), ctypes.c_size_t(max(nbytes, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Frees it."""
        self._call("cuMemFree", ctypes.c_uint64(address))

    def clear(self, address: int, nbytes: int) -> None:
        """Enqueues zeroing of memory."""
        if nbytes:
            place, size = ctypes.c_uint64(address), ctypes.c_size_t(nbytes)
            self._call("cuMemsetD8Async", place, ctypes.c_ubyte(0), size, self._stream)

    def copy(self, to: int, source: int, nbytes: int) -> None:
        """Enqueues a copy on the device."""
        if nbytes:
            places = ctypes.c_uint64(to), ctypes.c_uint64(source)
            self._call("cuMemcpyDtoDAsync", *places, ctypes.c_size_t(nbytes), self._stream)

    def floats(self, address: int, count: int) -> tuple[float, ...]:
        """Waits for all work, and reads numbers of type float32."""
        host = ctypes.create_string_buffer(4 * count)
        place, size = ctypes.c_uint64(address), ctypes.c_size_t(4 * count)
        self._call("cuMemcpyDtoHAsync", host, place, size, self._stream)
        self.synchronize()
        return struct.unpack(f"{count}f", host.raw)

    def synchronize(self) -> None:
        """Waits for all work."""
        self._call("cuStreamSynchronize", self._stream)

    def launch(self, launch: Launch) -> None:
        """Enqueues a launch."""
        node = launch.node
        extents = [ctypes.c_uint(each) for each in (*node.grid, *node.block)]
        self._call(
            "cuLaunchKernel",
            ctypes.c_void_p(node.function),
            *extents,
            ctypes.c_uint(node.shared_memory),
            self._stream,
            ctypes.c_void_p(node.params),
            ctypes.c_void_p(),
        )

    def graph(self, launches: Sequence[Launch]) -> ctypes.c_void_p:
        """Makes a graph of launches, one after the other; ``destroy`` frees it."""
        graph, made = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuGraphCreate", ctypes.byref(graph), ctypes.c_uint(0))
        try:
            before = (ctypes.c_void_p * 1)()
            for i, launch in enumerate(launches):
                node = ctypes.c_void_p()
                self._call(
                    "cuGraphAddKernelNode",
                    ctypes.byref(node),
                    graph,
                    before,
                    ctypes.c_size_t(min(i, 1)),
                    ctypes.byref(launch.node),
                )
                before[0] = node.value
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(made), graph, ctypes.c_uint64(0))
        finally:
            self._call("cuGraphDestroy", graph)
        return made

    def destroy(self, graph: ctypes.c_void_p) -> None:
        """Frees a graph."""
        self._call("cuGraphExecDestroy", graph)

    def nanoseconds(self, graph: ctypes.c_void_p) -> int:
        """Runs a graph and says how long the device took."""
        start, end = self._events
        self._call("cuEventRecord", start, self._stream)
        self._call("cuGraphLaunch", graph, self._stream)
        self._call("cuEventRecord", end, self._stream)
        self._call("cuEventSynchronize", end)
        elapsed = ctypes.c_float()
        self._call("cuEventElapsedTime", ctypes.byref(elapsed), start, end)
        return round(elapsed.value * 1e6)


def packed(dtype: str, value: int | str) -> bytes:
    """A number as a kernel takes it; of floating point, as ``float.hex`` writes it."""
    number = float.fromhex(value) if isinstance(value, str) else value
    return struct.pack(f"<{FORMATS[dtype]}", number)
