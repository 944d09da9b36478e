"""Calls a deployed library through its C ABI: ``python caller.py REQUEST.json RESULT.json``.

A process of its own, and the standard library alone: it loads the driver it is told to, the
machine's or the simulator's, and nothing of PyTorch's is in the way. A crash of the library is the
end of this process and not of the test.

The request names the driver, the library, the weights and cases. A case is a list of inputs, each
with a file that holds its bytes, and of outputs, each with a file to write. Each case is run

1. through a session with a CUDA graph, outputs untouched (simulator) or poisoned (GPU) before;
2. through it again, outputs poisoned with another pattern;
3. through a session that launches kernel by kernel, outputs poisoned;

or only the first of these. All must give the same bits in outputs and in inputs that the model
writes back; all other inputs, and the guards around every buffer, must be as they were. The files
get what the first run gave. What is wrong is listed in words in the result.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

GUARD: Final = 4096
"""Bytes before and after a buffer on a GPU. The simulator has gaps of its own, which it watches."""

PATTERN: Final = 0xE5
"""What guards hold."""

POISONS: Final = (0xFF, 0x5A, 0xFF)
"""What outputs hold before each run: no number, in floating-point types; then something else, so
that an element nobody writes differs between two runs."""

NO_GRAPH: Final = 1
"""``AOTI_SESSION_NO_GRAPH``."""

VERSION: Final = 12000
"""Of CUDA, as whose functions the driver's are looked up: the least that the runtime works with."""

CUDA: Final = 2
CPU: Final = 1


class DLDevice(ctypes.Structure):
    """DLPack's."""

    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class DLDataType(ctypes.Structure):
    """DLPack's."""

    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class DLTensor(ctypes.Structure):
    """DLPack's."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Status(ctypes.Structure):
    """``AotiStatus``."""

    _fields_ = [("code", ctypes.c_int32), ("message", ctypes.c_char * 2044)]


class ModelOptions(ctypes.Structure):
    """``AotiModelOptions``."""

    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("weights_path", ctypes.c_char_p),
        ("weights_data", ctypes.c_void_p),
        ("weights_size", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("kernels_dir", ctypes.c_char_p),
        ("weights", ctypes.c_void_p),
    ]


class SessionOptions(ctypes.Structure):
    """``AotiSessionOptions``."""

    _fields_ = [("struct_size", ctypes.c_uint64), ("flags", ctypes.c_uint64)]


class TargetInfo(ctypes.Structure):
    """``AotiTargetInfo``, of which the name is read; its tail may grow."""

    _fields_ = [("name", ctypes.c_char_p), ("tail", ctypes.c_uint64 * 31)]


class CallError(RuntimeError):
    """A call of the library or the driver returned an error."""


class Driver:
    """The functions of ``libcuda.so.1`` that a caller of the library needs itself."""

    def __init__(self, path: str) -> None:
        try:
            # Global, so that the library's dlopen("libcuda.so.1") finds this one by its name.
            self._lib = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise CallError(f"cannot load the driver {path}: {error}") from None
        self._functions: dict[str, Any] = {}
        self._call("cuInit", ctypes.c_uint(0))
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxPushCurrent", context)

    def _function(self, name: str) -> Any:
        """Looks a function up as the runtime does: the simulator exports no others."""
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
                raise CallError(f"the driver has no {name} ({code})")
            self._functions[name] = ctypes.CFUNCTYPE(ctypes.c_int)(address.value)
        return self._functions[name]

    def _call(self, name: str, *args: Any) -> None:
        code = self._function(name)(*args)
        if code:
            text = ctypes.c_char_p()
            self._function("cuGetErrorName")(ctypes.c_int(code), ctypes.byref(text))
            raise CallError(f"{name}: {(text.value or b'').decode()} ({code})")

    def allocate(self, nbytes: int) -> int:
        """Gives the address of fresh device memory."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc", ctypes.byref(address), ctypes.c_size_t(max(nbytes, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Frees it."""
        self._call("cuMemFree", ctypes.c_uint64(address))

    def write(self, address: int, data: bytes) -> None:
        """Copies bytes to the device, and waits."""
        if data:
            place, size = ctypes.c_uint64(address), ctypes.c_size_t(len(data))
            self._call("cuMemcpyHtoDAsync", place, ctypes.c_char_p(data), size, ctypes.c_void_p())
            self.synchronize()

    def read(self, address: int, nbytes: int) -> bytes:
        """Waits for all work, and copies bytes from the device."""
        if not nbytes:
            return b""
        host = ctypes.create_string_buffer(nbytes)
        place, size = ctypes.c_uint64(address), ctypes.c_size_t(nbytes)
        self._call("cuMemcpyDtoHAsync", host, place, size, ctypes.c_void_p())
        self.synchronize()
        return host.raw

    def synchronize(self) -> None:
        """Waits for the default stream, on which everything here is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p())

    def simulator_reports(self) -> str:
        """What the simulator found wrong, a line each; empty on a GPU."""
        function = getattr(self._lib, "simulator_misuse", None)
        if function is None:
            return ""
        function.restype = ctypes.c_char_p
        return (function() or b"").decode(errors="replace")


class Library:
    """A deployed model, loaded with weights from a file."""

    def __init__(self, path: str, weights: str, kernels_dir: str = "") -> None:
        self._lib = ctypes.CDLL(str(Path(path).resolve()), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        self._lib.aoti_model_description.restype = ctypes.c_void_p
        options = ModelOptions(struct_size=ctypes.sizeof(ModelOptions))
        options.weights_path = os.fsencode(weights)
        options.kernels_dir = os.fsencode(kernels_dir) if kernels_dir else None
        self._model = ctypes.c_void_p()
        description = ctypes.c_void_p(self._lib.aoti_model_description())
        self._call("aoti_model_load", description, ctypes.byref(options), ctypes.byref(self._model))
        info = TargetInfo()
        self._call("aoti_model_target", self._model, ctypes.byref(info))
        self.target: str = info.name.decode()

    def _call(self, name: str, *args: Any) -> None:
        status = Status()
        if getattr(self._lib, name)(*args, ctypes.byref(status)) != 0:
            raise CallError(f"{name}: {status.message.decode(errors='replace')}")

    def session(self, flags: int) -> ctypes.c_void_p:
        """Makes a session."""
        session = ctypes.c_void_p()
        options = SessionOptions(ctypes.sizeof(SessionOptions), flags)
        self._call("aoti_session_create", self._model, ctypes.byref(options), ctypes.byref(session))
        return session

    def run(
        self, session: ctypes.c_void_p, inputs: list[DLTensor], outputs: list[DLTensor]
    ) -> None:
        """Enqueues a run on the default stream."""

        def array(tensors: list[DLTensor]) -> Any:
            pointers = [ctypes.pointer(tensor) for tensor in tensors]
            return (ctypes.POINTER(DLTensor) * len(tensors))(*pointers)

        self._call(
            "aoti_session_run",
            session,
            array(inputs),
            ctypes.c_uint64(len(inputs)),
            array(outputs),
            ctypes.c_uint64(len(outputs)),
            ctypes.c_void_p(),
        )

    def close_session(self, session: ctypes.c_void_p) -> None:
        """Waits for a session's last run and destroys it."""
        self._lib.aoti_session_destroy(session)

    def close(self, *sessions: ctypes.c_void_p) -> None:
        """Destroys sessions and the model."""
        for session in sessions:
            self.close_session(session)
        self._lib.aoti_model_destroy(self._model)


@dataclasses.dataclass
class Block:
    """A caller's buffer on the device; ``address`` is that of its first byte."""

    driver: Driver
    spec: dict[str, Any]
    address: int
    start: int
    guard: int

    @property
    def nbytes(self) -> int:
        """Bytes from the first to one past the last element."""
        return int(self.spec["nbytes"])

    def bytes(self) -> bytes:
        """What it holds."""
        return self.driver.read(self.address, self.nbytes)

    def broken_guard(self) -> str:
        """Says where memory around the buffer was written; empty where it was not."""
        for what, address in (
            ("before", self.start),
            ("after", self.address + self.nbytes),
        ):
            found = self.driver.read(address, self.guard)
            changed = [i for i, byte in enumerate(found) if byte != PATTERN]
            if changed:
                at = self.guard - changed[0] if what == "before" else changed[-1] + 1
                return f"{len(changed)} bytes written, up to {at} bytes {what} it"
        return ""


@contextlib.contextmanager
def buffers(driver: Driver, specs: list[dict[str, Any]], guard: int) -> Iterator[list[Block]]:
    """Allocates a block for each tensor, with guards around it; scalars have none on the device."""
    blocks = []
    try:
        for spec in specs:
            start = driver.allocate(int(spec["nbytes"]) + 2 * guard)
            if guard:
                driver.write(start, bytes([PATTERN]) * (int(spec["nbytes"]) + 2 * guard))
            blocks.append(Block(driver, spec, start + guard, start, guard))
        yield blocks
    finally:
        for block in blocks:
            driver.free(block.start)


def dltensor(spec: dict[str, Any], data: int, device: int) -> DLTensor:
    """Describes memory as the C ABI wants it. An empty tensor's data is null, as elsewhere."""
    dims = ctypes.c_int64 * len(spec["shape"])
    return DLTensor(
        data=data if spec["nbytes"] else None,
        device=DLDevice(device, 0),
        ndim=len(spec["shape"]),
        dtype=DLDataType(spec["dlpack_code"], 8 * int(spec["itemsize"]), 1),
        shape=dims(*spec["shape"]),
        strides=dims(*spec["strides"]),
        byte_offset=0,
    )


KINDS: Final = (
    ("the first run", 0),
    ("the second run", 0),
    ("the run without a CUDA graph", 1),
)
"""What each run of a case is called, and the session it goes through."""


def run_case(
    driver: Driver,
    library: Library,
    sessions: list[ctypes.c_void_p],
    case: dict[str, Any],
    guard: int,
) -> list[str]:
    """Runs one case ``case["runs"]`` times and writes its results; returns what is wrong."""
    problems: list[str] = []
    results: list[list[bytes]] = []
    given = [Path(spec["file"]).read_bytes() for spec in case["inputs"]]
    for i, (kind, session) in enumerate(KINDS[: case["runs"]]):
        # Where another run poisons them, the simulator watches for reads of what nobody wrote.
        poison = None if not guard and i == 0 and case["runs"] > 1 else POISONS[i]
        with (
            buffers(driver, case["inputs"], guard) as inputs,
            buffers(driver, case["outputs"], guard) as outputs,
        ):
            for block in outputs:
                if poison is not None:
                    driver.write(block.address, bytes([poison]) * block.nbytes)
            call(driver, library, sessions[session], inputs, given, outputs)
            for block, data in zip(inputs, given, strict=True):
                if not block.spec["mutated"] and block.bytes() != data:
                    name = block.spec["name"]
                    problems.append(f"{kind} changed input {name}, which the model does not write")
            problems += [
                f"{kind} wrote outside of {block.spec['name']}: {broken}"
                for block in [*inputs, *outputs]
                if guard and (broken := block.broken_guard())
            ]
            written = [block for block in inputs if block.spec["mutated"]] + outputs
            results.append([block.bytes() for block in written])
    specs = [spec for spec in case["inputs"] if spec["mutated"]] + case["outputs"]
    for (kind, _), again in zip(KINDS[1:], results[1:], strict=False):
        for spec, first, second in zip(specs, results[0], again, strict=True):
            if first != second:
                at = next(i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
                problems.append(
                    f"{kind} gives other bits than {KINDS[0][0]} in {spec['name']}, first at byte"
                    f" {at} of {len(first)}: runs differ, or an element is never written"
                )
    for spec, data in zip(specs, results[0], strict=True):
        Path(spec["result"]).write_bytes(data)
    return problems


def call(
    driver: Driver,
    library: Library,
    session: ctypes.c_void_p,
    inputs: list[Block],
    given: list[bytes],
    outputs: list[Block],
) -> None:
    """Writes the inputs, runs the model and waits for it."""
    tensors = []
    hosts = []
    for block, data in zip(inputs, given, strict=True):
        driver.write(block.address, data)
        if block.spec["kind"] == "scalar":
            hosts.append(ctypes.create_string_buffer(data, len(data)))
            tensors.append(dltensor(block.spec, ctypes.addressof(hosts[-1]), CPU))
        else:
            tensors.append(dltensor(block.spec, block.address, CUDA))
    results = [dltensor(block.spec, block.address, CUDA) for block in outputs]
    library.run(session, tensors, results)
    driver.synchronize()


def main(request_file: str, result_file: str) -> None:
    """Runs all cases of a request. An error ends them; it is in the result, with what was said."""
    request = json.loads(Path(request_file).read_text())
    result: dict[str, Any] = {"target": "", "cases": [], "error": "", "reports": ""}

    def save() -> None:
        Path(result_file).write_text(json.dumps(result))

    save()
    driver = None
    try:
        driver = Driver(request["driver"])
        library = Library(request["library"], request["weights"])
        result["target"] = library.target
        sessions = [library.session(0), library.session(NO_GRAPH)]
        for case in request["cases"]:
            problems = run_case(driver, library, sessions, case, request["guard"])
            result["cases"].append({"name": case["name"], "problems": problems})
            save()
        library.close(*sessions)
    except (CallError, OSError) as error:
        result["error"] = str(error)
    if driver is not None:
        result["reports"] = driver.simulator_reports()
    save()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
