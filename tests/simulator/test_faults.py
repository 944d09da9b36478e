"""Each fault of a kernel is found, and the report names who did what where."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from simulator.interpreter import KernelFault, errors, parse
from tests.simulator.support import Device, compiled, ttir

F32 = torch.zeros(0)
EXECUTE = importlib.import_module("simulator.interpreter.execute")


@triton.jit
def copy(source, target, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at, at < n), at < n)


@triton.jit
def copy_unmasked(source, target, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + at, tl.load(source + at))


@triton.jit
def store_number(target, stride, BLOCK: tl.constexpr):
    at = tl.program_id(0) * stride + tl.arange(0, BLOCK)
    tl.store(target + at, tl.program_id(0) + tl.zeros([BLOCK], tl.int32))


@triton.jit
def store_same(target, stride, BLOCK: tl.constexpr):
    at = tl.program_id(0) * stride + tl.arange(0, BLOCK)
    tl.store(target + at, tl.full([BLOCK], 5, tl.int32))


@triton.jit
def store_twice(target, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(target + tl.program_id(0) * BLOCK + at, at)
    # The next program's first element.
    tl.store(target + (tl.program_id(0) + 1) % 2 * BLOCK, tl.program_id(0) + 10)


@triton.jit
def through_table(table, target):
    pointer = tl.load(table).to(tl.pointer_type(tl.float32))
    tl.store(target, tl.load(pointer))


@triton.jit
def check(source, BLOCK: tl.constexpr):
    tl.device_assert(tl.load(source + tl.arange(0, BLOCK)) < 3, "less than three")


@triton.jit
def spin(flag):
    while tl.atomic_cas(flag, 1, 0) != 1:
        pass


@triton.jit
def pick(source, index, target, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(target + at, tl.gather(tl.load(source + at), tl.load(index + at), 0))


def fault(
    device: Device, kernel: Any, grid: Any, args: Any, names: Any, **options: Any
) -> KernelFault:
    with pytest.raises(KernelFault) as caught:
        device.run(kernel, grid, args, names, **options)
    return caught.value


COPY = {"source": F32, "target": F32, "n": 1}
NAMES = ("source", "target", "n")


def test_out_of_bounds_load() -> None:
    """The third program of four reads 24 elements, and the mask allows 8 too many."""
    device = Device()
    source, target = device.put(torch.zeros(40), "weights"), device.put(torch.zeros(64), "result")
    kernel = compiled(copy, COPY, {"BLOCK": 16})
    found = fault(device, kernel, (4,), [source, target, 48], NAMES)
    assert found.what == errors.OUT_OF_BOUNDS
    assert (found.kernel, found.parameter, found.launch) == ("copy", "source", "launch 7")
    assert found.program == (2, 0, 0)
    assert found.address == source.address + 40 * 4
    text = str(found)
    assert "kernel copy, parameter source, launch launch 7, program (2, 0, 0)" in text
    assert "0 bytes behind the end of weights of 160 bytes" in text
    assert re.search(r"line \d+ of its TTIR", text)
    device.run(kernel, (4,), [source, target, 40], NAMES)


def test_out_of_bounds_store_into_a_neighbour() -> None:
    """The address is another allocation's, but not that of the parameter."""
    device = Device()
    source = device.put(torch.zeros(1024), "source")
    target = device.allocate(256, "first")
    device.allocate(4096, "second")
    kernel = compiled(copy, COPY, {"BLOCK": 256})
    found = fault(device, kernel, (1,), [source, target, 256], NAMES)
    assert (found.what, found.parameter) == (errors.OUT_OF_BOUNDS, "target")
    assert found.address == target.end
    # The store is refused whole.
    assert not device.memory.written[target.address - device.memory.base :][:256].any()


def test_before_the_beginning() -> None:
    device = Device()
    source, target = device.put(torch.zeros(64), "source"), device.allocate(256, "target")
    kernel = compiled(
        store_number, {"target": torch.zeros(1, dtype=torch.int32), "stride": 1}, {"BLOCK": 4}
    )
    found = fault(device, kernel, (3,), [target, -2], ("target", "stride"))
    assert (found.what, found.program) == (errors.OUT_OF_BOUNDS, (1, 0, 0))
    assert found.address == target.address - 8
    assert source.end <= found.address


def test_masked_lanes_touch_nothing() -> None:
    device = Device()
    source, target = device.put(torch.arange(3.0), "source"), device.put(torch.zeros(3), "target")
    kernel = compiled(copy, COPY, {"BLOCK": 1024})
    device.run(kernel, (100,), [source, target, 3], NAMES)
    assert device.get(target, torch.zeros(3)).tolist() == [0, 1, 2]


def test_use_after_free() -> None:
    device = Device()
    source, target = device.put(torch.zeros(64), "source"), device.put(torch.zeros(64), "target")
    device.memory.free(source.address)
    kernel = compiled(copy, COPY, {"BLOCK": 64})
    found = fault(device, kernel, (1,), [source, target, 64], NAMES)
    assert (found.what, found.parameter) == (errors.USE_AFTER_FREE, "source")
    assert "source, which was freed" in str(found)


def test_null_pointer() -> None:
    device = Device()
    target = device.put(torch.zeros(64), "target")
    kernel = compiled(copy, COPY, {"BLOCK": 64})
    found = fault(device, kernel, (1,), [0, target, 64], NAMES)
    assert (found.what, found.parameter, found.address) == (errors.OUT_OF_BOUNDS, "source", 0)
    # Of which nothing is read, any pointer will do.
    device.run(kernel, (1,), [0, target, 0], NAMES)


def test_misaligned() -> None:
    device = Device()
    source, target = device.put(torch.zeros(64), "source"), device.put(torch.zeros(64), "target")
    kernel = compiled(copy, COPY, {"BLOCK": 16})
    found = fault(device, kernel, (1,), [source.address + 2, target, 16], NAMES)
    assert (found.what, found.parameter) == (errors.MISALIGNED, "source")
    assert found.address == source.address + 2
    device.run(kernel, (1,), [source.address + 4, target, 16], NAMES)


def test_promised_alignment() -> None:
    device = Device()
    source, target = device.put(torch.zeros(64), "source"), device.put(torch.zeros(64), "target")
    signature = {"source": "*fp32", "target": "*fp32", "n": "i32"}
    kernel = parse(ttir(copy, signature, {"BLOCK": 16}, aligned=["source", "n"]))
    found = fault(device, kernel, (1,), [source.address + 4, target, 16], NAMES)
    assert (found.what, found.parameter) == (errors.MISALIGNED, "source")
    assert "multiple of 16" in str(found)
    found = fault(device, kernel, (1,), [source, target, 15], NAMES)
    assert (found.what, found.parameter) == (errors.BAD_ARGUMENT, "n")
    device.run(kernel, (1,), [source, target, 16], NAMES)


def test_uninitialised_read() -> None:
    device = Device()
    source, target = device.allocate(256, "source"), device.allocate(256, "target")
    device.memory.bytes(source.address, 256).zero_()
    device.memory.mark(source.address, 10 * 4 + 2)
    kernel = compiled(copy, COPY, {"BLOCK": 8})
    found = fault(device, kernel, (2,), [source, target, 11], NAMES)
    assert (found.what, found.parameter) == (errors.UNINITIALISED, "source")
    assert (found.address, found.program) == (source.address + 40, (1, 0, 0))
    device.run(kernel, (2,), [source, target, 10], NAMES)
    # What the kernel wrote may be read, and no more.
    device.run(kernel, (2,), [target, source, 10], NAMES)
    found = fault(device, kernel, (2,), [target, source, 11], NAMES)
    assert found.address == target.address + 40


def test_freed_and_allocated_again_is_unwritten() -> None:
    device = Device()
    source, target = device.put(torch.zeros(16), "source"), device.put(torch.zeros(16), "target")
    kernel = compiled(copy, COPY, {"BLOCK": 16})
    device.run(kernel, (1,), [source, target, 16], NAMES)
    device.memory.free(source.address)
    device.memory.written[source.address - device.memory.base :][: source.size] = 0
    device.memory.add(source)
    found = fault(device, kernel, (1,), [source, target, 16], NAMES)
    assert found.what == errors.UNINITIALISED


@pytest.mark.parametrize(("programs", "chunk"), [(2, 1 << 24), (1000, 1 << 24), (1000, 1)])
def test_race(programs: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours overlap by one element; also where programs are not executed together."""
    monkeypatch.setattr(EXECUTE, "CHUNK_BYTES", chunk)
    device = Device()
    target = device.allocate(4 * 8 * 1000, "target")
    integers = {"target": torch.zeros(1, dtype=torch.int32), "stride": 1}
    kernel = compiled(store_number, integers, {"BLOCK": 8})
    device.run(kernel, (programs,), [target, 8], ("target", "stride"))
    found = fault(device, kernel, (programs,), [target, 7], ("target", "stride"))
    assert (found.what, found.parameter) == (errors.RACE, "target")
    assert found.address == target.address + 7 * 4
    assert re.search(r"program \([01], 0, 0\)", str(found))
    # The same value is no race.
    device.run(compiled(store_same, integers, {"BLOCK": 8}), (programs,), [target, 7])


def test_race_between_two_stores() -> None:
    device = Device()
    target = device.allocate(4 * 32, "target")
    integers = {"target": torch.zeros(1, dtype=torch.int32)}
    kernel = compiled(store_twice, integers, {"BLOCK": 16})
    found = fault(device, kernel, (2,), [target], ("target",))
    assert (found.what, found.program) == (errors.RACE, (0, 0, 0))
    assert found.address == target.address + 16 * 4
    assert "program (1, 0, 0) wrote another value" in str(found)


@triton.jit
def shift(values, distance, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(values + at, tl.load(values + at + distance) + 1)


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize("distance", [0, 1, 8])
def test_in_place(distance: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place each program may read what it writes, and nothing that its neighbour writes."""
    monkeypatch.setattr(EXECUTE, "CHUNK_BYTES", chunk)
    device = Device()
    values = device.put(torch.arange(32, dtype=torch.int32), "values")
    integers = {"values": torch.zeros(1, dtype=torch.int32), "distance": 0}
    kernel = compiled(shift, integers, {"BLOCK": 8})
    names = ("values", "distance")
    if distance == 0:
        device.run(kernel, (3,), [values, 0], names)
        return
    found = fault(device, kernel, (3,), [values, distance], names)
    assert (found.what, found.parameter) == (errors.HAZARD, "values")
    assert found.address == values.address + 8 * 4
    assert {found.program[0], int(re.findall(r"program \((\d), 0, 0\)", str(found))[1])} == {0, 1}


def test_race_within_a_program() -> None:
    device = Device()
    target = device.allocate(64, "target")

    text = """
    module {
      tt.func public @lanes(%arg0: !tt.ptr<i32>) {
        %0 = tt.make_range {end = 4 : i32, start = 0 : i32} : tensor<4xi32>
        %1 = tt.splat %arg0 : !tt.ptr<i32> -> tensor<4x!tt.ptr<i32>>
        tt.store %1, %0 : tensor<4x!tt.ptr<i32>>
        tt.return
      }
    }
    """
    found = fault(device, parse(text), (1,), [target], ("target",))
    assert (found.what, found.line) == (errors.RACE, 6)
    assert "two of its own elements" in str(found)


def test_pointers_from_memory() -> None:
    device = Device()
    value = device.put(torch.tensor([3.5]), "value")
    target = device.put(torch.zeros(1), "target")
    table = device.put(torch.tensor([value.address, target.end + 4]), "table")
    kernel = compiled(
        through_table, {"table": torch.zeros(1, dtype=torch.int64), "target": F32}, {}
    )
    device.run(kernel, (1,), [table, target])
    assert device.get(target, torch.zeros(1)).item() == 3.5
    found = fault(device, kernel, (1,), [table.address + 8, target], ("table", "target"))
    assert (found.what, found.parameter) == (errors.OUT_OF_BOUNDS, "")
    assert found.address == target.end + 4
    device.memory.free(value.address)
    found = fault(device, kernel, (1,), [table, target], ("table", "target"))
    assert (found.what, found.address) == (errors.USE_AFTER_FREE, value.address)


def test_write_to_what_is_read_only() -> None:
    device = Device()
    source, target = device.put(torch.zeros(16), "source"), device.put(torch.zeros(16), "target")
    kernel = compiled(copy_unmasked, {"source": F32, "target": F32}, {"BLOCK": 16})
    names = ("source", "target")
    device.run(kernel, (1,), [source, target], names, read_only=frozenset(["source"]))
    found = fault(device, kernel, (1,), [source, target], names, read_only=frozenset(names))
    assert (found.what, found.parameter) == (errors.READ_ONLY, "target")


def test_assertion() -> None:
    device = Device()
    source = device.put(torch.arange(4), "source")
    text = ttir(check, {"source": "*i64"}, {"BLOCK": 4})
    if "tt.assert" not in text:  # only debug builds of a kernel carry it
        text = text.replace(
            "    tt.return",
            "    %t = arith.constant dense<3> : tensor<4xi64>\n"
            "    %r = tt.make_range {end = 4 : i32, start = 0 : i32} : tensor<4xi32>\n"
            "    %p = tt.splat %arg0 : !tt.ptr<i64> -> tensor<4x!tt.ptr<i64>>\n"
            "    %q = tt.addptr %p, %r : tensor<4x!tt.ptr<i64>>, tensor<4xi32>\n"
            "    %v = tt.load %q : tensor<4x!tt.ptr<i64>>\n"
            "    %c = arith.cmpi slt, %v, %t : tensor<4xi64>\n"
            '    tt.assert %c, "less than three" : tensor<4xi1>\n    tt.return',
        )
    found = fault(device, parse(text), (1,), [source], ("source",))
    assert found.what == errors.ASSERTION
    assert "less than three" in str(found)


@pytest.mark.parametrize("programs", [1, 3])
def test_waiting_for_nobody(programs: int) -> None:
    device = Device()
    flag = device.put(torch.zeros(1, dtype=torch.int32), "flag")
    kernel = compiled(spin, {"flag": torch.zeros(1, dtype=torch.int32)}, {})
    found = fault(device, kernel, (programs,), [flag], ("flag",))
    assert (found.what, found.program) == (errors.STUCK, (0, 0, 0))
    assert "waits for memory to change" in str(found)


def test_gather_out_of_range() -> None:
    device = Device()
    source, target = device.put(torch.zeros(8), "source"), device.put(torch.zeros(8), "target")
    index = device.put(torch.tensor([0, 1, 2, 3, 4, 5, 6, 8], dtype=torch.int32), "index")
    integers = torch.zeros(1, dtype=torch.int32)
    kernel = compiled(pick, {"source": F32, "index": integers, "target": F32}, {"BLOCK": 8})
    found = fault(device, kernel, (1,), [source, index, target], ("source", "index", "target"))
    assert found.what == errors.BAD_INDEX
