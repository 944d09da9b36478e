"""Evaluates Triton kernels, as TTIR, on host memory.

function = ttir.parse(text)
execute(function, (grid_x, grid_y, grid_z), [address, 128], memory, launch="main.steps[3]")
"""

from simulator.interpreter.errors import InterpreterError, KernelFault
from simulator.interpreter.execute import execute
from simulator.interpreter.memory import Block, Memory
from simulator.interpreter.ttir import Function, parse

__all__ = [
    "Block",
    "Function",
    "InterpreterError",
    "KernelFault",
    "Memory",
    "execute",
    "parse",
]
