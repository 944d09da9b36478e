"""Which device a library is run on: the machine's GPU, or the simulator."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

KINDS: Final = ("auto", "gpu", "simulator")

_MAJOR: Final = 75  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_MINOR: Final = 76


class DeviceError(RuntimeError):
    """The device that was asked for is not there."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The machine's first GPU: its name and compute capability, such as ``90``."""

    name: str
    capability: int


@dataclasses.dataclass(frozen=True)
class Device:
    """Where to run.

    Attributes:
      text: what is printed: ``NVIDIA H200``, or ``simulator, sm_90``.
      driver: the driver's library, a path or a name to look up.
      environment: variables for the process that loads it.
      simulated: whether it is the simulator.
      capability: such as ``90``.
    """

    text: str
    driver: str
    environment: dict[str, str]
    simulated: bool
    capability: int


def find_gpu() -> Gpu | str:
    """Looks for a GPU; where there is none, says why.

    In a process of its own: a process that has loaded the machine's driver could not use the
    simulator any more, as both have one name.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            found = _probe()
            text = found if isinstance(found, str) else f"={found.capability} {found.name}"
        except BaseException as error:
            text = repr(error)
        os.write(write, text.encode(errors="replace")[:4096])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if not said:
        return f"the driver ended the process that loaded it (status {status})"
    if not said.startswith("="):
        return said
    capability, _, name = said[1:].partition(" ")
    return Gpu(name, int(capability))


def _probe() -> Gpu | str:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no libcuda.so.1"
    code = driver.cuInit(0)
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorName(code, ctypes.byref(text))
        return f"cuInit says {(text.value or b'?').decode()} ({code})"
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    if count.value < 1:
        return "the driver has no device"
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, 256, 0)
    numbers = [ctypes.c_int(), ctypes.c_int()]
    for number, attribute in zip(numbers, (_MAJOR, _MINOR), strict=True):
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
    return Gpu(name.value.decode(), 10 * numbers[0].value + numbers[1].value)


def runs_on(target: str, capability: int) -> bool:
    """Whether a device can run a target's code: machine code for its major number and no higher
    minor number, from 9.0 on for no other either, or PTX for no higher capability."""
    kind, _, number = target.partition("_")
    built = int(number)
    if kind == "compute":
        return built <= capability
    if built >= 90:
        return built == capability
    return built // 10 == capability // 10 and built <= capability


def best_target(targets: Sequence[str], capability: int) -> str:
    """The target that the runtime takes on a device: machine code before PTX, then the highest.

    Raises:
      DeviceError: there is none.
    """
    fitting = [target for target in targets if runs_on(target, capability)]
    if not fitting:
        raise DeviceError(
            f"the library has code for {', '.join(targets)}, and none for compute capability"
            f" {capability // 10}.{capability % 10}"
        )
    return max(fitting, key=lambda t: (t.startswith("sm_"), int(t.partition("_")[2])))


def choose(
    kind: str,
    targets: Sequence[str],
    simulator: Path,
    kernels: Mapping[int, Sequence[Path]],
    *,
    gpu: Gpu | str | None = None,
) -> tuple[list[Device], str]:
    """Lists the devices to test on, and says what else there is to say (or nothing).

    Args:
      kind: one of ``KINDS``.
      targets: what the library carries code for.
      simulator: the simulator's ``libcuda.so.1``.
      kernels: for each capability to simulate, the directories with its kernels.
      gpu: what ``find_gpu`` gave; ``None`` to look now.

    Raises:
      DeviceError: a GPU is asked for, and there is none or it cannot run the library.
    """
    if kind not in KINDS:
        raise DeviceError(f'device "{kind}" is none of {", ".join(KINDS)}')
    note = ""
    if kind != "simulator":
        found = find_gpu() if gpu is None else gpu
        if isinstance(found, Gpu):
            if any(runs_on(target, found.capability) for target in targets):
                device = Device(found.name, "libcuda.so.1", {}, False, found.capability)
                return [device], note
            why = (
                f"{found.name} has compute capability {found.capability // 10}."
                f"{found.capability % 10}, the library code for {', '.join(targets)}"
            )
            note = f"not on the GPU: {why}"
        else:
            why = found
        if kind == "gpu":
            raise DeviceError(
                f"this test must run on a GPU: {why}. Run it on a machine with one, or let"
                " --//aoti:test_device=simulator (or auto) have it simulated"
            )
    devices = []
    for capability, directories in sorted(kernels.items()):
        environment = {
            "SIMULATOR_CAPABILITY": f"{capability // 10}.{capability % 10}",
            "SIMULATOR_EXECUTOR": f"'{sys.executable}' -m simulator.executor",
            "SIMULATOR_KERNELS": os.pathsep.join(str(path) for path in directories),
            "SIMULATOR_QUIET": "1",
        }
        devices.append(
            Device(
                f"simulator, sm_{capability}",
                str(simulator.resolve()),
                environment,
                True,
                capability,
            )
        )
    return devices, note
