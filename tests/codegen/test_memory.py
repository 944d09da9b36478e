"""Memory plans: what is needed at the same time is apart, aligned, and inside the allocation."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.codegen import samples
from wrapgen.codegen import memory
from wrapgen.codegen.memory import ALIGNMENT, Lifetime


@st.composite
def lifetimes(draw: st.DrawFn) -> list[Lifetime]:
    count = draw(st.integers(0, 30))
    result = []
    for i in range(count):
        first = draw(st.integers(0, 20))
        last = draw(st.integers(first, 20))
        nbytes = draw(st.one_of(st.integers(0, 5000), st.sampled_from([0, 1, 255, 256, 257, 512])))
        result.append(Lifetime(f"b{i}", nbytes, first, last))
    return result


@given(lifetimes())
def test_temporaries_alive_at_once_never_overlap(blocks: list[Lifetime]) -> None:
    plan = memory.share(blocks)
    assert list(plan.offsets) == [block.name for block in blocks]
    for block in blocks:
        offset = plan.offsets[block.name]
        assert offset % ALIGNMENT == 0
        assert 0 <= offset <= offset + block.nbytes <= plan.size
    for a, b in itertools.combinations(blocks, 2):
        if a.first <= b.last and b.first <= a.last and a.nbytes and b.nbytes:
            x, y = plan.offsets[a.name], plan.offsets[b.name]
            assert x + a.nbytes <= y or y + b.nbytes <= x, (a, b, plan)


@given(lifetimes(), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_of_the_blocks(
    blocks: list[Lifetime], random: object
) -> None:
    shuffled = blocks[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert memory.share(blocks).offsets == memory.share(shuffled).offsets


@given(lifetimes())
def test_sharing_never_takes_more_than_no_sharing(blocks: list[Lifetime]) -> None:
    plan = memory.share(blocks)
    assert plan.size <= memory.pack((block.name, block.nbytes) for block in blocks).size
    steps = range(21)
    alive = [
        sum(memory.align(b.nbytes) for b in blocks if b.first <= step <= b.last) for step in steps
    ]
    assert plan.size >= max(alive)


def test_a_chain_needs_two_buffers() -> None:
    chain = [Lifetime(f"b{i}", 1000, i, i + 1) for i in range(100)]
    assert memory.share(chain).size == 2048


def test_the_smallest_gap_that_fits_is_taken() -> None:
    blocks = [
        Lifetime("a", 8192, 0, 1),
        Lifetime("fence1", 4096, 0, 9),
        Lifetime("b", 3072, 0, 1),
        Lifetime("fence2", 2048, 0, 9),
        Lifetime("late", 1000, 5, 6),
    ]
    plan = memory.share(blocks)
    assert plan.offsets == {"a": 0, "fence1": 8192, "b": 12288, "fence2": 15360, "late": 12288}


def test_lifetimes_of_a_procedure() -> None:
    """From the first step that names a temporary to the last, whether it reads or writes."""
    procedure = samples.conv_chain().main
    found = {block.name: (block.first, block.last) for block in memory.lifetimes(procedure)}
    assert found == {"buf0": (0, 2), "buf1": (1, 3), "buf2": (3, 4)}


def test_plan_of_a_program() -> None:
    plan = memory.plan(samples.conv_chain())
    assert plan.weights.offsets == {"fc.bias": 0, "fc.weight": 256}
    assert plan.weights.size == 768
    assert list(plan.staging.offsets) == [
        *(f"layers.{i}.{name}" for i in (0, 1) for name in ("bn.bias", "bn.weight", "conv.weight")),
        "steps",
    ]
    assert plan.constants.offsets == {"layers.0.folded": 0, "layers.1.folded": 4864}
    assert plan.main_arena.offsets == {"buf0": 0, "buf1": 25088, "buf2": 0}
    assert plan.main_arena.size == 50176
    assert plan.folding_arena.size == 0


def test_a_temporary_that_no_step_names_takes_no_memory() -> None:
    program = samples.elementwise()
    assert memory.plan(program).main_arena == memory.Plan({}, 0)
