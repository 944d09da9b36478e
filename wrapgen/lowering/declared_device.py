"""The declared GPU in place of a detected one.

Inductor and Triton ask for a device in three places: a ``DeviceInterface`` registered for ``cuda``,
Triton's active driver, and ``torch.cuda`` itself. ``declared`` answers all three from
``wrapgen.target`` and puts everything back; no GPU or driver is looked for.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import torch
from torch._dynamo import device_interface
from torch._subclasses import fake_impls
from torch.fx.experimental.symbolic_shapes import statically_known_true
from triton.backends.compiler import GPUTarget
from triton.runtime import driver as triton_driver

from wrapgen.target import Device

CUDA = torch.device("cuda", 0)

_HIP_VERSION: Final = "7.1.0"
"""That of the headers in Triton's wheel."""


def gpu_target(device: Device) -> GPUTarget:
    """Triton's name of the declared GPU."""
    if device.platform == "hip":
        return GPUTarget("hip", device.architecture, device.warp_size)
    major, minor = device.capability
    return GPUTarget("cuda", major * 10 + minor, device.warp_size)


@contextlib.contextmanager
def declared(device: Device) -> Iterator[None]:
    """Makes PyTorch and Triton see ``device`` and nothing else while the context is open."""
    properties = _properties(device)
    capability = device.capability
    interface = _interface(device, properties)
    # Fills the registry with PyTorch's own interfaces first: a later one would replace ours.
    list(device_interface.get_registered_device_interfaces())
    registry = device_interface.device_interfaces
    patches = {
        "get_device_properties": _always(properties),
        "get_device_capability": _always(capability),
        "get_device_name": _always(device.name),
        "is_available": _always(True),
        "current_device": _always(0),
        "device_count": _always(1),
    }
    with contextlib.ExitStack() as stack:
        # By this Inductor tells AMD's GPUs, which PyTorch calls cuda as well. Of CUDA's version it
        # asks nothing.
        version = _HIP_VERSION if device.platform == "hip" else None
        stack.enter_context(mock.patch.object(torch.version, "hip", version))
        stack.enter_context(mock.patch.dict(registry, {"cuda": interface, "cuda:0": interface}))
        for name, replacement in patches.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, replacement))
        stack.enter_context(
            mock.patch.object(
                torch._C, "_conv_determine_backend_memory_format", _convolution_format
            )
        )
        # The method asks PyTorch's CUDA library for the device; the operator does the same and
        # does not. Inductor's passes copy fake tensors into views by it.
        stack.enter_context(mock.patch.object(torch.Tensor, "copy_", _copy))
        # PyTorch's own switches to the operand's device before it looks whether there is one.
        stack.enter_context(mock.patch.object(torch.Tensor, "__invert__", _invert))
        stack.enter_context(
            mock.patch.dict(
                fake_impls.op_implementations_dict,
                {torch.ops.aten.convolution.default: _fake_convolution},
            )
        )
        before = triton_driver._active
        triton_driver.set_active(_Driver(device))
        _forget_devices()
        try:
            yield
        finally:
            triton_driver._active = before
            _forget_devices()


def _copy(self: torch.Tensor, src: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """``Tensor.copy_``."""
    result: torch.Tensor = torch.ops.aten.copy_.default(self, src, non_blocking)
    return result


def _invert(operand: torch.Tensor) -> torch.Tensor:
    """``Tensor.__invert__``."""
    return torch.bitwise_not(operand)


def _always(value: Any) -> Callable[..., Any]:
    """A function that takes anything and returns ``value``."""
    return lambda *_, **__: value


def _properties(device: Device) -> SimpleNamespace:
    """``torch.cuda.get_device_properties``: the attributes that Inductor reads."""
    major, minor = device.capability
    return SimpleNamespace(
        name=device.name,
        major=major,
        minor=minor,
        multi_processor_count=device.multiprocessors,
        max_threads_per_multi_processor=device.max_threads_per_multiprocessor,
        max_threads_per_block=device.max_threads_per_block,
        warp_size=device.warp_size,
        regs_per_multiprocessor=device.registers_per_multiprocessor,
        total_memory=device.total_memory,
        shared_memory_per_block=device.shared_memory_per_block,
        shared_memory_per_block_optin=device.shared_memory_per_block_optin,
        shared_memory_per_multiprocessor=device.shared_memory_per_multiprocessor,
        L2_cache_size=device.l2_cache,
        gcnArchName=device.architecture,
    )


def _interface(device: Device, properties: Any) -> type:
    """The ``DeviceInterface`` of the declared device."""
    major, minor = device.capability
    # What PyTorch's own says of either vendor's.
    capability = device.architecture or major * 10 + minor

    class Declared(device_interface.CudaInterface):
        class device:  # noqa: N801 (PyTorch's name)
            def __init__(self, *args: object) -> None:
                pass

            def __enter__(self) -> None:
                pass

            def __exit__(self, *args: object) -> None:
                pass

        class Worker:
            set_device = staticmethod(_always(None))
            current_device = staticmethod(_always(0))
            get_device_properties = staticmethod(_always(properties))

        current_device = staticmethod(_always(0))
        set_device = staticmethod(_always(None))
        device_count = staticmethod(_always(1))
        is_available = staticmethod(_always(True))
        synchronize = staticmethod(_always(None))
        get_device_properties = staticmethod(_always(properties))
        get_compute_capability = staticmethod(_always(capability))
        get_raw_stream = staticmethod(_always(0))
        is_bf16_supported = staticmethod(_always(True))
        is_dtype_supported = staticmethod(_always(True))
        is_triton_capable = staticmethod(_always(True))
        raise_if_triton_unavailable = staticmethod(_always(None))

    return Declared


class _Driver:
    """Triton's driver for a device that is not there: it answers, but cannot launch."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.utils = SimpleNamespace(
            get_device_properties=_always(
                {
                    "max_shared_mem": device.shared_memory_per_block_optin,
                    "max_num_regs": device.registers_per_multiprocessor,
                    "multiprocessor_count": device.multiprocessors,
                    "warpSize": device.warp_size,
                    "sm_clock_rate": 0,
                    "mem_clock_rate": 0,
                    "mem_bus_width": 0,
                }
            )
        )

    def get_current_target(self) -> GPUTarget:
        return gpu_target(self._device)

    def get_active_torch_device(self) -> torch.device:
        return CUDA

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, index: int) -> None:
        pass

    def get_current_stream(self, *_: Any) -> int:
        return 0

    def get_device_capability(self, *_: Any) -> tuple[int, int]:
        return self._device.capability


def _convolution_format(
    operand: torch.Tensor, weight: torch.Tensor, *_: Any
) -> torch.memory_format:
    """The layout of a convolution's result.

    As ``cudnn_conv_suggest_memory_format`` in PyTorch's ConvUtils.h: channels-last if the operand
    or the weight is. A PyTorch built without cuDNN says contiguous, and every convolution after it
    would read its operand through strides. What depends on a size known only at run time is taken
    for false.
    """
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    wanted = formats.get(weight.dim())
    if wanted is not None and any(
        _is_dense(tensor, [1, *range(tensor.dim() - 1, 1, -1), 0])
        and not _is_dense(tensor, range(tensor.dim() - 1, -1, -1))
        for tensor in (operand, weight)
    ):
        return wanted
    return torch.contiguous_format


def _is_dense(tensor: torch.Tensor, axes: Iterable[int]) -> bool:
    """Whether elements are without gaps in memory, the first of ``axes`` innermost."""
    expected: Any = 1
    for axis in axes:
        stride, extent = tensor.stride(axis), tensor.shape[axis]
        if not (statically_known_true(stride == expected) or statically_known_true(extent == 1)):
            return False
        expected = expected * extent
    return True


_FAKE_CONVOLUTION: Final[Callable[..., Any]] = fake_impls.op_implementations_dict[
    torch.ops.aten.convolution.default
]


def _fake_convolution(mode: Any, operation: Any, *args: Any, **kwargs: Any) -> Any:
    """The shape and layout of a convolution's result; of one dimension, as if it were two.

    PyTorch makes the operand of a one-dimensional one contiguous, for which it wants the GPU.
    """
    if kwargs or args[1].dim() != 3:
        return _FAKE_CONVOLUTION(mode, operation, *args, **kwargs)
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args
    with mode:
        flat = operation(
            x.unsqueeze(2),
            weight.unsqueeze(2),
            bias,
            [1, *stride],
            [0, *padding],
            [1, *dilation],
            transposed,
            [0, *output_padding],
            groups,
        )
        return flat.squeeze(2)


def _forget_devices() -> None:
    """Empties the memoised functions of Inductor and Triton that may hold a device's properties.

    There is no list of them, so those go whose names speak of a device; one too many costs
    milliseconds. A test lowers for two targets in one process and compares.
    """
    for name in sorted(sys.modules):
        if not name.startswith(("torch._inductor.", "triton.compiler.", "triton.runtime.")):
            continue
        for value in list(vars(sys.modules[name]).values()):
            if isinstance(value, functools._lru_cache_wrapper) and _is_about_devices(value):
                value.cache_clear()
    from torch._inductor.runtime.hints import DeviceProperties

    DeviceProperties.create.__func__.cache_clear()


_DEVICE_WORDS = ("device", "gpu", "cuda", "sm", "sms", "b200", "mem", "warp", "triton", "tma")


def _is_about_devices(function: Any) -> bool:
    return any(word in function.__name__.split("_") for word in _DEVICE_WORDS) or any(
        word in function.__name__ for word in ("b200", "nvidia", "blackwell", "cutlass")
    )
