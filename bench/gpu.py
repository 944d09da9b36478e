"""Loads, launches and times kernels through the driver API. Needs torch with CUDA and cuda-python.

Imports nothing of wrapgen, so that it runs beside any PyTorch.
"""

from __future__ import annotations

import ctypes
import statistics
from typing import Any

import torch
from cuda.bindings import driver


class Runner:
    """Loads, launches and times kernels through the driver API."""

    def __init__(self) -> None:
        self.torch, self.driver = torch, driver
        torch.zeros(1, device="cuda")
        self.flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")

    def check(self, result: tuple[Any, ...]) -> Any:
        if int(result[0]) != 0:
            raise RuntimeError(f"driver: {result[0]}")
        return result[1] if len(result) > 1 else None

    def load(self, cubin: bytes, shared: int) -> tuple[Any, Any, int, int]:
        cu = self.driver
        module = self.check(cu.cuModuleLoadData(cubin))
        function = self.check(cu.cuModuleGetFunction(module, b"kernel"))
        attribute = cu.CUfunction_attribute
        if shared > 48 << 10:
            self.check(
                cu.cuFuncSetAttribute(
                    function,
                    attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    shared,
                )
            )
        registers = self.check(
            cu.cuFuncGetAttribute(attribute.CU_FUNC_ATTRIBUTE_NUM_REGS, function)
        )
        local = self.check(
            cu.cuFuncGetAttribute(attribute.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES, function)
        )
        return module, function, registers, local

    def launch(
        self,
        function: Any,
        grid: tuple[int, ...],
        warps: int,
        shared: int,
        count: int,
        args: Any,
    ) -> None:
        pointers = [a.data_ptr() for a in args] + [0] * (count - len(args))
        values = (tuple(pointers), (ctypes.c_void_p,) * count)
        stream = self.torch.cuda.current_stream().cuda_stream
        self.check(
            self.driver.cuLaunchKernel(function, *grid, 32 * warps, 1, 1, shared, stream, values, 0)
        )

    def time(self, calls: list[Any], repeats: int = 7) -> float:
        """Microseconds a call: the calls in one CUDA graph, L2 flushed before, median."""
        torch = self.torch
        calls[0]()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        times = []
        for _ in range(repeats):
            self.flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) * 1e3 / len(calls))
        del graph
        return statistics.median(times)
