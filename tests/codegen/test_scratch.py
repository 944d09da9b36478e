"""Launches of kernels that need scratch memory get a temporary of their own."""

from __future__ import annotations

import dataclasses

from tests.codegen import samples
from wrapgen import expression
from wrapgen.codegen import memory, scratch
from wrapgen.program import Launch, PointerArg, validate


def test_nothing_changes_where_none_is_needed() -> None:
    program = samples.launches()
    assert scratch.provide(program, {}) is program
    assert scratch.provide(program, {kernel.name: 0 for kernel in program.kernels}) is program


def test_each_launch_has_its_own() -> None:
    program = samples.launches()
    pairs = next(kernel for kernel in program.kernels if kernel.num_ctas == 2)
    provided = scratch.provide(program, {pairs.name: 256})
    validate(provided, where="provided")
    [buffer] = [b for b in provided.main.buffers if b not in program.main.buffers]
    # 4 x 2 x 3 programs of 2 blocks.
    assert buffer.nbytes == 48 * 256
    [last] = [p for p in provided.kernel(pairs.name).params if p not in pairs.params]
    assert (last.name, last.kind) == ("global_scratch", "pointer")
    [launch] = [s for s in provided.main.steps if isinstance(s, Launch) and s.kernel == pairs.name]
    arg = launch.args[-1]
    assert isinstance(arg, PointerArg) and arg.ref.name == buffer.name
    assert arg.access == "write"


def test_names_that_are_taken() -> None:
    program = samples.launches()
    tiles = next(kernel for kernel in program.kernels if kernel.name.startswith("tiles"))
    taken = dataclasses.replace(program.main.buffers[0], name="scratch4")
    own = dataclasses.replace(tiles.params[-1], name="global_scratch")
    changed = dataclasses.replace(tiles, params=(*tiles.params[:-1], own))
    program = dataclasses.replace(
        program,
        kernels=tuple(changed if k is tiles else k for k in program.kernels),
        main=dataclasses.replace(program.main, buffers=(*program.main.buffers, taken)),
    )
    provided = scratch.provide(program, {tiles.name: 128})
    assert provided.main.buffers[-1].name not in {b.name for b in program.main.buffers}
    names = [param.name for param in provided.kernel(tiles.name).params]
    assert len(set(names)) == len(names)


def test_a_grid_that_depends_on_the_inputs() -> None:
    program = samples.dynamic()
    scale = next(kernel for kernel in program.kernels if kernel.name.startswith("scale"))
    provided = scratch.provide(program, {scale.name: 128})
    validate(provided, where="provided")
    [first, *_] = [b for b in provided.main.buffers if b not in program.main.buffers]
    symbols = {"s0": 64, "s1": 100, "s2": 0}
    assert expression.evaluate(first.nbytes, symbols) == (64 * 100 + 127) // 128 * 128
    # It is planned with the others.
    plan = memory.plan(provided)
    assert any(first.name in slot.members for slot in plan.main_slots)
