"""Kernels written in Triton, compiled to TTIR, give what PyTorch gives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from simulator.interpreter import InterpreterError, parse
from tests.simulator.support import Device, compiled, launch, ttir


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.randn(*shape, generator=generator).to(dtype)
    return torch.randint(-100, 100, shape, generator=generator).to(dtype)


@triton.jit
def elementwise(a, b, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x, y = tl.load(a + at, at < n), tl.load(b + at, at < n, other=1.0)
    tl.store(out + at, tl.where(x > 0, tl.exp(x) * y, x / (y * y + 1)), at < n)


def test_elementwise() -> None:
    a, b = random(1000), random(1000, seed=1)
    got = launch(elementwise, (8,), dict(a=a, b=b, out=torch.zeros(1000), n=1000), BLOCK=128)
    torch.testing.assert_close(got["out"], torch.where(a > 0, a.exp() * b, a / (b * b + 1)))


def test_a_wrong_kernel_gives_a_wrong_result() -> None:
    """What is executed is the text: a changed constant changes the result."""
    a, b, out = random(100), random(100, seed=1), torch.zeros(100)
    args = dict(a=a, b=b, out=out, n=100)
    text = ttir(elementwise, dict(a="*fp32", b="*fp32", out="*fp32", n="i32"), {"BLOCK": 128})
    assert "arith.mulf" in text
    results = []
    for source in (text, text.replace("arith.mulf", "arith.addf")):
        device = Device()
        blocks = [device.put(t, n) for n, t in args.items() if isinstance(t, torch.Tensor)]
        device.run(parse(source), (1,), [*blocks, 100])
        results.append(device.get(blocks[2], out))
    assert not torch.allclose(*results)


@triton.jit
def product(
    a,
    b,
    out,
    m,
    n,
    k,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
    OUT: tl.constexpr,
):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros([BM, BN], OUT)
    for start in range(0, k, BK):
        rk = start + tl.arange(0, BK)
        mask_a, mask_b = (
            (rm < m)[:, None] & (rk < k)[None, :],
            (rk < k)[:, None] & (rn < n)[None, :],
        )
        zero = tl.zeros([1], tl.float32).to(a.dtype.element_ty)
        x = tl.load(a + rm[:, None] * k + rk[None, :], mask_a, zero)
        y = tl.load(b + rk[:, None] * n + rn[None, :], mask_b, zero)
        total = tl.dot(x, y, total, input_precision=PRECISION, out_dtype=OUT)
    tl.store(out + rm[:, None] * n + rn[None, :], total, (rm < m)[:, None] & (rn < n)[None, :])


def multiply(a: torch.Tensor, b: torch.Tensor, precision: str = "ieee") -> torch.Tensor:
    (m, k), n = a.shape, b.shape[1]
    out = {torch.int8: torch.int32, torch.float64: torch.float64}.get(a.dtype, torch.float32)
    kind = {torch.int32: tl.int32, torch.float64: tl.float64}.get(out, tl.float32)
    return launch(
        product,
        (-(-m // 32), -(-n // 32)),
        dict(a=a, b=b, out=torch.zeros(m, n, dtype=out), m=m, n=n, k=k),
        BM=32,
        BN=32,
        BK=32,
        PRECISION=precision,
        OUT=kind,
    )["out"]


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.int8,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
    ],
    ids=str,
)
def test_product(dtype: torch.dtype) -> None:
    a, b = random(70, 90, dtype=dtype), random(90, 45, dtype=dtype, seed=1)
    if dtype == torch.int8:
        a, b = (
            random(70, 90, dtype=torch.int32).to(dtype),
            random(90, 45, dtype=torch.int32).to(dtype),
        )
    expected = a.double() @ b.double()
    got = multiply(a, b)
    error = (got.double() - expected).abs().max() / expected.abs().max()
    assert error <= {torch.int8: 0, torch.float64: 1e-15}.get(dtype, 1e-6)


def test_tf32() -> None:
    """Operands have 10 bits of mantissa, and more in the precisions made of several products."""
    a, b = random(32, 32), random(32, 32, seed=1)
    expected = a.double() @ b.double()

    def error(precision: str) -> float:
        return float((multiply(a, b, precision).double() - expected).norm() / expected.norm())

    assert 1e-4 < error("tf32") < 2e-3
    assert error("tf32x3") < 1e-6
    assert error("ieee") < 1e-6
    # Toward zero.
    almost = torch.eye(32) * -(1 + 2.0**-10 - 2.0**-20)
    assert multiply(almost, torch.eye(32), "tf32")[0, 0] == -1


@triton.jit
def row_statistics(a, total, largest, where, mean, deviation, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    x = tl.load(a + row * n + at, at < n, other=0.0)
    tl.store(total + row, tl.sum(x, 0))
    y = tl.where(at < n, x, -float("inf"))
    tl.store(largest + row, tl.max(y, 0))
    tl.store(where + row, tl.argmax(y, 0))
    weight = tl.where(at < n, 1.0, 0.0)
    m, d, _ = tl.reduce((x, tl.zeros_like(x), weight), 0, welford)
    tl.store(mean + row, m)
    tl.store(deviation + row, d)


@triton.jit
def welford(mean_a, square_a, weight_a, mean_b, square_b, weight_b):
    delta = mean_b - mean_a
    weight = weight_a + weight_b
    share = tl.where(weight == 0.0, 0.0, weight_b / weight)
    return (
        mean_a + delta * share,
        square_a + square_b + delta * delta * weight_a * share,
        weight,
    )


def test_reductions() -> None:
    a = random(7, 100)
    a[3, 20] = a[3, 50] = 9.0  # of equals the first
    result = launch(
        row_statistics,
        (7,),
        dict(
            a=a,
            total=torch.zeros(7),
            largest=torch.zeros(7),
            where=torch.zeros(7, dtype=torch.int32),
            mean=torch.zeros(7),
            deviation=torch.zeros(7),
            n=100,
        ),
        BLOCK=128,
    )
    torch.testing.assert_close(result["total"], a.sum(1))
    assert torch.equal(result["largest"], a.amax(1))
    assert torch.equal(result["where"], a.argmax(1).int())
    assert result["where"][3] == 20
    torch.testing.assert_close(result["mean"], a.mean(1))
    torch.testing.assert_close(result["deviation"], a.var(1, correction=0) * 100)


@triton.jit
def reduce_kinds(a, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    x = tl.load(a + at)
    column = tl.arange(0, COLUMNS)
    tl.store(out + column, tl.sum(x, 0))
    tl.store(out + COLUMNS + column, tl.min(x, 0))
    tl.store(out + 2 * COLUMNS + column, tl.xor_sum(x, 0))
    tl.store(out + 3 * COLUMNS + column, tl.reduce(x, 0, multiply_elements))
    tl.store(out + 4 * COLUMNS + column, tl.max(tl.max(x, 1), 0) + tl.zeros_like(column))


@triton.jit
def multiply_elements(a, b):
    return a * b


def test_integer_reductions_wrap() -> None:
    a = torch.randint(-(2**31), 2**31, (8, 16), generator=torch.Generator().manual_seed(2))
    a = a.to(torch.int32)
    got = launch(
        reduce_kinds, (1,), dict(a=a, out=torch.zeros(5, 16, dtype=torch.int32)), ROWS=8, COLUMNS=16
    )["out"]
    xor = a[0].clone()
    for row in a[1:]:
        xor ^= row
    total = a.sum(0, dtype=torch.int32)
    wide = [math.prod(column) & 0xFFFFFFFF for column in a.T.tolist()]
    expected = [w - 2**32 if w >= 2**31 else w for w in wide]
    assert torch.equal(got[0], total)
    assert torch.equal(got[1], a.amin(0))
    assert torch.equal(got[2], xor)
    assert got[3].tolist() == expected
    assert torch.equal(got[4], a.max().expand(16))


@triton.jit
def scans(a, forward, backward, largest, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + at)
    tl.store(forward + at, tl.cumsum(x, 0))
    tl.store(backward + at, tl.cumsum(x, 0, reverse=True))
    tl.store(largest + at, tl.associative_scan(x, 0, maximum))


@triton.jit
def maximum(a, b):
    return tl.maximum(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64], ids=str)
def test_scans(dtype: torch.dtype) -> None:
    a = random(3, 64, dtype=dtype)
    zeros = torch.zeros(3, 64, dtype=dtype)
    got = launch(scans, (3,), dict(a=a, forward=zeros, backward=zeros, largest=zeros), BLOCK=64)
    torch.testing.assert_close(got["forward"], a.cumsum(1, dtype=dtype))
    torch.testing.assert_close(got["backward"], a.flip(1).cumsum(1, dtype=dtype).flip(1))
    assert torch.equal(got["largest"], a.cummax(1).values)


@triton.jit
def linear_recurrence(a, b, out, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    _, y = tl.associative_scan((tl.load(a + at), tl.load(b + at)), 0, step)
    tl.store(out + at, y)


@triton.jit
def step(a_left, b_left, a_right, b_right):
    return a_left * a_right, b_left * a_right + b_right


def test_scan_that_does_not_commute() -> None:
    a, b = random(2, 32) * 0.5, random(2, 32, seed=1)
    got = launch(linear_recurrence, (2,), dict(a=a, b=b, out=torch.zeros(2, 32)), BLOCK=32)["out"]
    state = torch.zeros(2)
    for i in range(32):
        state = a[:, i] * state + b[:, i]
        torch.testing.assert_close(got[:, i], state)


@triton.jit
def sort_kernel(a, out, best, BLOCK: tl.constexpr, K: tl.constexpr, DOWN: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + at)
    tl.store(out + at, tl.sort(x, descending=DOWN))
    tl.store(best + tl.program_id(0) * K + tl.arange(0, K), tl.topk(x, K))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=str)
@pytest.mark.parametrize("down", [False, True])
def test_sort(dtype: torch.dtype, down: bool) -> None:
    a = random(5, 32, dtype=dtype)
    args = dict(a=a, out=torch.zeros(5, 32, dtype=dtype), best=torch.zeros(5, 4, dtype=dtype))
    got = launch(sort_kernel, (5,), args, BLOCK=32, K=4, DOWN=down)
    assert torch.equal(got["out"], a.sort(1, descending=down).values)
    assert torch.equal(got["best"], a.topk(4, 1).values)


@triton.jit
def shapes(a, out, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    r, c = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    x = tl.load(a + r[:, None] * COLUMNS + c[None, :])
    y = tl.trans(x)
    tl.store(out + c[:, None] * ROWS + r[None, :], y)
    flat = tl.arange(0, ROWS * COLUMNS)
    left, right = tl.split(tl.reshape(x, [ROWS * COLUMNS // 2, 2]))
    half = tl.arange(0, ROWS * COLUMNS // 2)
    tl.store(out + ROWS * COLUMNS + half, left)
    tl.store(out + ROWS * COLUMNS + ROWS * COLUMNS // 2 + half, right)
    both = tl.join(left, right).reshape([ROWS * COLUMNS])
    tl.store(out + 2 * ROWS * COLUMNS + flat, both)
    tl.store(out + 3 * ROWS * COLUMNS + flat, tl.cat(left, right, can_reorder=True))
    tl.store(out + 4 * ROWS * COLUMNS + flat, tl.flip(both, 0))


def test_shapes() -> None:
    a = random(4, 8)
    got = launch(shapes, (1,), dict(a=a, out=torch.zeros(5, 32)), ROWS=4, COLUMNS=8)["out"]
    flat = a.flatten()
    assert torch.equal(got[0], a.T.flatten())
    assert torch.equal(got[1], torch.cat((flat[::2], flat[1::2])))
    assert torch.equal(got[2], flat)
    assert torch.equal(got[3].sort().values, flat.sort().values)
    assert torch.equal(got[4], flat.flip(0))


@triton.jit
def counting(a, out, index, picked, BLOCK: tl.constexpr, BINS: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(a + tl.program_id(0) * BLOCK + at)
    tl.store(out + tl.program_id(0) * BINS + tl.arange(0, BINS), tl.histogram(x, BINS))
    chosen = tl.gather(x, tl.load(index + at), 0)
    tl.store(picked + tl.program_id(0) * BLOCK + at, chosen)


def test_histogram_and_gather() -> None:
    a = random(3, 64, dtype=torch.int32) % 8
    index = random(64, dtype=torch.int32, seed=3) % 64
    got = launch(
        counting,
        (3,),
        dict(
            a=a,
            out=torch.zeros(3, 8, dtype=torch.int32),
            index=index,
            picked=torch.zeros(3, 64, dtype=torch.int32),
        ),
        BLOCK=64,
        BINS=8,
    )
    assert torch.equal(got["out"], torch.stack([row.bincount(minlength=8) for row in a]).int())
    assert torch.equal(got["picked"], a[:, index.long()])


@triton.jit
def control(counts, out, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    if pid >= n:
        return
    at = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    # As many iterations as each program is told, so programs part.
    for i in range(tl.load(counts + pid)):
        if i % 2 == 0:
            total += at * i
        elif pid == 3:
            total -= 100.0
    steps = 0
    value = pid + 1
    while value != 1:
        if value % 2 == 0:  # noqa: SIM108 (a branch is meant)
            value = value // 2
        else:
            value = 3 * value + 1
        steps += 1
    tl.store(out + pid * (BLOCK + 1) + at, total)
    tl.store(out + pid * (BLOCK + 1) + BLOCK, steps)


def test_programs_part() -> None:
    """Loops of different lengths, branches, an early return, a loop with a condition."""
    counts = torch.tensor([3, 0, 7, 5, 1, 7, 2, 9], dtype=torch.int32)
    out = torch.full((8, 5), -1.0)
    got = launch(control, (8,), dict(counts=counts, out=out, n=6), BLOCK=4)["out"]
    for pid in range(8):
        expected = torch.full((5,), -1.0)
        if pid < 6:
            expected[:4] = 0
            for i in range(int(counts[pid])):
                if i % 2 == 0:
                    expected[:4] += torch.arange(4) * i
                elif pid == 3:
                    expected[:4] -= 100
            value, steps = pid + 1, 0
            while value != 1:
                value = value // 2 if value % 2 == 0 else 3 * value + 1
                steps += 1
            expected[4] = steps
        assert torch.equal(got[pid], expected), pid


@triton.jit(noinline=True)
def helper(x, y):
    if x > y:
        return x - y
    return x * y


@triton.jit
def calls(out):
    pid = tl.program_id(0)
    tl.store(out + pid, helper(pid, 2))


def test_calls_that_return_early() -> None:
    got = launch(calls, (5,), dict(out=torch.zeros(5, dtype=torch.int32)))["out"]
    assert got.tolist() == [0, 2, 4, 1, 2]


@triton.jit
def grid_numbers(out, BLOCK: tl.constexpr):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    number = x + tl.num_programs(0) * (y + tl.num_programs(1) * z)
    tl.store(out + number, number + 1000 * tl.num_programs(2))


def test_grid() -> None:
    out = torch.zeros(60, dtype=torch.int32)
    got = launch(grid_numbers, (5, 4, 3), dict(out=out), BLOCK=1)["out"]
    assert torch.equal(got, torch.arange(60, dtype=torch.int32) + 3000)


@triton.jit
def atomics(a, total, largest, bits, old, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + at)
    tl.atomic_add(total + at % 4, x)
    tl.atomic_max(largest + at % 4, x)
    tl.atomic_or(bits + at % 4, x)
    if old is not None:
        tl.store(old + tl.program_id(0), tl.atomic_add(total + 4, 1))


@pytest.mark.parametrize("ordered", [False, True])
def test_atomics(ordered: bool) -> None:
    """With results that nobody looks at; and with ones that count the programs."""
    a = random(8, 16, dtype=torch.int32)
    integers = torch.zeros(5, dtype=torch.int32)
    args: dict[str, Any] = dict(a=a, total=integers, largest=integers - 1000, bits=integers)
    if ordered:
        got = launch(atomics, (8,), args | dict(old=torch.zeros(8, dtype=torch.int32)), BLOCK=16)
        assert got["old"].tolist() == list(range(8))
        assert got["total"][4] == 8
    else:
        got = launch(atomics, (8,), args, BLOCK=16, old=None)
    columns = a.reshape(-1, 4)
    assert torch.equal(got["total"][:4], columns.sum(0, dtype=torch.int32))
    assert torch.equal(got["largest"][:4], columns.amax(0))
    bits = columns[0].clone()
    for row in columns[1:]:
        bits |= row
    assert torch.equal(got["bits"][:4], bits)


@triton.jit
def atomic_floats(a, total, least, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(a + at)
    tl.atomic_add(total + at * 0, x.to(total.dtype.element_ty))
    tl.atomic_min(least + at * 0, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_atomic_floats(dtype: torch.dtype) -> None:
    a = random(4, 32)
    args = dict(a=a, total=torch.zeros(1, dtype=dtype), least=torch.full((1,), 5.0))
    got = launch(atomic_floats, (4,), args, BLOCK=32)
    torch.testing.assert_close(got["total"], a.sum().to(dtype)[None], atol=0.1, rtol=1e-2)
    assert got["least"] == a.min()


@triton.jit
def lock(mutex, count, order):
    while tl.atomic_cas(mutex, 0, 1) == 1:
        pass
    n = tl.load(count)
    tl.store(order + n, tl.program_id(0))
    tl.store(count, n + 1)
    tl.atomic_xchg(mutex, 0)


def test_lock() -> None:
    """All programs write the counter. The lock makes that no race."""
    integers = torch.zeros(1, dtype=torch.int32)
    got = launch(
        lock, (4,), dict(mutex=integers, count=integers, order=torch.zeros(4, dtype=torch.int32))
    )
    assert got["count"] == 4
    assert got["order"].tolist() == [0, 1, 2, 3]


@triton.jit
def barrier(count, values, out, n):
    pid = tl.program_id(0)
    tl.store(values + pid, pid * pid)
    tl.atomic_add(count, 1)
    while tl.atomic_add(count, 0) < n:
        pass
    tl.store(out + pid, tl.load(values + (pid + 1) % n))


def test_programs_that_wait_for_all_others() -> None:
    integers = torch.zeros(6, dtype=torch.int32)
    got = launch(barrier, (6,), dict(count=integers, values=integers, out=integers, n=6))
    assert got["out"].tolist() == [1, 4, 9, 16, 25, 0]


@triton.jit
def backward(flags, values):
    """Each program waits for the one after it."""
    pid = tl.program_id(0)
    last = tl.num_programs(0) - 1
    if pid < last:
        while tl.load(flags + pid + 1, volatile=True) == 0:
            pass
        tl.store(values + pid, tl.load(values + pid + 1, volatile=True) * 2 + pid)
    tl.atomic_xchg(flags + pid, 1)


def test_programs_that_wait_for_later_ones() -> None:
    flags, values = torch.zeros(5, dtype=torch.int32), torch.ones(5, dtype=torch.int32)
    got = launch(backward, (5,), dict(flags=flags, values=values))
    expected = [0, 0, 0, 0, 1]
    for i in (3, 2, 1, 0):
        expected[i] = expected[i + 1] * 2 + i
    assert got["values"].tolist() == expected


@triton.jit
def conversions(a, out8, out5, half, truncated, integer, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(a + at)
    tl.store(out8 + at, x.to(tl.float8e4nv))
    tl.store(out5 + at, x.to(tl.float8e5))
    tl.store(half + at, x.to(tl.bfloat16))
    tl.store(truncated + at, x.to(tl.float16, fp_downcast_rounding="rtz"))
    tl.store(integer + at, x.to(tl.int8))


def test_conversions() -> None:
    a = torch.tensor(
        [
            0.0,
            1.0,
            -1.06,
            300.0,
            500.0,
            -1e6,
            2.0**-9,
            1.2e-3,
            17.0,
            19.0,
            -127.9,
            0.3,
            1e-9,
            1.1,
            2.4,
            104.0,
        ]
    )
    got = launch(
        conversions,
        (1,),
        dict(
            a=a,
            out8=torch.zeros(16, dtype=torch.float8_e4m3fn),
            out5=torch.zeros(16, dtype=torch.float8_e5m2),
            half=torch.zeros(16, dtype=torch.bfloat16),
            truncated=torch.zeros(16, dtype=torch.float16),
            integer=torch.zeros(16, dtype=torch.int8),
        ),
        BLOCK=16,
    )
    # Values out of range saturate, which PyTorch's do not.
    assert torch.equal(got["out8"].float(), a.clamp(-448, 448).to(torch.float8_e4m3fn).float())
    assert torch.equal(got["out5"].float(), a.clamp(-57344, 57344).to(torch.float8_e5m2).float())
    assert torch.equal(got["half"], a.bfloat16())
    cut = got["truncated"].double()
    assert (cut.abs() <= a.double().abs()).all()
    assert (cut.abs() >= a.double().abs().clamp(max=65504) * (1 - 2.0**-10) - 2.0**-24).all()
    small = a.abs() < 128
    assert torch.equal(got["integer"][small], a[small].to(torch.int8))


@triton.jit
def philox(out, seed, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, _, _, _ = tl.randint4x(seed, at)
    tl.store(out + at, a)


def test_philox() -> None:
    """Random123's Philox-4x32-10, of Python's integers."""

    def reference(counter: int, seed: int) -> int:
        c, key = [counter, 0, 0, 0], [seed, 0]
        for _ in range(10):
            x, y = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [
                (y >> 32) ^ c[1] ^ key[0],
                y & 0xFFFFFFFF,
                (x >> 32) ^ c[3] ^ key[1],
                x & 0xFFFFFFFF,
            ]
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        return c[0] - 2**32 if c[0] >= 2**31 else c[0]

    got = launch(philox, (2,), dict(out=torch.zeros(64, dtype=torch.int32), seed=1234), BLOCK=32)
    assert got["out"].tolist() == [reference(i, 1234) for i in range(64)]


@triton.jit
def descriptors(a, out, rows, columns, BLOCK: tl.constexpr):
    source = tl.make_tensor_descriptor(a, [rows, columns], [columns, 1], [BLOCK, BLOCK])
    target = tl.make_tensor_descriptor(out, [rows, columns], [columns, 1], [BLOCK, BLOCK])
    row, column = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
    target.store([row, column], source.load([row, column]) * 2)


def test_descriptors() -> None:
    """Blocks that reach over the edge read zeros and write nothing there."""
    a = random(20, 24)
    args = dict(a=a, out=torch.zeros(20, 24), rows=20, columns=24)
    assert torch.equal(launch(descriptors, (2, 2), args, BLOCK=16)["out"], a * 2)


@triton.jit
def descriptor_rows(a, out, index, rows, columns, COLUMNS: tl.constexpr):
    source = tl.make_tensor_descriptor(a, [rows, columns], [columns, 1], [1, COLUMNS])
    total = tl.make_tensor_descriptor(out, [8, columns], [columns, 1], [8, COLUMNS])
    picked = source.gather(tl.load(index + tl.arange(0, 8)), 0)
    source.scatter(picked * 0 + 7, tl.load(index + tl.arange(0, 8)), 0)
    total.atomic_add([0, 0], picked)


def test_descriptor_rows() -> None:
    a = random(20, 32)
    index = torch.tensor([3, 1, 19, 0, 5, 6, 7, 30], dtype=torch.int32)
    args = dict(a=a, out=torch.ones(8, 32), index=index, rows=20, columns=32)
    got = launch(descriptor_rows, (1,), args, COLUMNS=32)
    expected = torch.cat((a[index[:7].long()], torch.zeros(1, 32)))
    assert torch.equal(got["out"], expected + 1)
    assert (got["a"][index[:7].long()] == 7).all()
    assert torch.equal(got["a"][2], a[2])


@triton.jit
def scaled(a, b, scale_a, scale_b, out, BLOCK: tl.constexpr, K: tl.constexpr):
    m, k, s = tl.arange(0, BLOCK), tl.arange(0, K), tl.arange(0, K // 32)
    x = tl.load(a + m[:, None] * K + k[None, :])
    y = tl.load(b + k[:, None] * BLOCK + m[None, :])
    sx = tl.load(scale_a + m[:, None] * (K // 32) + s[None, :])
    sy = tl.load(scale_b + m[:, None] * (K // 32) + s[None, :])
    tl.store(out + m[:, None] * BLOCK + m[None, :], tl.dot_scaled(x, sx, "e4m3", y, sy, "e5m2"))


def test_scaled_product() -> None:
    a = random(32, 64, dtype=torch.float8_e4m3fn)
    b = random(64, 32, dtype=torch.float8_e5m2, seed=1)
    scale_a = (127 + random(32, 2, dtype=torch.int32) % 5).to(torch.uint8)
    scale_b = (125 + random(32, 2, dtype=torch.int32, seed=2) % 5).to(torch.uint8)
    got = launch(
        scaled,
        (1,),
        dict(a=a, b=b, scale_a=scale_a, scale_b=scale_b, out=torch.zeros(32, 32)),
        BLOCK=32,
        K=64,
    )["out"]
    left = a.double() * torch.exp2(scale_a.double() - 127).repeat_interleave(32, 1)
    right = b.double() * torch.exp2(scale_b.double() - 127).repeat_interleave(32, 1).T
    torch.testing.assert_close(got.double(), left @ right, rtol=1e-5, atol=1e-4)


@triton.jit
def pair(a):
    return a * 2, a + 1


@triton.jit
def mapped(a, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x, y = tl.map_elementwise(pair, tl.load(a + at))
    tl.store(out + at, x)
    tl.store(out + BLOCK + at, y)


def test_map_elementwise() -> None:
    a = random(32)
    got = launch(mapped, (1,), dict(a=a, out=torch.zeros(2, 32)), BLOCK=32)["out"]
    assert torch.equal(got, torch.stack((a * 2, a + 1)))


@triton.jit
def printing(a, BLOCK: tl.constexpr):
    tl.device_print("a is", tl.load(a + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)))


def test_print() -> None:
    device = Device()
    block = device.put(torch.arange(4, dtype=torch.int32), "a")
    kernel = compiled(printing, {"a": torch.zeros(1, dtype=torch.int32)}, {"BLOCK": 2})
    device.run(kernel, (2,), [block])
    assert device.printed == [
        "printing (0, 0, 0): a is: [0, 1]",
        "printing (1, 0, 0): a is: [2, 3]",
    ]


@triton.jit
def assembly(a, out, bits, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(a + at)
    y = tl.inline_asm_elementwise(
        "fma.rn.f32 $0, $1, $1, 0f3F800000;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )
    tl.store(out + at, y)
    z = tl.inline_asm_elementwise(
        "{ .reg .b32 t; shr.u32 t, $1, 3; and.b32 $0, t, 0xff; }",
        "=r,r",
        [x.to(tl.int32, bitcast=True)],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )
    tl.store(bits + at, z)


def test_inline_assembly() -> None:
    a = random(32)
    args = dict(a=a, out=torch.zeros(32), bits=torch.zeros(32, dtype=torch.int32))
    got = launch(assembly, (1,), args, BLOCK=32)
    torch.testing.assert_close(got["out"], a * a + 1)
    assert torch.equal(got["bits"], (a.view(torch.int32) >> 3) & 0xFF)


@triton.jit
def strange_assembly(out):
    tl.store(out, tl.inline_asm_elementwise("mov.u32 $0, %laneid;", "=r", [], tl.int32, True, 1))


def test_unknown_assembly_is_refused() -> None:
    with pytest.raises(InterpreterError, match=r"mov\.u32 \$0, %laneid"):
        launch(strange_assembly, (1,), dict(out=torch.zeros(1, dtype=torch.int32)))


@triton.jit
def device_library(a, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(a + at)
    tl.store(out + at, libdevice.erf(x) + libdevice.log1p(libdevice.exp(x)))
    tl.store(out + BLOCK + at, libdevice.pow(tl.abs(x), 1.5))
    tl.store(out + 2 * BLOCK + at, libdevice.signbit(x).to(tl.float32))


def test_device_library() -> None:
    a = random(32)
    got = launch(device_library, (1,), dict(a=a, out=torch.zeros(3, 32)), BLOCK=32)["out"]
    expected = torch.stack((a.erf() + a.exp().log1p(), a.abs().pow(1.5), a.signbit().float()))
    torch.testing.assert_close(got, expected)


def test_unknown_operations_are_named() -> None:
    text = "module {\n  tt.func public @k() {\n    %0 = tt.mystery : i32\n    tt.return\n  }\n}\n"
    with pytest.raises(InterpreterError, match=r"kernel k, line 3 of its TTIR: tt\.mystery"):
        Device().run(parse(text), (1,), [])
    symbol = ttir(device_library, {"a": "*fp32", "out": "*fp32"}, {"BLOCK": 32})
    symbol = symbol.replace("__nv_erff", "__nv_nothing")
    device = Device()
    blocks = [device.put(torch.zeros(n), "a") for n in (32, 96)]
    with pytest.raises(InterpreterError, match="__nv_nothing"):
        device.run(parse(symbol), (1,), blocks)


@triton.jit
def undefined(a, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(a + at, at < n))


def test_undefined_lanes_show() -> None:
    """What a masked load leaves undefined is NaN here."""
    got = launch(undefined, (1,), dict(a=random(8), out=torch.zeros(8), n=5), BLOCK=8)["out"]
    assert got[5:].isnan().all()


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    a, b = random(1000), random(1000, seed=1)
    args = dict(a=a, b=b, out=torch.zeros(1000), n=1000)
    whole = launch(elementwise, (8,), args, BLOCK=128)["out"]
    execute = importlib.import_module("simulator.interpreter.execute")
    monkeypatch.setattr(execute, "CHUNK_BYTES", 4000)
    assert torch.equal(launch(elementwise, (8,), args, BLOCK=128)["out"], whole)
