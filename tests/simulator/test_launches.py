"""Kernels that wait for other programs in a loop's body, that wait for the kernel ahead of them,
and that take tensors which the host describes."""

from __future__ import annotations

import struct

import pytest
import torch
import triton
import triton.language as tl

from simulator import tensor_maps
from simulator.interpreter import InterpreterError, KernelFault, parse
from simulator.interpreter.ttir import Type
from simulator.interpreter.values import MappedTensor
from tests.simulator.support import Device, launch


@triton.jit
def meet(arrived, values, out, PROGRAMS: tl.constexpr, EXPECTED: tl.constexpr):
    program = tl.program_id(0)
    tl.store(values + program, program + 1)
    tl.atomic_add(arrived, 1)
    done = False
    while not done:
        done = tl.atomic_add(arrived, 0) >= EXPECTED
    tl.store(out + program, tl.sum(tl.load(values + tl.arange(0, PROGRAMS)), 0))


def test_programs_that_poll_in_a_loops_body() -> None:
    one, four = torch.zeros(1, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    args = dict(arrived=one, values=four, out=four)
    got = launch(meet, (4,), args, PROGRAMS=4, EXPECTED=4)
    assert got["out"].tolist() == [10] * 4


def test_programs_that_poll_for_what_never_comes() -> None:
    one, four = torch.zeros(1, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    with pytest.raises(KernelFault, match="it waits for memory to change, as all programs do"):
        launch(meet, (4,), dict(arrived=one, values=four, out=four), PROGRAMS=4, EXPECTED=5)


@triton.jit
def count_up(counter, out, n):
    """Takes numbers until there are none left: a loop that changes what it looks at."""
    mine = tl.atomic_add(counter, 1)
    while mine < n:
        tl.store(out + mine, mine)
        mine = tl.atomic_add(counter, 1)


def test_programs_that_take_work_from_a_queue() -> None:
    args = dict(counter=torch.zeros(1, dtype=torch.int32), out=torch.zeros(9, dtype=torch.int32))
    assert launch(count_up, (3,), args | {"n": 9})["out"].tolist() == list(range(9))


@triton.jit
def dependent(x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.extra.cuda.gdc_wait()
    value = tl.load(x + at)
    tl.extra.cuda.gdc_launch_dependents()
    tl.store(out + at, value + 1)


def test_waiting_for_the_kernel_ahead() -> None:
    x = torch.arange(8, dtype=torch.float32)
    assert torch.equal(launch(dependent, (1,), dict(x=x, out=x), BLOCK=8)["out"], x + 1)


MAPPED = """
module {
  tt.func public @mapped(%arg0: !tt.tensordesc<tensor<4x8xf32>>,
                         %arg1: !tt.tensordesc<tensor<4x8xf32>>) {
    %c2 = arith.constant 2 : i32
    %c0 = arith.constant 0 : i32
    %0 = tt.descriptor_load %arg0[%c2, %c0] : !tt.tensordesc<tensor<4x8xf32>> -> tensor<4x8xf32>
    tt.descriptor_store %arg1[%c0, %c0], %0 : !tt.tensordesc<tensor<4x8xf32>>, tensor<4x8xf32>
    tt.return
  }
}
"""


@pytest.mark.parametrize("nan", [False, True])
def test_tensors_that_the_host_describes(nan: bool) -> None:
    device = Device()
    x, out = torch.arange(32, dtype=torch.float32).reshape(4, 8) / 3, torch.zeros(4, 8)
    from_, to = device.put(x, "x"), device.put(out, "out")
    source = MappedTensor(from_.address, (4, 6), (8, 1), nan=nan, tf32=True)
    target = MappedTensor(to.address, (3, 8), (8, 1))
    device.run(parse(MAPPED), (1,), [source, target], ["x", "out"])
    got = device.get(to, out)
    torch.testing.assert_close(got[:2, :6], x[2:, :6], rtol=2**-10, atol=0)
    assert not torch.equal(got[:2, :6], x[2:, :6])  # tf32 has fewer digits
    beyond = torch.full((2, 2), torch.nan if nan else 0.0)
    assert torch.equal(got[:2, 6:].isnan(), beyond.isnan())
    assert torch.equal(got[3], out[3])  # outside of the target


KIND = Type("tensordesc", (), Type("f16", (64, 32)))


def encoded(**changes: object) -> bytes:
    """As simulator/tensor_map.h has it: float16 [100, 64], boxes of 64 x 32."""
    fields = {"magic": b"TENSMAP1", "large": 0, "type": 6, "rank": 2, "box": (32, 64, 0, 0, 0)}
    fields |= changes
    return struct.pack(
        "<8sQQ5Q4Q5H4B14x",
        *(fields["magic"], fields["large"], 0x1000),
        *(64, 100, 0, 0, 0),
        *(128, 0, 0, 0),
        *fields["box"],  # type: ignore[misc]
        *(fields["type"], fields["rank"], 2, 1),
    )


def test_what_the_driver_encodes_is_read() -> None:
    found = tensor_maps.read(encoded(), KIND, "kernel k, parameter d")
    assert found == MappedTensor(0x1000, (100, 64), (64, 1), nan=True)
    empty = tensor_maps.read(bytes(128), KIND, "kernel k, parameter d")
    assert empty.shape == (0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"magic": b"NOTAMAP1"}, "its bytes are no tensor map that the driver encoded"),
        ({"type": 9}, "a tensor map of 2 dimensions and element type 9"),
        ({"rank": 1}, "a tensor map of 1 dimensions"),
        ({"box": (24, 64, 0, 0, 0)}, r"copies \[64, 24\] at a time"),
        ({"large": 1 << 21}, "whose bit for large tensors is wrong"),
    ],
)
def test_a_map_for_another_parameter_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InterpreterError, match=message):
        tensor_maps.read(encoded(**changes), KIND, "kernel k, parameter d")
