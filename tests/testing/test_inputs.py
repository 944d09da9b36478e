"""Sizes, ranges and values of inputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from aoti.testing import inputs
from wrapgen.dtype import DType
from wrapgen.program import Constraint, Procedure, Program, Symbol, TensorSpec


def tensor(name: str, dtype: str, shape: tuple[int | str, ...]) -> TensorSpec:
    strides = [" * ".join(["1", *map(str, shape[i + 1 :])]) for i in range(len(shape))]
    return TensorSpec(
        name=name,
        path="args[0]",
        dtype=DType(dtype),
        shape=shape,
        strides=tuple(strides),
    )


def program(*specs: TensorSpec, symbols: tuple[Symbol, ...] = ()) -> Program:
    nothing = Procedure(buffers=(), steps=())
    return Program(
        schema_version=2,
        target="sm_90",
        num_shards=1,
        symbols=symbols,
        inputs=specs,
        outputs=(),
        weights=(),
        constants=(),
        kernels=(),
        folding=nothing,
        main=nothing,
        fixed=(),
        constraints=(),
    )


BATCH = Symbol(name="batch", minimum=1, maximum=16)
TOKENS = Symbol(name="tokens", minimum=8, maximum=512)


def test_static_shapes_are_one_case() -> None:
    assert inputs.sweep(program(), {}) == [{}]
    assert inputs.combinations(program(), {}, 3) == [({}, 0), ({}, 1), ({}, 2)]


def test_least_odd_large_and_back() -> None:
    found = inputs.sweep(program(symbols=(BATCH, TOKENS)), {})
    assert found == [
        {"batch": 1, "tokens": 8},
        {"batch": 16, "tokens": 37},
        {"batch": 1, "tokens": 64},
        {"batch": 1, "tokens": 8},
    ]


def test_sizes_as_asked() -> None:
    found = inputs.sweep(program(symbols=(BATCH, TOKENS)), {"tokens": [512], "batch": [3, 5]})
    assert found == [
        {"batch": 3, "tokens": 512},
        {"batch": 5, "tokens": 512},
        {"batch": 3, "tokens": 512},
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"batch": [17]}, "batch = 17 is not in its range, 1 to 16"),
        ({"rows": [1]}, "there is no symbol 'rows'; the program's are: batch"),
    ],
)
def test_sizes_that_cannot_be(asked: dict[str, list[int]], message: str) -> None:
    with pytest.raises(inputs.InputsError, match=message):
        inputs.sweep(program(symbols=(BATCH,)), asked)


def test_constraints_leave_sizes_out() -> None:
    constraint = Constraint(condition="batch % 8 == 0", text="x.shape[0] % 8 == 0")
    constrained = dataclasses.replace(program(symbols=(BATCH,)), constraints=(constraint,))
    assert inputs.sweep(constrained, {"batch": [1, 8, 16]}) == [
        {"batch": 8},
        {"batch": 16},
        {"batch": 8},
    ]
    with pytest.raises(inputs.InputsError, match=r"x.shape\[0\] % 8 == 0"):
        inputs.sweep(constrained, {"batch": [1]})


@pytest.mark.parametrize("dtype", [dtype.value for dtype in DType])
def test_values_and_bytes(dtype: str) -> None:
    spec = tensor("x", dtype, ("batch", 5))
    limits = inputs.Range(3, 7, "") if "int" in dtype else None
    first, again = (inputs.generate(spec, {"batch": 4}, 0, limits) for _ in range(2))
    other = inputs.generate(spec, {"batch": 4}, 1, limits)
    assert str(first.dtype) == f"torch.{dtype}"
    assert first.shape == (4, 5)
    data = inputs.to_bytes(first)
    assert data == inputs.to_bytes(again)
    assert data != inputs.to_bytes(other)
    assert len(data) == inputs.nbytes(spec, {"batch": 4})
    assert inputs.to_bytes(inputs.from_bytes(data, spec, {"batch": 4})) == data
    if limits:
        assert set(first.flatten().tolist()) == {3, 4, 5, 6}


def test_values_do_not_depend_on_other_inputs() -> None:
    x, y = tensor("x", "float32", (3,)), tensor("y", "float32", (3,))
    a, b = (inputs.generate(spec, {}, 0, None) for spec in (x, y))
    assert not torch.equal(a, b)


def test_strides_and_gaps() -> None:
    spec = dataclasses.replace(tensor("x", "float32", (2, 3)), strides=(8, 2))
    value = inputs.generate(spec, {}, 0, None)
    assert value.stride() == (8, 2)
    data = inputs.to_bytes(value)
    assert len(data) == 4 * 13
    assert data[4:8] == bytes(4)
    assert torch.equal(inputs.from_bytes(data, spec, {}), value)


def test_empty() -> None:
    spec = tensor("x", "int64", (0, 3))
    value = inputs.generate(spec, {}, 0, inputs.Range(0, 2, ""))
    assert inputs.to_bytes(value) == b""
    assert inputs.from_bytes(b"", spec, {}).shape == (0, 3)


class Indexed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(11, 4)

    def forward(
        self, ids: torch.Tensor, kinds: torch.Tensor, mask: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        return self.words(ids[:, :2].to(torch.int64)) * kinds[0] * mask[0] + x


def test_ranges() -> None:
    example = (
        torch.zeros(2, 3, dtype=torch.int32),
        torch.tensor([3, 9]),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(4),
    )
    exported = torch.export.export(Indexed(), example)
    specs = program(
        tensor("ids", "int32", (2, 3)),
        tensor("kinds", "int64", (2,)),
        tensor("mask", "int64", (2,)),
        tensor("x", "float32", (4,)),
    )
    found = inputs.ranges(specs, exported, {})
    assert (found["ids"].low, found["ids"].high) == (0, 11)
    assert (found["kinds"].low, found["kinds"].high) == (3, 10)
    assert (found["mask"].low, found["mask"].high) == (0, 2)
    assert "x" not in found
    asked = inputs.ranges(specs, exported, {"ids": "2:5", "x": "-1:1"})
    assert str(asked["ids"]) == "2:5 (as asked)"
    value = inputs.generate(specs.inputs[3], {}, 0, asked["x"])  # type: ignore[arg-type]
    assert -1 <= float(value.min()) <= float(value.max()) < 1


@pytest.mark.parametrize("text", ["5", "5:5", "a:b", "7:3"])
def test_malformed_ranges(text: str) -> None:
    with pytest.raises(inputs.InputsError, match="is no range such as"):
        inputs.parse_ranges({"x": text}, program(tensor("x", "int64", ())))


def test_range_of_an_unknown_input() -> None:
    with pytest.raises(inputs.InputsError, match="there is no input 'y'; the model's are: x"):
        inputs.parse_ranges({"y": "0:1"}, program(tensor("x", "int64", ())))
