"""The process that runs kernels for the simulated driver.

The driver (``simulator/executor.cc``) starts it, shares device memory with it through inherited
files, and tells it over a socket what to do; ``simulator/executor.h`` has the messages. It ends
when its socket closes or the process that started it ends, whatever it is doing then.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import mmap
import os
import select
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from simulator import images, kernels, tensor_maps
from simulator.interpreter import errors, ttir
from simulator.interpreter.errors import InterpreterError, KernelFault
from simulator.interpreter.execute import execute
from simulator.interpreter.memory import Block, Memory
from simulator.interpreter.values import MappedTensor
from wrapgen import set_condition
from wrapgen.kernels.launch import MAX_ALIGNMENT, POINTER_BYTES
from wrapgen.kernels.metadata import SCRATCH_PARAMS

_ILLEGAL_ADDRESS: Final = 700
_LAUNCH_TIMEOUT: Final = 702
_ASSERT: Final = 710
_MISALIGNED_ADDRESS: Final = 716
_LAUNCH_FAILED: Final = 719

_RESULTS: Final = {
    errors.OUT_OF_BOUNDS: _ILLEGAL_ADDRESS,
    errors.USE_AFTER_FREE: _ILLEGAL_ADDRESS,
    errors.MISALIGNED: _MISALIGNED_ADDRESS,
    errors.ASSERTION: _ASSERT,
    errors.STUCK: _LAUNCH_TIMEOUT,
}
"""The CUresult of a fault, where CUDA has one; a GPU would not notice the others."""

_SCALARS: Final = {
    "i1": "?",
    "i8": "b",
    "i16": "h",
    "i32": "i",
    "i64": "q",
    "f16": "e",
    "bf16": "H",
    "f32": "f",
    "f64": "d",
}
"""How ``struct`` spells scalar types of TTIR; of bf16 the bits. 8-bit floats are no scalar
parameters."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A loaded kernel: offset and format, and name, of each parameter the TTIR takes.

    ``scratch`` is the global scratch memory in bytes that a launch must provide for each block, and
    ``scratch_at`` the offset of its address in the parameters.
    """

    function: ttir.Function
    slots: tuple[tuple[int, str], ...]
    names: tuple[str, ...]
    scratch: int
    scratch_at: int


class Executor:
    """Answers the driver's messages."""

    def __init__(self, memory: Memory, directories: kernels.KernelDirectories) -> None:
        self._memory = memory
        self._directories = directories
        self._kernels: dict[str, Kernel] = {}

    def answer(self, head: str, body: bytes) -> tuple[str, str] | None:
        """Returns the first line and the body of the answer, or None where there is none."""
        verb, _, rest = head.partition(" ")
        if verb == "memory":
            self._remember(body.decode("ascii"))
            return None
        if verb == "unload":
            self._kernels.pop(rest, None)
            return None
        if verb == "module":
            return self._load(rest, body)
        if verb == "launch":
            return self._launch(rest, body)
        raise ValueError(f"a message {head!r}: the driver is of another version")

    def _remember(self, events: str) -> None:
        for line in events.splitlines():
            words = line.split(" ", 3)
            address = int(words[1])
            if words[0] == "free":
                self._memory.free(address)
            else:
                serial = int(words[3].rpartition(" ")[2])
                self._memory.add(Block(words[3], address, int(words[2]), serial))

    def _load(self, identity: str, image: bytes) -> tuple[str, str]:
        try:
            facts = images.read(image)
        except images.ImageError as error:
            return "refused", str(error)
        if facts.entry == set_condition.NAME:
            return "module", _module(facts, identity, set_condition.PARAMS, facts.registers) + (
                " sets_condition=1\n"
            )
        try:
            source = self._directories.find(facts.entry, hashlib.sha256(image).hexdigest())
            function = ttir.parse(source.ttir)
            slots, at = _slots(facts, function, source)
        except (kernels.KernelNotFoundError, InterpreterError) as error:
            return "failed", str(error)
        names = tuple(each.name for each in function.parameters)
        if source.launch is not None:
            names = tuple(each.name for each in source.launch.params)
        self._kernels[identity] = Kernel(function, slots, names, source.scratch, at)
        kinds = ["pointer" if p.type.element == "ptr" else "scalar" for p in function.parameters]
        registers = facts.registers or source.registers
        named = tuple(zip(names, kinds, strict=True))
        return "module", _module(facts, identity, named, registers) + "\n"

    def _check_scratch(self, kernel: Kernel, buffer: bytes, blocks: int) -> None:
        """Raises ``InterpreterError`` where a launch provides too little scratch memory."""
        (address,) = struct.unpack_from("<Q", buffer, kernel.scratch_at)
        needed = blocks * kernel.scratch
        block = self._memory.find(address)
        if needed and (block is None or address + needed > block.end):
            raise InterpreterError(
                f"kernel {kernel.function.name} needs {needed} bytes of global scratch memory, "
                f"{kernel.scratch} for each of {blocks} blocks, and address {address:#x} has "
                + ("none" if block is None else f"{block.end - address}")
            )

    def _launch(self, words: str, buffer: bytes) -> tuple[str, str]:
        identity, _, *numbers, origin = words.split(" ", 10)
        grid_x, grid_y, grid_z, *_, cluster, _ = map(int, numbers)
        kernel = self._kernels[identity]
        try:
            args = _arguments(kernel, buffer)
            self._check_scratch(kernel, buffer, grid_x * grid_y * grid_z)
            # A Triton program is a block, or a cluster of them.
            grid = (grid_x // cluster, grid_y, grid_z)
            execute(
                kernel.function,
                grid,
                args,
                self._memory,
                launch=origin.removeprefix("launch "),
                parameters=kernel.names,
            )
        except KernelFault as fault:
            return f"fault {_RESULTS.get(fault.what, _LAUNCH_FAILED)}", str(fault)
        except InterpreterError as error:
            return f"fault {_LAUNCH_FAILED}", f"{origin}: the simulator cannot run it: {error}"
        except Exception as error:
            traceback.print_exc()
            name = kernel.function.name
            return (
                f"fault {_LAUNCH_FAILED}",
                f"kernel {name}, {origin}: the executor failed: {type(error).__name__}: {error}",
            )
        return "done", ""


def _number(form: str, buffer: bytes, offset: int) -> int | float:
    """An argument's value from a launch's buffer."""
    value: int | float = struct.unpack_from(form, buffer, offset)[0]
    if form == "<" + _SCALARS["bf16"]:
        (value,) = struct.unpack("<f", struct.pack("<I", int(value) << 16))
    return value


def _module(
    facts: images.Image, identity: str, params: Sequence[tuple[str, str]], registers: int
) -> str:
    """What the driver is told of a module: its one kernel, whose parameters have names and kinds,
    ``pointer`` or ``scalar``. The pointers to scratch memory follow."""
    names = [f"*{name}" if kind == "pointer" else name for name, kind in params]
    names += [f"*{name}" for name in SCRATCH_PARAMS]
    return (
        f"simulator module\nkernel {facts.entry} id={identity} target={facts.target} "
        f"threads={facts.threads} exact={int(facts.exact)} static={facts.static} "
        f"registers={registers} cluster={facts.cluster} "
        f"params={','.join(map(str, facts.params))} names={','.join(names)}"
    )


def _arguments(kernel: Kernel, buffer: bytes) -> list[int | float | MappedTensor]:
    """The arguments of a launch."""
    args: list[int | float | MappedTensor] = []
    for parameter, name, (offset, form) in zip(
        kernel.function.parameters, kernel.names, kernel.slots, strict=True
    ):
        if form == tensor_maps.FORMAT:
            where = f"kernel {kernel.function.name}, parameter {name}"
            value = struct.unpack_from(form, buffer, offset)[0]
            args.append(tensor_maps.read(value, parameter.type, where))
        else:
            args.append(_number(form, buffer, offset))
    return args


def _slots(
    facts: images.Image, function: ttir.Function, source: kernels.Source
) -> tuple[tuple[tuple[int, str], ...], int]:
    """Returns offset and ``struct`` format of each parameter of the TTIR, and the offset of the
    first of Triton's scratch pointers; sees to it that they are those of the image."""
    formats = []
    for parameter in function.parameters:
        element = parameter.type.element
        if element == "tensordesc":
            formats.append(tensor_maps.FORMAT)
            continue
        if element != "ptr" and element not in _SCALARS:
            raise InterpreterError(
                f"kernel {function.name}: a scalar parameter of type {parameter.type} is not known"
            )
        formats.append("<Q" if element == "ptr" else "<" + _SCALARS[element])
    sizes = [struct.calcsize(form) for form in formats] + [POINTER_BYTES] * len(SCRATCH_PARAMS)
    if list(facts.params) != sizes:
        raise kernels.KernelNotFoundError(
            f"kernel {facts.entry}: the image's parameters have {list(facts.params)} bytes, those "
            f"of {source.path} and the {len(SCRATCH_PARAMS)} that Triton appends {sizes}: it was "
            "compiled from something else"
        )
    offsets = []
    end = 0
    for size in sizes:
        alignment = min(size, MAX_ALIGNMENT)
        offsets.append(-(-end // alignment) * alignment)
        end = offsets[-1] + size
    return tuple(zip(offsets, formats, strict=False)), offsets[len(formats)]


class _Connection:
    """Messages over the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._file = connection.makefile("rb")

    def receive(self) -> tuple[str, bytes] | None:
        """Returns the first line and the body of the next message; None at the end."""
        header = self._file.read(8)
        if len(header) < 8:
            return None
        message = self._file.read(int.from_bytes(header, "little"))
        head, _, body = message.partition(b"\n")
        return head.decode("utf-8"), body

    def send(self, head: str, body: str) -> None:
        message = f"{head}\n{body}".encode()
        self._socket.sendall(len(message).to_bytes(8, "little") + message)


def _end_with(parent: int, connection: socket.socket) -> None:
    """Ends this process when the other one ends, in the middle of a kernel too."""
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is always told
    # Not there if it has ended already, or the system lacks this: the socket tells as well.
    with contextlib.suppress(OSError):
        poll.register(os.pidfd_open(parent), select.POLLIN)
    poll.poll()
    os._exit(0)


def _map(file: int, size: int) -> torch.Tensor:
    mapping = mmap.mmap(file, size, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_NORESERVE", 0))
    os.close(file)
    return torch.frombuffer(mapping, dtype=torch.uint8)


def main() -> int:
    """Serves one driver until it is gone."""
    parser = argparse.ArgumentParser(description="Runs kernels for the simulator's libcuda.so.1.")
    for name in ("socket", "data", "written"):
        parser.add_argument(f"--{name}", type=int, required=True, help="an inherited file")
    arguments = parser.parse_args()
    connection = socket.socket(fileno=arguments.socket)
    messages = _Connection(connection)
    hello = messages.receive()
    if hello is None:
        return 0
    facts = dict(word.split("=", 1) for word in hello[0].split()[1:])
    watch = threading.Thread(target=_end_with, args=(int(facts["parent"]), connection), daemon=True)
    watch.start()
    if os.environ.get("SIMULATOR_THREADS"):
        torch.set_num_threads(int(os.environ["SIMULATOR_THREADS"]))
    size = int(facts["size"])
    memory = Memory(_map(arguments.data, size), _map(arguments.written, size), int(facts["base"]))
    searched = os.environ.get("SIMULATOR_KERNELS", "").split(os.pathsep)
    directories = kernels.KernelDirectories([Path(each) for each in searched if each])
    executor = Executor(memory, directories)
    messages.send("ready", "")
    while (message := messages.receive()) is not None:
        reply = executor.answer(*message)
        if reply is not None:
            messages.send(*reply)
    sys.stderr.flush()
    # PyTorch's threads and the mapping of all memory are left to the system, which is faster.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
