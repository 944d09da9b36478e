"""Decompositions of operations that Inductor would leave to a library.

Each is a function of tensors in terms of operations that have kernels, with the signature of the
operation it replaces, and computes what PyTorch's documentation says of it. None adds in an order
that depends on timing: sums are reductions, never atomic additions.
"""

# ruff: noqa: A002, ARG001, D417  (the signatures are PyTorch's)

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

aten = torch.ops.aten

SORTED_IN_BLOCK: Final = 1024
"""Elements. A row up to here is sorted by one block (a bitonic network that Inductor generates), a
longer one by counting: such a network's code grows with n log² n, and its row has to fit into the
registers of one block."""


def sort(self: torch.Tensor, dim: int = -1, descending: bool = False) -> Any:
    """``aten.sort`` of long rows, stable; ``NotImplemented`` leaves short ones to Inductor."""
    return _sort(self, dim, descending)


def sort_stable(
    self: torch.Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> Any:
    """``aten.sort.stable`` of long rows."""
    return _sort(self, dim, descending)


def _sort(self: torch.Tensor, dim: int, descending: bool) -> Any:
    if self.dim() == 0 or statically_known_true(self.shape[dim] <= SORTED_IN_BLOCK):
        return NotImplemented
    rank = _rank(self, dim, descending)
    positions = _positions(self, dim)
    values = torch.zeros_like(self).scatter(dim, rank, self)
    return values, torch.zeros_like(rank).scatter(dim, rank, positions)


def topk(
    self: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """``aten.topk``: the first ``k`` of the sorted row; of equal elements the first in it."""
    if self.dim() == 0:
        return self.clone(), torch.zeros((), dtype=torch.int64, device=self.device)
    values, indices = aten.sort.stable(self, stable=True, dim=dim, descending=largest)
    return values.narrow(dim, 0, k).clone(), indices.narrow(dim, 0, k).clone()


def kthvalue(
    self: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """``aten.kthvalue``: the element of rank ``k``, counted from 1, in ascending order."""
    if self.dim() == 0:
        return self.clone(), torch.zeros((), dtype=torch.int64, device=self.device)
    values, indices = aten.sort.stable(self, stable=True, dim=dim, descending=False)
    values, indices = values.narrow(dim, k - 1, 1), indices.narrow(dim, k - 1, 1)
    if keepdim:
        return values.clone(), indices.clone()
    return values.squeeze(dim).clone(), indices.squeeze(dim).clone()


def _rank(self: torch.Tensor, dim: int, descending: bool) -> torch.Tensor:
    """Where each element goes: how many others come before it in the stable order.

    Compares each with each, n² comparisons a row in one reduction that stores nothing between.
    NaN counts as the greatest number, as ``torch.sort`` documents.
    """
    dim = dim % self.dim()
    row = self.unsqueeze(dim + 1)  # the element that is ranked, along dim
    other = self.unsqueeze(dim)  # those it is compared with, along dim + 1
    if descending:
        before, equal = _less(row, other), row == other
    else:
        before, equal = _less(other, row), row == other
    if self.dtype.is_floating_point:
        equal = equal | (row.isnan() & other.isnan())
    size = self.shape[dim]
    index = torch.arange(size, device=self.device)
    shape = [1] * (self.dim() + 1)
    shape[dim], shape[dim + 1] = size, 1
    mine = index.view(shape)
    shape[dim], shape[dim + 1] = 1, size
    earlier = index.view(shape) < mine
    return (before | (equal & earlier)).sum(dim + 1)


def _less(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if not a.dtype.is_floating_point:
        return a < b
    return (a < b) | (b.isnan() & ~a.isnan())


def _positions(self: torch.Tensor, dim: int) -> torch.Tensor:
    shape = [1] * self.dim()
    shape[dim] = self.shape[dim]
    return torch.arange(self.shape[dim], device=self.device).view(shape).expand(self.shape)


def scatter(
    self: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor | float
) -> torch.Tensor:
    """``aten.scatter.src`` and ``.value``, as an assignment to indexed places."""
    if self.dim() == 0:
        return self.unsqueeze(0).scatter(0, index.reshape(1), src).squeeze(0)
    grid = _grid(index, dim % self.dim())
    if isinstance(src, torch.Tensor):
        values = src if src.dim() else src.unsqueeze(0)
        for axis, size in enumerate(index.shape):
            values = values.narrow(axis, 0, size)
    else:
        values = torch.full((), src, dtype=self.dtype, device=self.device)
    return aten.index_put.default(self, grid, values.to(self.dtype))


def _grid(index: torch.Tensor, dim: int) -> list[torch.Tensor]:
    """Indices, one a dimension, of the places that ``index`` names along ``dim``."""
    grid = []
    for axis, size in enumerate(index.shape):
        shape = [1] * index.dim()
        shape[axis] = size
        place = torch.arange(size, device=index.device).view(shape)
        grid.append(index if axis == dim else place)
    return grid


_DENSE_LIMIT: Final = 1 << 36
"""Comparisons. Beyond, an operator that compares all with all is refused: it would take tenths of a
second on a large GPU."""


def scatter_add(
    self: torch.Tensor, dim: int, index: torch.Tensor, src: torch.Tensor
) -> torch.Tensor:
    """``aten.scatter_add``."""
    return scatter_reduce(self, dim, index, src, "sum")


def scatter_with(
    self: torch.Tensor, dim: int, index: torch.Tensor, src: Any, *, reduce: str
) -> torch.Tensor:
    """``aten.scatter.reduce`` and ``.value_reduce``: ``add`` or ``multiply``."""
    if not isinstance(src, torch.Tensor):
        src = torch.full(index.shape, src, dtype=self.dtype, device=self.device)
    return scatter_reduce(self, dim, index, src, {"add": "sum", "multiply": "prod"}[reduce])


def scatter_reduce(
    self: torch.Tensor,
    dim: int,
    index: torch.Tensor,
    src: torch.Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Any:
    """``aten.scatter_reduce.two`` with no atomic operation: each element of the result goes over
    all indices along ``dim`` and takes those that name it, in their order.
    """
    if self.dim() == 0:
        one = scatter_reduce(
            self.view(1), 0, index.view(1), src.view(1), reduce, include_self=include_self
        )
        return one.view(())
    if not _dense(index.numel() * self.shape[dim]):
        return NotImplemented
    dim = dim % self.dim()
    region, values = self, src
    for axis, size in enumerate(index.shape):
        values = values.narrow(axis, 0, size)
        if axis != dim:
            region = region.narrow(axis, 0, size)
    shape = [1] * (self.dim() + 1)
    shape[dim] = self.shape[dim]
    place = torch.arange(self.shape[dim], device=self.device).view(shape)
    mask = index.unsqueeze(dim) == place
    result = _gathered(region, mask, values.unsqueeze(dim), dim + 1, reduce, include_self)
    for axis in reversed(range(self.dim())):
        size = self.shape[axis] if axis == dim else index.shape[axis]
        if not statically_known_true(size == self.shape[axis]):
            # Put the region back, one dimension after the other.
            whole = self
            for outer in range(axis):
                inner = self.shape[outer] if outer == dim else index.shape[outer]
                whole = whole.narrow(outer, 0, inner)
            rest = whole.narrow(axis, size, self.shape[axis] - size)
            result = torch.cat([result, rest], axis)
    return result


def _gathered(
    old: torch.Tensor,
    mask: torch.Tensor,
    values: torch.Tensor,
    axis: int,
    reduce: str,
    include_self: bool,
) -> torch.Tensor:
    """Reduces ``values`` where ``mask`` holds, along ``axis``, and combines that with ``old``."""
    dtype = old.dtype
    half = dtype in (torch.float16, torch.bfloat16)
    wide = torch.float32 if half else dtype
    values, start = values.to(wide), old.to(wide)
    count = mask.sum(axis)
    if reduce in ("sum", "mean"):
        result = torch.where(mask, values, 0).sum(axis).to(wide)
        if include_self:
            result = result + start
        if reduce == "mean":
            total = (count + 1 if include_self else count.clamp(min=1)).to(wide)
            result = (
                result / total
                if wide.is_floating_point
                else result.div(total, rounding_mode="floor")
            )
    elif reduce == "prod":
        result = torch.where(mask, values, 1).prod(axis).to(wide)
        if include_self:
            result = result * start
    else:
        least, greatest = _limits(wide)
        if reduce == "amax":
            result = torch.where(mask, values, least).amax(axis)
        else:
            result = torch.where(mask, values, greatest).amin(axis)
        if include_self:
            result = (torch.maximum if reduce == "amax" else torch.minimum)(result, start)
    if not include_self:
        result = torch.where(count > 0, result, start)
    return result.to(dtype)


def _limits(dtype: torch.dtype) -> tuple[float, float]:
    if dtype.is_floating_point:
        return -float("inf"), float("inf")
    if dtype is torch.bool:
        return False, True
    info = torch.iinfo(dtype)
    return info.min, info.max


def index_put(
    self: torch.Tensor,
    indices: list[torch.Tensor | None],
    values: torch.Tensor,
    accumulate: bool = False,
) -> Any:
    """``aten.index_put`` that accumulates, with no atomic operation; assignments are Inductor's."""
    given = [index for index in indices if index is not None]
    if not accumulate or any(index.dtype in (torch.bool, torch.uint8) for index in given):
        return NotImplemented
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    others = [axis for axis in range(self.dim()) if axis not in axes]
    index = torch.broadcast_tensors(*given)
    places = 1
    linear: torch.Tensor | None = None
    for axis, part in zip(axes, index, strict=True):
        size = self.shape[axis]
        part = torch.where(part < 0, part + size, part)
        linear = part if linear is None else linear * size + part
        places = places * size
    assert linear is not None
    rest = [self.shape[axis] for axis in others]
    if not _dense(places * values.numel()):
        return NotImplemented
    # The places first, in self and in values, where they stand where the first index stands
    # unless others stand between them.
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    first = axes[0] if together else 0
    before, after = rest[:first], rest[first:]
    values = values.expand([*before, *linear.shape, *after])
    order = [*range(first, first + linear.dim()), *range(first)]
    order += range(first + linear.dim(), values.dim())
    flat = values.permute(order).reshape([linear.numel(), *rest])
    old = self.permute([*axes, *others]).reshape([places, *rest])
    ones = [1] * len(rest)
    place = torch.arange(places, device=self.device).view([places, 1, *ones])
    mask = linear.reshape([1, linear.numel(), *ones]) == place
    new = _gathered(old, mask, flat.unsqueeze(0), 1, "sum", True)
    new = new.reshape([self.shape[axis] for axis in [*axes, *others]])
    inverse = sorted(range(self.dim()), key=[*axes, *others].__getitem__)
    return new.permute(inverse).contiguous()


def masked_index_put(
    self: torch.Tensor,
    mask: torch.Tensor,
    indices: list[torch.Tensor | None],
    values: torch.Tensor,
) -> torch.Tensor:
    """``aten._unsafe_masked_index_put_accumulate``: adds the values where the mask holds.

    Indices may be anything where it does not: there nothing, or zero, is added.
    """
    return aten.index_put.default(
        self, indices, torch.where(mask, values, 0).to(values.dtype), True
    )


def masked_scatter(self: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """``aten.masked_scatter``: the n-th place where the mask holds gets the n-th of ``source``."""
    self, mask = torch.broadcast_tensors(self, mask)
    number = mask.reshape(-1).to(torch.int64).cumsum(0) - 1
    taken = source.reshape(-1)[number.clamp(min=0)].view(self.shape)
    return torch.where(mask, taken, self)


def _dense(comparisons: Any) -> bool:
    return statically_known_true(comparisons <= _DENSE_LIMIT)


_SUM, _MEAN, _MAX = range(3)


def embedding_bag(
    weight: torch.Tensor,
    indices: torch.Tensor,
    offsets: torch.Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """``aten._embedding_bag``: bags of rows of ``weight``, reduced by sum, mean or maximum.

    Each bag goes over all indices and takes those between its offsets, so that the sum is made in
    one order always: N reads a bag. (Bags of one size, given as a matrix, never get here with
    offsets: see ``rectangular_embedding_bags``.)

    Args:
      weight: ``[V, D]``.
      indices: ``[N]``.
      offsets: ``[B]``, ascending; ``[B + 1]`` with ``include_last_offset``.
      mode: 0 sum, 1 mean, 2 maximum.
      per_sample_weights: ``[N]`` factors, for sums.
      padding_idx: the row that counts as absent; negative for none.

    Returns the bags ``[B, D]``; then, for the backward pass, the bag of each index ``[N]``, the
    size of each bag ``[B]``, and the row that gave each maximum ``[B, D]`` (or nothing).
    """
    total = indices.shape[0]
    position = torch.arange(total, device=indices.device)
    if include_last_offset:
        begin, end = offsets[:-1], offsets[1:]
    else:
        begin = offsets
        end = torch.cat([offsets[1:], torch.full_like(offsets[:1], total)])
    inside = (position >= begin.unsqueeze(1)) & (position < end.unsqueeze(1))  # [B, N]
    if padding_idx >= 0:
        inside = inside & (indices != padding_idx)
    size = inside.sum(1)
    # Where a bag does not hold an index, row 0 is read and not counted.
    rows = weight[indices]  # [N, D]
    mask = inside.unsqueeze(-1)  # [B, N, 1]
    bag = inside.to(torch.int64).argmax(0)
    empty = torch.zeros_like(size)
    if mode == _MAX:
        masked = torch.where(mask, rows, -float("inf"))
        best = masked.amax(1)
        at = masked.argmax(1)
        best = torch.where(size.unsqueeze(1) > 0, best, 0.0).to(weight.dtype)
        return best, bag, size, indices[at]
    factors = rows if per_sample_weights is None else rows * per_sample_weights.unsqueeze(1)
    result = torch.where(mask, factors, 0.0).to(torch.float32).sum(1)
    if mode == _MEAN:
        result = result / size.clamp(min=1).unsqueeze(1)
    return result.to(weight.dtype), bag, size, empty


def rectangular_embedding_bags(graph: torch.fx.Graph, _weights: Mapping[str, str]) -> None:
    """Rewrites bags of one size, whose offsets are a range: each reads its own indices only.

    ``torch.nn.functional.embedding_bag`` makes a range of offsets of a matrix of indices.
    """
    for node in list(graph.nodes):
        if node.target not in (aten.embedding_bag.default, aten.embedding_bag.padding_idx):
            continue
        defaults = (None, None, None, False, _SUM, False, None, False, None)
        args = (*node.args, *defaults[len(node.args) :])
        weight, indices, offsets, _, mode, _, factors, _, padding_idx = args
        size = _step_of_range(offsets, indices)
        # A graph read from a file takes all four results apart, used or not.
        results = [user for user in node.users if user.args[1:] == (0,)]
        others = [user for user in node.users if user not in results]
        if node.kwargs or size is None or mode == _MAX or any(user.users for user in others):
            continue
        with graph.inserting_before(node):
            # A function of ours: decomposition, which comes next, traces what it calls.
            bags = graph.call_function(
                _rectangular_bags, (weight, indices, size, mode, factors, padding_idx)
            )
        bags.meta = {key: value for key, value in node.meta.items() if key != "val"}
        for result in results:
            bags.meta["val"] = result.meta["val"]
            result.replace_all_uses_with(bags)
        for result in (*results, *others):
            graph.erase_node(result)
        graph.erase_node(node)


def _step_of_range(offsets: torch.fx.Node, indices: torch.fx.Node) -> int | None:
    """The step of a range from 0 to the number of indices, or ``None`` for other offsets."""
    if offsets.target is not aten.arange.start_step or len(offsets.args) != 3:
        return None
    start, _, step = offsets.args
    total = indices.meta["val"].shape[0]
    count = offsets.meta["val"].shape[0]
    if start == 0 and isinstance(step, int) and statically_known_true(count * step == total):
        return step
    return None


def _rectangular_bags(
    weight: torch.Tensor,
    indices: torch.Tensor,
    size: int,
    mode: int,
    factors: torch.Tensor | None,
    padding_idx: int | None,
) -> torch.Tensor:
    """Bags of ``size`` indices each, by sum or mean: ``[B * size]`` to ``[B, D]``."""
    matrix = indices.view(-1, size)
    rows = aten.embedding.default(weight, matrix).to(torch.float32)  # [B, size, D]
    if factors is not None:
        rows = rows * factors.view(-1, size, 1)
    if padding_idx is not None:
        present = matrix != padding_idx % weight.shape[0]
        rows = torch.where(present.unsqueeze(-1), rows, 0.0)
    result = rows.sum(1)
    if mode == _MEAN:
        count = size if padding_idx is None else present.sum(1, keepdim=True).clamp(min=1)
        result = result / count
    return result.to(weight.dtype)


def cdist(
    x1: torch.Tensor, x2: torch.Tensor, p: float, compute_mode: int | None = None
) -> torch.Tensor:
    """``aten._cdist_forward``: ``[..., P, M]`` and ``[..., R, M]`` to distances ``[..., P, R]``.

    By differences, not by ``|a|² + |b|² - 2ab``, which loses the small ones.
    """
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def pdist(self: torch.Tensor, p: float = 2.0) -> torch.Tensor:
    """``aten._pdist_forward``: distances of the pairs i < j of ``[N, M]``, ``[N (N - 1) / 2]``."""
    count = self.shape[0]
    i, j = torch.triu_indices(count, count, 1, device=self.device).unbind(0)
    return _norm(self[i] - self[j], p)


def _norm(difference: torch.Tensor, p: float) -> torch.Tensor:
    size = difference.abs()
    if p == 0:
        return (size != 0).sum(-1).to(size.dtype)
    if p == 1:
        return size.sum(-1)
    if p == 2:
        return (size * size).sum(-1).sqrt()
    if p == float("inf"):
        return size.amax(-1)
    return size.pow(p).sum(-1).pow(1 / p)


def randperm(n: int, *, device: Any = None, **_: Any) -> torch.Tensor:
    """``aten.randperm``: the order of ``n`` random numbers."""
    return aten.sort.stable(torch.rand(n, device=device), stable=True)[1]


def multinomial(
    self: torch.Tensor, num_samples: int, replacement: bool = False, *, generator: Any = None
) -> torch.Tensor:
    """``aten.multinomial``: indices drawn with the probabilities ``[..., C]``, which need no sum.

    One of each row, or with replacement: where a uniform number falls in the running sum. Several
    without: those with the greatest ``p / e`` for exponentially distributed ``e`` (Efraimidis and
    Spirakis, "Weighted random sampling with a reservoir", 2006).
    """
    shape = [*self.shape[:-1], num_samples]
    if replacement or num_samples == 1:
        sums = self.to(torch.float32).cumsum(-1)
        # torch.rand is below 1, but its product with the sum may round to the sum.
        point = torch.rand(shape, device=self.device) * sums[..., -1:]
        index = (sums.unsqueeze(-2) <= point.unsqueeze(-1)).sum(-1)
        last = ((self > 0) * _positions(self, -1)).amax(-1, keepdim=True)
        return torch.minimum(index, last)
    exponential = -torch.log1p(-torch.rand(self.shape, device=self.device))
    return aten.topk.default(self / exponential, num_samples)[1]


DECOMPOSITIONS: Final[dict[Any, Callable[..., Any]]] = {
    aten.sort.default: sort,
    aten.sort.stable: sort_stable,
    aten.topk.default: topk,
    aten.kthvalue.default: kthvalue,
    aten.randperm.default: randperm,
    aten.multinomial.default: multinomial,
    aten.scatter.src: scatter,
    aten.scatter.value: scatter,
    aten.scatter.reduce: scatter_with,
    aten.scatter.value_reduce: scatter_with,
    aten.scatter_add.default: scatter_add,
    aten.scatter_reduce.two: scatter_reduce,
    aten.index_put.default: index_put,
    aten._unsafe_masked_index_put_accumulate.default: masked_index_put,
    aten.masked_scatter.default: masked_scatter,
    aten._embedding_bag.default: embedding_bag,
    aten._embedding_bag_forward_only.default: embedding_bag,
    aten._cdist_forward.default: cdist,
    aten._pdist_forward.default: pdist,
}


_ATOMIC: Final = frozenset(
    {
        aten.scatter.reduce,
        aten.scatter.value_reduce,
        aten.scatter_add.default,
        aten.scatter_reduce.two,
    }
)


def refusal(node: torch.fx.Node) -> str:
    """Why an operator that Inductor has a kernel for is refused all the same; a clause, or empty.

    What these decompositions left in the graph Inductor would compute with atomic additions.
    """
    put = node.target is aten.index_put.default and len(node.args) > 3 and bool(node.args[3])
    if node.target in _ATOMIC or put:
        return (
            "its sums would depend on timing: too many places times too many indices"
            f" (more than {_DENSE_LIMIT}) to be added in one order"
        )
    return ""
