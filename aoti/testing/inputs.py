"""Seeded random inputs for a program: sizes, ranges, values."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from aoti.testing import sizes
from wrapgen import expression
from wrapgen.dtype import INFO
from wrapgen.program import Dim, Program, TensorSpec

aten = torch.ops.aten

InputsError = sizes.InputsError


@dataclasses.dataclass(frozen=True)
class Range:
    """Values are drawn from ``low`` to ``high``, exclusive; ``why`` says who says so."""

    low: float
    high: float
    why: str

    def __str__(self) -> str:
        return f"{self.low:g}:{self.high:g} ({self.why})"


def evaluate(dims: Sequence[Dim], symbols: Mapping[str, int]) -> tuple[int, ...]:
    """Sizes or strides as integers."""
    return tuple(expression.evaluate(dim, symbols) for dim in dims)


def sweep(program: Program, asked: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """Lists the values of the symbols to test, as ``sizes.combinations`` does.

    The first comes once more at the end: going back to an earlier size is a case of its own.
    """
    found = sizes.combinations(program.symbols, program.constraints, asked)
    return found + found[:1] if len(found) > 1 else found


def parse_ranges(asked: Mapping[str, str], program: Program) -> dict[str, Range]:
    """Reads ``{"input_ids": "0:30522"}``; raises ``InputsError`` for anything else."""
    names = [spec.name for spec in program.inputs]
    found = {}
    for name, text in asked.items():
        low, colon, high = text.partition(":")
        try:
            bounds = float(low), float(high)
        except ValueError:
            bounds = (0.0, 0.0)
        if not colon or not bounds[0] < bounds[1]:
            raise InputsError(f'input_ranges: {name}: "{text}" is no range such as "0:30522"')
        if name not in names:
            raise InputsError(
                f"input_ranges: there is no input {name!r}; the model's are: {', '.join(names)}"
            )
        found[name] = Range(*bounds, "as asked")
    return found


_INDEXED: Final[dict[Any, tuple[int, int, int | None]]] = {
    # operation: (argument with the indices, indexed tensor, argument with the dimension)
    aten.embedding.default: (1, 0, None),
    aten.embedding_bag.default: (1, 0, None),
    aten.embedding_bag.padding_idx: (1, 0, None),
    aten.index_select.default: (2, 0, 1),
    aten.gather.default: (2, 0, 1),
}

_SAME_VALUES: Final = {
    aten.view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.slice.Tensor,
    aten.select.int,
    aten.expand.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.to.dtype,
    aten.to.device,
    aten._to_copy.default,
    aten.permute.default,
    aten.transpose.int,
    aten.flatten.using_ints,
}


def ranges(
    program: Program, exported: ExportedProgram, asked: Mapping[str, str]
) -> dict[str, Range]:
    """Says what values integer inputs are drawn from.

    In this order: what is ``asked`` for; the number of rows where the input indexes a tensor; the
    range of the archive's own example; 0 and 1.
    """
    found = parse_ranges(asked, program)
    examples = _examples(exported)
    for spec in program.inputs:
        if not isinstance(spec, TensorSpec) or spec.name in found:
            continue
        if spec.dtype.value.startswith(("float", "bfloat", "bool")):
            continue
        rows = _rows(exported, spec.name)
        example = examples.get(spec.name)
        if rows is not None:
            found[spec.name] = Range(0, rows, "the rows it indexes")
        elif example is not None and example.numel() and int(example.max()) > int(example.min()):
            low, high = int(example.min()), int(example.max())
            found[spec.name] = Range(low, high + 1, "as in the archive's example")
        else:
            found[spec.name] = Range(0, 2, "nothing says more; see input_ranges")
    return found


def _examples(exported: ExportedProgram) -> dict[str, torch.Tensor]:
    if exported.example_inputs is None:
        return {}
    leaves = torch.utils._pytree.tree_leaves(exported.example_inputs)
    specs = [
        spec for spec in exported.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT
    ]
    return {
        spec.arg.name: leaf
        for spec, leaf in zip(specs, leaves, strict=False)
        if isinstance(leaf, torch.Tensor)
    }


def _rows(exported: ExportedProgram, name: str) -> int | None:
    """The least extent that an input's values index, directly or through views and casts."""
    bounds: list[int] = []
    pending = [node for node in exported.graph.find_nodes(op="placeholder") if node.name == name]
    seen: set[Node] = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        for user in node.users:
            if user.target in _SAME_VALUES:
                pending.append(user)
            elif user.target in _INDEXED:
                indices, table, dimension = _INDEXED[user.target]
                if user.args[indices] is node:
                    dim = 0 if dimension is None else user.args[dimension]
                    bounds.append(user.args[table].meta["val"].shape[dim])
    static = [bound for bound in bounds if isinstance(bound, int)]
    return min(static) if static else None


def generate(
    spec: TensorSpec, symbols: Mapping[str, int], seed: int, limits: Range | None
) -> torch.Tensor:
    """Draws a tensor of the spec's dtype, shape and strides, on the CPU.

    Floating point: normal, mean 0 and variance 1, rounded to the dtype; uniform where a range is
    asked for. Integers: uniform within the range. Bool: 0 or 1. Gaps between elements are zero.
    The values depend on the seed and the input's name, not on other inputs.
    """
    shape = evaluate(spec.shape, symbols)
    strides = evaluate(spec.strides, symbols)
    dtype = getattr(torch, spec.dtype.value)
    digest = hashlib.sha256(f"{seed}:{spec.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    if dtype is torch.bool:
        values = torch.randint(0, 2, shape, generator=generator)
    elif dtype.is_floating_point:
        if limits is None:
            values = torch.randn(shape, generator=generator)
        else:
            values = torch.rand(shape, generator=generator)
            values = values * (limits.high - limits.low) + limits.low
    else:
        assert limits is not None, spec.name
        values = torch.randint(int(limits.low), int(limits.high), shape, generator=generator)
    storage = torch.zeros(_extent(shape, strides), dtype=dtype)
    result = torch.as_strided(storage, shape, strides)
    result.copy_(values.to(dtype))
    return result


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))


def to_bytes(tensor: torch.Tensor) -> bytes:
    """The memory of a tensor, from its first to one past its last element, gaps included."""
    extent = _extent(tensor.shape, tensor.stride())
    flat = torch.as_strided(tensor, (extent,), (1,), tensor.storage_offset()).contiguous()
    return flat.view(torch.uint8).numpy().tobytes() if extent else b""


def from_bytes(data: bytes, spec: TensorSpec, symbols: Mapping[str, int]) -> torch.Tensor:
    """The inverse of ``to_bytes``, with the spec's dtype, shape and strides."""
    dtype = getattr(torch, spec.dtype.value)
    shape = evaluate(spec.shape, symbols)
    if not data:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype)
    return torch.as_strided(flat, shape, evaluate(spec.strides, symbols))


def nbytes(spec: TensorSpec, symbols: Mapping[str, int]) -> int:
    """Bytes from a tensor's first to one past its last element."""
    shape, strides = evaluate(spec.shape, symbols), evaluate(spec.strides, symbols)
    return _extent(shape, strides) * INFO[spec.dtype].itemsize


def describe(symbols: Mapping[str, int]) -> str:
    """Such as ``batch=3, tokens=37``; empty where shapes are static."""
    return ", ".join(f"{name}={value}" for name, value in symbols.items())


def combinations(program: Program, asked: Mapping[str, Sequence[int]], seeds: int) -> list[Any]:
    """Lists (symbols, seed): every seed at the first sizes, one at each of the others."""
    first, *others = sweep(program, asked)
    found = [(first, seed) for seed in range(seeds)]
    return found + list(zip(others, itertools.repeat(0), strict=False))
