"""Memory plans: what is needed at the same time is apart, aligned, and inside the allocation."""

from __future__ import annotations

import dataclasses
import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.codegen import samples
from wrapgen.codegen import memory
from wrapgen.codegen.memory import ALIGNMENT, Lifetime
from wrapgen.program import While


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


def test_lifetimes_in_branches_and_loops() -> None:
    """Steps are counted as ``walk`` goes through them. What a loop names only in its condition, or
    only in its body, lives there as elsewhere; all else as long as the loop, [7] to [15]."""
    procedure = samples.control().main
    found = {block.name: (block.first, block.last) for block in memory.lifetimes(procedure)}
    assert found == {
        "given": (0, 4),
        "gt": (1, 2),
        "y": (3, 16),
        "minus": (4, 5),
        "i": (6, 17),
        "lt": (8, 8),
        "double": (9, 13),
        "first": (10, 11),
        "next": (14, 15),
    }


def test_what_a_loop_reads_lives_until_it_ends() -> None:
    """Though a later step of its body could have the memory, the next round needs it."""
    program = samples.control()
    loop = program.main.steps[4]
    assert isinstance(loop, While)
    read = samples.launch(
        program.kernels[4],
        (1, 1, 1),
        samples.reads("arena", "given"),
        samples.writes("arena", "minus"),
        samples.ScalarArg(dtype=samples.F32, value=(1.0).hex()),
    )
    changed = dataclasses.replace(loop, body=(read, *loop.body))
    steps = (*program.main.steps[:4], changed, *program.main.steps[5:])
    main = dataclasses.replace(program.main, steps=steps)
    found = {block.name: (block.first, block.last) for block in memory.lifetimes(main)}
    assert found["given"] == (0, 16)
    assert found["minus"] == (4, 16)  # named outside of the loop, too


def test_plan_of_a_program() -> None:
    plan = memory.plan(samples.conv_chain())
    assert plan.weights == 256 + 512  # fc.bias and fc.weight
    assert plan.staging == 2 * (256 + 256 + 4608)  # of each layer; nothing reads "steps"
    assert plan.constants.offsets == {"layers.0.folded": 0, "layers.1.folded": 4864}
    assert plan.main_arena.offsets == {"buf0": 0, "buf1": 25088, "buf2": 0}
    assert plan.main_arena.size == 50176
    assert plan.folding_arena.size == 0


def test_a_temporary_that_no_step_names_takes_no_memory() -> None:
    program = samples.elementwise()
    assert memory.plan(program).main_arena == memory.Plan({}, 0)
