"""Branches and loops in program files."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest

from tests.codegen import samples
from wrapgen import program as p
from wrapgen import set_condition

LESS = samples.control().kernels[2].name


def edited(path: str, value: Any) -> str:
    """The sample with a value changed, ``main.steps[0].byte``; without it where that is None."""
    document = json.loads(p.dumps(samples.control()))
    *parents, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", path)]
    target: Any = document
    for part in parents:
        target = target[part]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return json.dumps(document)


def test_round_trip() -> None:
    text = p.dumps(samples.control())
    assert p.loads(text) == samples.control()
    assert p.dumps(p.loads(text)) == text


def test_steps_are_walked_as_they_are_read() -> None:
    kinds = [step.kind for step in p.walk(samples.control().main.steps)]
    assert kinds == [
        *("copy", "launch"),
        *("if", "launch", "launch", "launch"),
        "fill",
        *("while", "launch", "launch", "launch", "if", "launch", "copy", "launch", "copy"),
        *("copy", "copy"),
    ]


INSIDE = "in each run; a branch or loop names none: copy it from or to a temporary outside"


@pytest.mark.parametrize(
    ("path", "value", "faults"),
    [
        (
            "main.steps[2].then[0].args[0].ref",
            {"space": "input", "name": "x"},
            [
                "main.steps[2].then[0].args[0].ref: input 'x' is the caller's, and has another "
                f"address {INSIDE}"
            ],
        ),
        (
            "main.steps[2].predicate",
            {"space": "input", "name": "x"},
            [
                "main.steps[2].predicate: input 'x' is the caller's, and has another address "
                f"{INSIDE}"
            ],
        ),
        (
            "main.steps[4].body[3].dst",
            {"space": "output", "name": "y"},
            [
                "main.steps[4].body[3].dst: output 'y' is the caller's, and has another address "
                f"{INSIDE}"
            ],
        ),
        # What one branch alone has written has no value afterwards.
        (
            "main.steps[2].otherwise",
            [],
            ["main.steps[4].body[0].args[0].ref: arena 'y' is read before any step wrote it"]
            + ["main.steps[5].src: arena 'y' is read before any step wrote it"],
        ),
        # Nor what the body of a loop has: it may not have been executed.
        (
            "main.steps[5].src.name",
            "double",
            ["main.steps[5].src: arena 'double' is read before any step wrote it"],
        ),
        (
            "main.steps[4].condition",
            [],
            ["main.steps[4].predicate: arena 'lt' is read before any step wrote it"],
        ),
        (
            "main.steps[3]",
            None,
            ["main.steps[3].condition[0].args[0].ref: arena 'i' is read before any step wrote it"],
        ),
        (
            "main.steps[2].dtype",
            "float32",
            [
                "main.steps[2].dtype: a predicate is float32, expected one of bool, uint8, int8, "
                "int16, int32, int64",
                "main.steps[2].predicate: bytes 0..4 is outside arena 'gt', which has 1 bytes",
            ],
        ),
        (
            "main.steps[4].predicate.offset",
            1,
            ["main.steps[4].predicate: bytes 1..2 is outside arena 'lt', which has 1 bytes"],
        ),
        (
            "main.steps[2].kernel",
            "nothing",
            ["main.steps[2].kernel: there is no kernel called 'nothing'"],
        ),
        (
            "main.steps[4].kernel",
            LESS,
            [f"main.steps[4].kernel: {LESS!r} is not {set_condition.NAME}, which sets conditions"],
        ),
    ],
)
def test_what_cannot_be(path: str, value: Any, faults: list[str]) -> None:
    with pytest.raises(p.ProgramError) as caught:
        p.loads(edited(path, value))
    assert str(caught.value).splitlines() == [f"program: {fault}" for fault in faults]


def test_faults_of_types_have_the_place() -> None:
    text = edited("main.steps[4].body[2].then[0].grid", [1, 1])
    with pytest.raises(p.ProgramError, match=r"main\.steps\[4\]\.body\[2\]\.then\[0\]\.grid"):
        p.loads(text)


def test_sizes_inside_are_checked_at_values_of_the_symbols() -> None:
    """As those outside: a buffer that is too small for the largest input."""
    program = samples.dynamic()
    first, *others = program.main.steps
    setter = set_condition.kernel(program.num_shards)
    gt = samples.buffer("gt", samples.DType.BOOL)
    ref = p.Ref(space="arena", name="gt")
    steps: tuple[p.Step, ...] = (
        first,
        p.Fill(dst=ref, byte=1, nbytes=1, sources=()),
        p.If(
            kernel=setter.name,
            predicate=ref,
            dtype=samples.DType.BOOL,
            then=(
                p.Fill(
                    dst=p.Ref(space="arena", name="doubled"),
                    byte=0,
                    nbytes="s0 * s1 * 5",
                    sources=(),
                ),
            ),
            otherwise=(),
            sources=(),
        ),
        *others,
    )
    main = dataclasses.replace(program.main, steps=steps, buffers=(*program.main.buffers, gt))
    with pytest.raises(p.ProgramError, match=r"main\.steps\[2\]\.then\[0\]\.dst: bytes 0\.\.5"):
        p.dumps(dataclasses.replace(program, main=main, kernels=(*program.kernels, setter)))
