"""A call of each operator of the core ATen set, and the table of what becomes of it.

    python -m tests.lowering.core_aten > docs/operators.md

The set is what PyTorch tags as core; docs/operators.md says of each operator whether it is lowered
and tested or refused, and why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

aten = torch.ops.aten
_inf = float("inf")


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)


_random = _generator()


def f(*shape: int) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=_random)


def u(*shape: int) -> Tensor:
    """Numbers from 0.1 to 0.9."""
    return torch.rand(shape, generator=_random) * 0.8 + 0.1


def d(*shape: int) -> Tensor:
    """Different numbers, so that which is the greatest is no question."""
    count = torch.Size(shape).numel()
    return (torch.randperm(count, generator=_random).to(torch.float32) - count // 2).view(shape)


def i(high: int, *shape: int) -> Tensor:
    """Integers from 0 to below ``high``."""
    return torch.randint(0, high, shape, generator=_random)


def b(*shape: int) -> Tensor:
    """Booleans."""
    return torch.rand(shape, generator=_random) < 0.5


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of an operator; ``only`` are the results that are compared, all where it is empty."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    only: tuple[int, ...] = ()


def c(*args: Any, only: tuple[int, ...] = (), **kwargs: Any) -> Call:
    return Call(args, kwargs, only)


_UNARY_REAL = (
    "abs asinh atan ceil cos cosh erf exp expm1 floor gelu isinf isnan neg reciprocal relu round"
    " sigmoid sign sin sinh tan tanh trunc"
).split()
_UNARY_UNIT = "acos asin atanh log log10 log1p log2 rsqrt sqrt".split()
_COMPARE = "eq ge gt le lt ne".split()
_BITWISE = "bitwise_and bitwise_or bitwise_xor".split()

CALLS: Final[dict[str, Call]] = {
    **{f"{op}.default": c(f(5, 7)) for op in _UNARY_REAL},
    **{f"{op}.default": c(u(5, 7)) for op in _UNARY_UNIT},
    **{f"{op}.Tensor": c(i(3, 5, 7), i(3, 5, 7)) for op in _COMPARE},
    **{f"{op}.Scalar": c(i(3, 5, 7), 1) for op in _COMPARE},
    **{f"{op}.Tensor": c(i(90, 5, 7), i(90, 7)) for op in _BITWISE},
    **{f"{op}.Scalar": c(i(90, 5, 7), 6) for op in _BITWISE},
    "_adaptive_avg_pool2d.default": c(f(2, 3, 9, 7), [4, 3]),
    "_adaptive_avg_pool3d.default": c(f(2, 3, 5, 6, 7), [2, 3, 4]),
    "_cdist_forward.default": c(f(2, 5, 4), f(2, 6, 4), 2.0, None),
    "_embedding_bag.default": c(f(11, 4), i(11, 9), torch.tensor([0, 2, 2, 5]), only=(0,)),
    "_log_softmax.default": c(f(5, 7), 1, False),
    "_native_batch_norm_legit.default": c(
        f(4, 3, 5), f(3), f(3), f(3), u(3), False, 0.1, 1e-5, only=(0,)
    ),
    "_native_batch_norm_legit.no_stats": c(f(4, 3, 5), f(3), f(3), True, 0.1, 1e-5),
    "_native_batch_norm_legit_no_training.default": c(
        f(4, 3, 5), f(3), f(3), f(3), u(3), 0.1, 1e-5, only=(0,)
    ),
    "_pdist_forward.default": c(f(5, 4), 2.0),
    "_softmax.default": c(f(5, 7), 1, False),
    "_to_copy.default": c(f(5, 7), dtype=torch.float16),
    "acosh.default": c(u(5, 7) + 1),
    "adaptive_avg_pool1d.default": c(f(2, 3, 9), [4]),
    "add.Scalar": c(f(5, 7), 2),
    "add.Tensor": c(f(5, 7), f(7), alpha=2),
    "addmm.default": c(f(7), f(5, 4), f(4, 7)),
    "alias.default": c(f(5, 7)),
    "amax.default": c(f(5, 7), [1]),
    "amin.default": c(f(5, 7), [0], True),
    "any.default": c(b(5, 7)),
    "any.dim": c(b(5, 7), 1),
    "any.dims": c(b(5, 7, 2), [0, 2]),
    "arange.start_step": c(1, 17, 3),
    "argmax.default": c(d(5, 7), 1),
    "argmin.default": c(d(5, 7)),
    "as_strided.default": c(f(5, 7), [3, 4], [7, 1], 2),
    "atan2.default": c(f(5, 7), f(5, 7)),
    "avg_pool1d.default": c(f(2, 3, 9), [3], [2], [1]),
    "avg_pool2d.default": c(f(2, 3, 9, 8), [3, 2], [2, 2], [1, 1], True, False),
    "avg_pool2d_backward.default": c(
        f(1, 2, 3, 3), f(1, 2, 6, 6), [2, 2], [2, 2], [0, 0], False, True, None
    ),
    "avg_pool3d.default": c(f(1, 2, 5, 6, 7), [2, 2, 2], [2, 2, 2]),
    "bitwise_not.default": c(i(90, 5, 7)),
    "bmm.default": c(f(3, 16, 24), f(3, 24, 32)),
    "cat.default": c([f(2, 3), f(4, 3)], 0),
    "clamp.Tensor": c(f(5, 7), f(7) - 1, f(7) + 1),
    "clamp.default": c(f(5, 7), -0.5, 0.5),
    "clone.default": c(f(5, 7)),
    "col2im.default": c(f(1, 12, 12), [4, 5], [2, 2], [1, 1], [0, 0], [1, 1]),
    "constant_pad_nd.default": c(f(3, 5), [1, 2, 0, 1], 1.5),
    "convolution.default": c(
        f(1, 3, 8, 8), f(4, 3, 3, 3), f(4), [1, 1], [1, 1], [1, 1], False, [0, 0], 1
    ),
    "copy.default": c(f(5, 7), f(7)),
    "cumsum.default": c(f(5, 7), 1),
    "diagonal.default": c(f(5, 7), 1),
    "div.Scalar": c(f(5, 7), 3.0),
    "div.Scalar_mode": c(f(5, 7), 0.7, rounding_mode="floor"),
    "div.Tensor": c(f(5, 7), u(5, 7)),
    "div.Tensor_mode": c(i(90, 5, 7) - 45, i(9, 5, 7) + 1, rounding_mode="trunc"),
    "elu.default": c(f(5, 7), 1.2),
    "embedding.default": c(f(11, 4), i(11, 5)),
    "embedding_dense_backward.default": c(f(5, 4), i(7, 5), 7, -1, False),
    "expand.default": c(f(5, 1), [5, 7]),
    "fill.Scalar": c(f(5, 7), 3.0),
    "flip.default": c(f(5, 7), [0, 1]),
    "fmod.Scalar": c(f(5, 7), 0.7),
    "fmod.Tensor": c(f(5, 7), u(5, 7)),
    "full.default": c([5, 7], 2.5),
    "full_like.default": c(f(5, 7), 2.5),
    "gather.default": c(f(5, 7), 1, i(7, 5, 3)),
    "grid_sampler_2d.default": c(f(1, 2, 5, 6), f(1, 4, 3, 2).clamp(-1, 1), 0, 0, False),
    "hardtanh.default": c(f(5, 7)),
    "index.Tensor": c(f(5, 7), [i(5, 4), i(7, 4)]),
    "index_put.default": c(f(5, 7), [torch.tensor([0, 3, 0])], f(3, 7), True),
    "index_select.default": c(f(5, 7), 1, i(7, 4)),
    "leaky_relu.default": c(f(5, 7), 0.2),
    "logical_and.default": c(b(5, 7), b(5, 7)),
    "logical_not.default": c(b(5, 7)),
    "logical_or.default": c(b(5, 7), b(5, 7)),
    "logical_xor.default": c(b(5, 7), b(5, 7)),
    "masked_scatter.default": c(f(5, 7), b(5, 7), f(35)),
    "max.dim": c(d(5, 7), 1),
    "max_pool2d_with_indices.default": c(d(1, 2, 8, 9), [3, 3], [2, 2], [1, 1]),
    "max_pool2d_with_indices_backward.default": c(
        f(1, 1, 2, 2),
        d(1, 1, 4, 4),
        [2, 2],
        [2, 2],
        [0, 0],
        [1, 1],
        False,
        torch.tensor([[[[0, 3], [9, 15]]]]),
    ),
    "max_pool3d_with_indices.default": c(d(1, 2, 4, 6, 6), [2, 2, 2], [2, 2, 2]),
    "maximum.default": c(f(5, 7), f(7)),
    "mean.default": c(f(5, 7)),
    "mean.dim": c(f(5, 7), [1], True),
    "min.dim": c(d(5, 7), 0, True),
    "minimum.default": c(f(5, 7), f(7)),
    "mm.default": c(f(16, 24), f(24, 32)),
    "mul.Scalar": c(f(5, 7), 3.0),
    "mul.Tensor": c(f(5, 7), f(5, 1)),
    "native_dropout.default": c(f(5, 7), 0.5, False, only=(0,)),
    "native_group_norm.default": c(f(2, 6, 5), f(6), f(6), 2, 6, 5, 3, 1e-5),
    "native_layer_norm.default": c(f(5, 7), [7], f(7), f(7), 1e-5),
    "permute.default": c(f(2, 3, 4), [2, 0, 1]),
    "pow.Scalar": c(1.5, f(5, 7)),
    "pow.Tensor_Scalar": c(f(5, 7), 3),
    "pow.Tensor_Tensor": c(u(5, 7), f(5, 7)),
    "prod.default": c(u(7)),
    "prod.dim_int": c(u(5, 7), 1),
    "reflection_pad1d.default": c(f(2, 3, 5), [2, 1]),
    "reflection_pad2d.default": c(f(2, 3, 5, 6), [2, 1, 1, 0]),
    "reflection_pad3d.default": c(f(1, 2, 4, 5, 6), [1, 1, 2, 1, 1, 0]),
    "remainder.Scalar": c(f(5, 7), -0.7),
    "remainder.Tensor": c(i(90, 5, 7) - 45, i(9, 5, 7) + 1),
    "repeat.default": c(f(5, 7), [2, 1, 3]),
    "replication_pad2d.default": c(f(2, 3, 5, 6), [2, 1, 1, 0]),
    "replication_pad3d.default": c(f(1, 2, 4, 5, 6), [1, 1, 2, 1, 1, 0]),
    "scalar_tensor.default": c(2.5, dtype=torch.float32),
    "scatter.src": c(f(5, 7), 1, torch.tensor([[0, 2, 5], [6, 1, 3]]), f(3, 4)),
    "scatter.value": c(f(5, 7), 1, i(7, 5, 3), 4.0),
    "scatter_add.default": c(f(5, 7), 0, i(5, 4, 6), f(4, 7)),
    "scatter_reduce.two": c(f(5, 7), 0, i(5, 4, 7), f(4, 7), "mean", include_self=False),
    "select.int": c(f(5, 7), 1, -2),
    "select_scatter.default": c(f(5, 7), f(5), 1, 3),
    "slice.Tensor": c(f(5, 7), 1, 1, 6, 2),
    "slice_scatter.default": c(f(5, 7), f(5, 2), 1, 3, 5),
    "sort.default": c(d(5, 70), 1, True),
    "split_with_sizes.default": c(f(5, 7), [2, 5], 1),
    "squeeze.dim": c(f(5, 1, 7), 1),
    "squeeze.dims": c(f(1, 5, 1), [0, 2]),
    "sub.Scalar": c(f(5, 7), 2),
    "sub.Tensor": c(f(5, 7), f(7), alpha=2),
    "sum.dim_IntList": c(f(5, 7), [1]),
    "topk.default": c(d(5, 70), 4),
    "unsqueeze.default": c(f(5, 7), 1),
    "upsample_bilinear2d.vec": c(f(1, 2, 4, 5), [7, 9], False, None),
    "upsample_nearest2d.vec": c(f(1, 2, 4, 5), [7, 9], None),
    "var.correction": c(f(5, 7), [1], correction=1),
    "var.dim": c(f(5, 7), [1], True),
    "view.default": c(f(5, 6), [3, 10]),
    "where.self": c(b(5, 7), f(5, 7), f(7)),
}
"""Operator, without ``aten.``, to the call that tests it."""

ELSEWHERE: Final[dict[str, str]] = {
    "_local_scalar_dense.default": "a number, which stays on the GPU: test_device_numbers.py",
    "empty.memory_format": "memory that nothing has written has no value to compare",
    "empty_strided.default": "memory that nothing has written has no value to compare",
    "rand.default": "from the input `seed`: test_random.py",
    "randn.default": "from the input `seed`: test_random.py",
    "randperm.default": "from the input `seed`: test_random.py",
    "sym_numel.default": "sizes of dynamic shapes: test_dynamic.py",
    "sym_size.int": "sizes of dynamic shapes: test_dynamic.py",
    "sym_stride.int": "sizes of dynamic shapes: test_dynamic.py",
}
"""Operators that are lowered and not tested by a call, with the reason or the test."""

REFUSED: Final[dict[str, str]] = {
    "_adaptive_avg_pool2d_backward.default": "a backward pass without a kernel",
    "_fft_c2r.default": "complex numbers have no kernels",
    "_fft_r2c.default": "complex numbers have no kernels",
    "atan2.out": "an exported program has no `out=`; `atan2` is lowered",
    "convolution_backward.default": "a backward pass; models are exported for inference",
    "native_group_norm_backward.default": "a backward pass; models are exported for inference",
    "native_layer_norm_backward.default": "a backward pass; models are exported for inference",
    "nonzero.default": "the size of the result depends on values",
    "resize_.default": "changes the memory of a tensor, not its values",
    "sym_is_contiguous.default": "a question of the exporter, which has answered it",
    "sym_storage_offset.default": "a question of the exporter, which has answered it",
}
"""Operators that are not lowered, and why."""


def core() -> list[str]:
    """The operators that this PyTorch tags as core, without ``aten.``, sorted."""
    names = {
        f"{schema.name.removeprefix('aten::')}.{schema.overload_name or 'default'}"
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::")
    }
    return sorted(name for name in names if _is_core(name))


def _is_core(name: str) -> bool:
    try:
        return torch.Tag.core in operator(name).tags
    except AttributeError:  # TorchScript's own
        return False


def operator(name: str) -> Any:
    """The overload called ``name``."""
    packet, overload = name.rsplit(".", 1)
    return getattr(getattr(aten, packet), overload)


def table() -> str:
    """docs/operators.md."""
    counts = {"tested": len(CALLS), "lowered": len(ELSEWHERE), "refused": len(REFUSED)}
    lines = [
        "# Operators",
        "",
        "<!-- Written by `python -m tests.lowering.core_aten`. -->",
        "",
        "What becomes of each operator of PyTorch's core ATen set. "
        f"{counts['tested']} are lowered and tested: a test calls",
        "each, runs the kernels on the host and compares with PyTorch"
        " (`tests/lowering/test_operators.py`).",
        f"{counts['lowered']} are lowered and tested otherwise or not at all;"
        f" {counts['refused']} are refused. Operators outside the set are",
        "decomposed into these; what cannot be is refused with the place in the model's source and"
        " what to do.",
        "",
        "| operator | state | |",
        "| --- | --- | --- |",
    ]
    for name in core():
        if name in CALLS:
            state, note = "lowered and tested", ""
        elif name in ELSEWHERE:
            state, note = "lowered", ELSEWHERE[name]
        else:
            state, note = "refused", REFUSED[name]
        lines.append(f"| `aten.{name}` | {state} | {note} |")
    return "\n".join(lines) + "\n" + _REST


_REST: Final = """
## Sums at indexed places

`scatter_add`, `scatter_reduce`, `index_add`, `index_put(accumulate=True)` and `embedding_bag` add
in one order always, so that the same inputs give the same bits: each element of the result goes
over all indices and takes those that name it. That costs a comparison for each pair of a result
and an index; beyond 2^36 of them the operator is refused.

## Sorting

A row of up to 1024 elements is sorted by one block, a longer one by counting for each element how
many come before it: n² comparisons, and the order is stable. `topk` and `kthvalue` are the
beginning of a sorted row; of equal elements, the first in the row comes first.

## Numbers read from tensors

`tensor.item()` reads nothing back: the number stays on the GPU, as a tensor of no dimensions.
Arithmetic among numbers and operators that have an overload for a tensor in a number's place take
it there: `+ - * / // % **` and comparisons, `where`, `clamp`, `masked_fill`, `full`,
`add(..., alpha=)`, an index (`x[n.item()]`), and the arguments of a Triton kernel of the model's
own ([generator](generator.md#arguments)). Results are those of Python's numbers: a number takes no
part in type promotion. Other operators, sizes, `if`s, `torch._check` and results that are numbers
are refused: they would have to wait for the GPU.

## Branches and loops

`torch.cond`, and `while_loop` and `map` of `torch._higher_order_ops`, are decided about on the
GPU ([generator](generator.md#control-flow)). An `if` or `while` of Python's is what it was at
export. `scan` and `associative_scan` are refused.

## Random numbers

A library has no random state. A model that draws random numbers (`torch.rand`, `randn`,
`randint`, `randperm`, `bernoulli`, `multinomial`, dropout in training mode) has an input called
`seed`, an `int64` tensor of one element; the numbers are a function of it alone, the same on
every GPU. They are not those of `torch.manual_seed`: draw `i` of `n` uses Philox-4x32-10 with the
key `seed * n + i`.

## What cannot be lowered

All of it is reported at once. `wrapgen check MODEL.pt2 --target sm_90` says for each operator
why, at which lines of the model, how often, and what to do; with `--json` as data:

```json
[
  {
    "schema_version": 2,
    "target": "sm_90",
    "operators": [
      {
        "op": "aten.nonzero.default",
        "reason": "...",
        "advice": "...",
        "count": 1,
        "places": [
          {
            "node": "nonzero", "module": "head",
            "file": "model.py", "function": "forward", "code": "..."
          }
        ]
      }
    ]
  }
]
```

`wrapgen lower` ends with the same text.
"""


if __name__ == "__main__":
    print(table(), end="")
