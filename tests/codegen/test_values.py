"""What is said of expressions from the ranges of their symbols is so, and the memory of temporaries
whose sizes depend on the inputs is apart where it must be."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen import samples
from tests.codegen.expressions import EXPRESSIONS, SYMBOLS
from wrapgen import expression
from wrapgen.codegen import CodegenError, expr, memory
from wrapgen.codegen.bounds import Bounds, bounds, divisor, fits
from wrapgen.program import Buffer, Copy, Fill, Procedure, Ref

RANGES = st.tuples(st.integers(-9, 70), st.integers(0, 70)).map(lambda r: Bounds(r[0], r[0] + r[1]))


@given(EXPRESSIONS, st.tuples(RANGES, RANGES, RANGES), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_values_lie_within_bounds(
    text: str, given_ranges: tuple[Bounds, Bounds, Bounds], draw: random.Random
) -> None:
    ranges = dict(zip(SYMBOLS, given_ranges, strict=True))
    try:
        parsed = expr.parse(text)
    except CodegenError:
        return
    found, factor, safe = bounds(parsed, ranges), divisor(parsed), fits(text, ranges)
    for _ in range(20):
        values = {
            name: draw.choice([r.minimum, r.maximum, draw.randint(r.minimum, r.maximum)])
            for name, r in ranges.items()
        }
        try:
            value = expression.evaluate(text, values)
        except expression.ExpressionError:
            continue
        assert found.minimum <= value <= found.maximum
        assert value % factor == 0 if factor else value == 0
        if safe:
            assert abs(value) <= expression.INT64_MAX


SIZES = ("256", "s0 * 4", "s1 * 4", "s0 * s1", "s0 * s0 * 4", "s0 * s1 * 8", "s0 // 2 * 16", "0")
DYNAMIC = {"s0": Bounds(1, 300), "s1": Bounds(0, 50)}


@given(
    st.lists(
        st.tuples(st.sampled_from(SIZES), st.integers(0, 15), st.integers(0, 6)),
        min_size=1,
        max_size=20,
    )
)
@settings(deadline=None)
def test_slots_keep_contemporaries_apart(blocks: list[tuple[str, int, int]]) -> None:
    def step(name: str) -> Fill:
        return Fill(dst=Ref(space="arena", name=name), byte=0, nbytes=0, sources=())

    lives = {f"b{i}": (first, first + length) for i, (_, first, length) in enumerate(blocks)}
    steps = []
    for at in range(22):
        alive = [name for name, (first, last) in lives.items() if at in (first, last)]
        # One step each: at the same time is at the least in neighbouring steps.
        steps += [step(name) for name in alive]
    buffers = tuple(
        Buffer(name=f"b{i}", dtype=samples.F32, shape=(), strides=(), nbytes=nbytes)
        for i, (nbytes, _, _) in enumerate(blocks)
    )
    procedure = Procedure(buffers=buffers, steps=tuple(steps))
    slots = memory.slots(procedure, DYNAMIC)
    assert sorted(name for slot in slots for name in slot.members) == sorted(lives)
    found = {block.name: block for block in memory.lifetimes(procedure, DYNAMIC)}
    nbytes = {buffer.name: buffer.nbytes for buffer in buffers}
    for slot in slots:
        for a, b in itertools.combinations(slot.members, 2):
            assert not found[a].overlaps(found[b])
        for s0, s1 in itertools.product((1, 2, 99, 300), (0, 1, 50)):
            values = {"s0": s0, "s1": s1}
            size = max(expression.evaluate(dim, values) for dim in slot.sizes)
            for member in slot.members:
                assert expression.evaluate(nbytes[member], values) <= size


def test_a_chain_needs_two_slots_at_any_size() -> None:
    names = [f"b{i}" for i in range(50)]
    refs = [Ref(space="arena", name=name) for name in names]
    steps = [
        Copy(dst=dst, src=src, nbytes="s0 * 4", sources=()) for src, dst in itertools.pairwise(refs)
    ]
    buffers = tuple(
        Buffer(name=name, dtype=samples.F32, shape=(), strides=(), nbytes="s0 * 4")
        for name in names
    )
    slots = memory.slots(Procedure(buffers=buffers, steps=tuple(steps)), DYNAMIC)
    assert [slot.sizes for slot in slots] == [("s0 * 4",), ("s0 * 4",)]


def test_the_most_memory_is_what_is_reported() -> None:
    plan = memory.plan(samples.dynamic())
    assert [slot.members for slot in plan.main_slots] == [("doubled", "squares"), ("zeros",)]
    assert plan.main_arena.offsets == {}
    assert plan.main_arena.size == 40192 + 40192
