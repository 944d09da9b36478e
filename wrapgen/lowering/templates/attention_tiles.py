"""Shapes of attention, the constants its template is rendered with, and the choice of a tile."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Final

from wrapgen.target import Device, Platform

LOG2_E: Final = 1.4426950408889634

PADDING: Final = 4
"""Columns after the DV of a partial result: two hold maximum and sum, all keep rows aligned."""


@dataclasses.dataclass(frozen=True, order=True)
class Attention:
    """One attention: ``rows`` queries and ``keys`` keys a head, of ``head`` columns.

    ``heads`` are q's, ``heads_kv`` k's and v's; ``head_v`` is v's columns, ``itemsize`` an
    operand's bytes. ``mask`` is how many bytes an element of the mask has, 0 where there is none;
    ``added`` says it is added to the scores, else it is boolean.
    """

    batch: int
    heads: int
    heads_kv: int
    rows: int
    keys: int
    head: int
    head_v: int
    itemsize: int
    causal: bool = False
    mask: int = 0
    added: bool = False

    @property
    def group(self) -> int:
        """Heads of q to one of k and v."""
        return self.heads // self.heads_kv


@dataclasses.dataclass(frozen=True, order=True)
class Tile:
    """A configuration of the template. ``pack``: the heads of a group are rows of one tile."""

    block_m: int
    block_n: int
    num_stages: int
    num_warps: int
    split: int = 1
    pack: bool = False


@dataclasses.dataclass(frozen=True)
class Mask:
    """What the template knows of a mask: along which dimensions it has one element."""

    added: bool
    one: tuple[bool, bool, bool, bool]


def parts(head: int) -> tuple[int, int]:
    """Divides a head dimension into columns that are a power of two, and such a rest or 0.

    Both are at least 16, which is what the tensor cores take: 64 is (64, 0), 80 is (64, 16), 72 as
    well, 96 is (64, 32), 112 is (128, 0).
    """
    first = max(16, 1 << (head.bit_length() - 1))
    if head <= first:
        return first, 0
    second = max(16, 1 << (head - first - 1).bit_length())
    return (2 * first, 0) if second == first else (first, second)


def constants(
    shape: Attention,
    tile: Tile,
    *,
    scale: float,
    mask: Mask | None,
    zero_rows: bool,
    even_rows: bool,
    even_keys: bool,
    one_step: bool,
    precision: str | None = None,
) -> dict[str, Any]:
    """Constants for ``attention.ATTENTION``.

    Args:
      shape: rows and keys may be guesses; the rest is exact.
      tile: the configuration.
      scale: what the products are multiplied by.
      mask: of the mask, if there is one.
      zero_rows: whether a row that sees no key is zero, else not a number.
      even_rows: whether every tile is full, whatever the number of rows may be.
      even_keys: whether every step is full.
      one_step: whether the keys are certainly fewer than a step.
      precision: ``tl.dot``'s, if not the one for the operands' type.
    """
    fold = scale > 0 and not (mask is not None and mask.added)
    unit = 1.0 if mask is not None and mask.added else LOG2_E
    d1, d2 = parts(shape.head)
    dv1, dv2 = parts(shape.head_v)
    one = mask.one if mask is not None else (True,) * 4
    return {
        "ACC_TYPE": "tl.float32",
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "SPLIT": tile.split,
        "GROUP": shape.group,
        "PACK": shape.group if tile.pack else 1,
        "D": shape.head,
        "D1": d1,
        "D2": d2,
        "DV": shape.head_v,
        "DV1": dv1,
        "DV2": dv2,
        "EVEN_D1": shape.head >= d1,
        "EVEN_D2": shape.head == d1 + d2,
        "EVEN_DV1": shape.head_v >= dv1,
        "EVEN_DV2": shape.head_v == dv1 + dv2,
        "EVEN_M": even_rows,
        "EVEN_N": even_keys,
        "CAUSAL": shape.causal,
        "MASKED": mask is not None,
        "MASK_ADDED": mask is not None and mask.added,
        "MASK_ONE_B": one[0],
        "MASK_ONE_H": one[1],
        "MASK_ONE_M": one[2],
        "MASK_ONE_N": one[3],
        "SCALE": repr(scale * unit),
        "EXPONENT": repr(LOG2_E / unit),
        "FOLD": fold,
        "GUARD": mask is not None or (shape.causal and tile.split > 1),
        "ZERO_ROWS": zero_rows and mask is not None,
        "INNER": not (one_step and not even_keys),
        "EDGE": shape.causal or not even_keys,
        "PRECISION": f'"{precision or dot_precision(shape.itemsize)}"',
    }


def grid(shape: Attention, tile: Tile) -> tuple[int, int, int]:
    """Programs in x, y and z."""
    pack = shape.group if tile.pack else 1
    tiles = -(-shape.rows * pack // tile.block_m)
    return tiles * shape.batch * (shape.heads // pack), tile.split, 1


def shared_memory(shape: Attention, tile: Tile) -> int:
    """Upper bound of the bytes of shared memory a program takes."""
    d, dv = sum(parts(shape.head)), sum(parts(shape.head_v))
    rows = tile.block_m * d * shape.itemsize
    step = tile.block_n * (d + dv) * shape.itemsize
    if shape.mask:
        step += tile.block_m * tile.block_n * shape.mask
    probabilities = tile.block_m * tile.block_n * shape.itemsize
    turned = tile.block_m * dv * 4
    return max(rows + max(1, tile.num_stages) * step + probabilities, turned) + 1024


def registers(shape: Attention, tile: Tile) -> int:
    """32-bit registers a thread holds for the result, the scores and the probabilities.

    Of float32, for q as well, three times: as it is, rounded to tf32, and the rest.
    """
    d, dv = sum(parts(shape.head)), sum(parts(shape.head_v))
    words = tile.block_m * (dv + tile.block_n + tile.block_n * shape.itemsize // 4)
    if shape.itemsize == 4:
        words += tile.block_m * d * 3
    return words // (32 * tile.num_warps)


PRECISION: Final = "tf32x3"
"""``tl.dot``'s, for float32: three products of tf32 for one, as exact as float32's own sums (4.0e-7
against 5.0e-7 for fused multiply-adds, relative to float64) and three times as fast. PyTorch's
memory-efficient attention does the same."""

_FEW_ROWS: Final = 16
"""Rows of a tile in decoding, the least that the tensor cores take."""


def dot_precision(itemsize: int, platform: Platform = "cuda") -> str:
    """``tl.dot``'s for operands of a size in bytes. Products of half precision are exact as is.

    AMD's matrix cores multiply float32 as it is, and gfx90a's know no tf32.
    """
    return PRECISION if itemsize == 4 and platform == "cuda" else "ieee"


def ranked(shape: Attention, device: Device) -> list[Tile]:
    """All tiles that may be used: the one that is chosen, then the more like it the earlier."""
    chosen = best(shape, device)
    splits = [1 << i for i in range(6)]
    packs = (False, True) if shape.group > 1 else (False,)
    tiles = {
        tile
        for sizes in itertools.product(_BLOCKS_M, _BLOCKS_N, _STAGES, _WARPS, splits, packs)
        if not refusal(shape, tile := Tile(*sizes), device)
    }

    def distance(tile: Tile) -> tuple[int, Tile]:
        steps = sum(
            abs(own.bit_length() - other.bit_length())
            for own, other in zip(
                dataclasses.astuple(tile), dataclasses.astuple(chosen), strict=True
            )
        )
        return steps, tile

    return [chosen, *sorted(tiles - {chosen}, key=distance)]


_BLOCKS_M: Final = (16, 32, 64, 128)
_BLOCKS_N: Final = (16, 32, 64, 128, 256)
_STAGES: Final = (1, 2, 3, 4)
_WARPS: Final = (4, 8)


def refusal(shape: Attention, tile: Tile, device: Device) -> str:
    """Why a tile may not be used for a shape, a clause; empty if it may."""
    if (
        tile.block_m not in _BLOCKS_M
        or tile.block_n not in _BLOCKS_N
        or tile.num_stages not in _STAGES
        or tile.num_warps not in _WARPS
    ):
        return "it is none of the tiles in wrapgen/lowering/templates/attention_tiles.py"
    if tile.pack and shape.group == 1:
        return "there are no groups of heads to be packed"
    if not fits(shape, tile, device):
        return (
            f"it needs up to {shared_memory(shape, tile)} bytes of shared memory, of which there "
            f"are {device.shared_memory_per_block_optin}, and {registers(shape, tile)} registers "
            "for results, of which 224 are permitted"
        )
    if tile.split > 1 and (
        tile.split & (tile.split - 1) or _ceil(shape.keys, tile.block_n) < 2 * tile.split
    ):
        return f"{tile.split} parts of the keys are no power of two, or have less than two steps"
    return ""


def best(shape: Attention, device: Device) -> Tile:
    """The tile for a shape, the first that fits the device of those in order of preference.

    The order was found by measuring on one H200 (bench/README.md); what decides is how many steps
    along the keys there are, and how many programs a multiprocessor gets.
    """
    preferred = _decoding(shape, device) if _few(shape) else _blocks(shape, device)
    # Smaller and smaller, for devices with less memory and for long heads, but loads ahead of use.
    m, n, most = preferred.block_m, preferred.block_n, max(preferred.num_stages, 3)
    sizes = [(m, n), (m, min(n, 64)), (m, min(n, 32)), (m // 2, min(n, 32))]
    smaller = [
        dataclasses.replace(preferred, block_m=block_m, block_n=block_n, num_stages=stages)
        for stages_of_all in ((*range(most, 1, -1),), (1,))
        for block_m, block_n in sizes
        for stages in stages_of_all
        if block_m >= _FEW_ROWS
    ]
    return next(
        tile for tile in [preferred, *smaller, Tile(16, 16, 1, 4)] if fits(shape, tile, device)
    )


def _few(shape: Attention) -> bool:
    """Whether all the rows that share keys are rows of one small tile, or nearly."""
    return shape.rows * shape.group <= 2 * _FEW_ROWS


def _decoding(shape: Attention, device: Device) -> Tile:
    """A multiprocessor each, as far as that leaves everyone two steps."""
    rows = shape.rows * shape.group
    block_n = 64 if shape.itemsize == 2 and shape.keys > 32 else 32
    programs = shape.batch * shape.heads_kv
    split = _split(programs, _ceil(shape.keys, block_n), 2, device)
    return Tile(
        _FEW_ROWS if rows <= _FEW_ROWS else 2 * _FEW_ROWS, block_n, 3, 4, split, shape.group > 1
    )


def _blocks(shape: Attention, device: Device) -> Tile:
    if shape.itemsize == 4:
        return Tile(32, 64 if shape.keys > 128 else 32, 2, 4)
    heads = shape.batch * shape.heads
    if shape.keys <= 64:
        return Tile(64, 64 if shape.keys > 32 else 32, 2, 4)
    if shape.rows <= 32:
        return Tile(32, 64, 3, 4, _split(heads, _ceil(shape.keys, 64), 4, device))
    programs = heads * _ceil(shape.rows, 64)
    short = max(shape.head, shape.head_v) <= 64
    if shape.keys <= 128 and short:
        return Tile(64, 128, 2, 4)
    if shape.keys <= 256 and short and programs <= device.multiprocessors and not shape.causal:
        return Tile(64, 256, 1, 4)
    # A row sees half of the keys on average.
    keys = shape.keys // 2 if shape.causal else shape.keys
    if keys >= 2048 and heads * _ceil(shape.rows, 128) >= 512:
        return Tile(128, 64, 3, 8)
    if programs < 2 * device.multiprocessors:
        split = 1 if shape.causal else _split(programs, _ceil(shape.keys, 64), 8, device, 2)
        return Tile(64, 128 if short and split == 1 else 64, 3, 4, split)
    # Keys that do not fill their last step, where that matters.
    if 10 * _ceil(shape.keys, 64) * 64 >= 11 * _ceil(shape.keys, 32) * 32:
        return Tile(64, 32, 3, 4)
    return Tile(64, 64, 3, 4)


def _split(programs: int, steps: int, least: int, device: Device, each: int = 1) -> int:
    """Among how many programs keys are divided: a power of two, with ``least`` steps each.

    ``each``: how many programs a multiprocessor may get.
    """
    split = 1
    while 2 * split * programs <= each * device.multiprocessors and steps >= 2 * split * least:
        split *= 2
    return split


def fits(shape: Attention, tile: Tile, device: Device) -> bool:
    """Whether a program stays inside the device's limits, so that it loads and hardly spills."""
    return (
        shared_memory(shape, tile) <= device.shared_memory_per_block_optin
        and tile.num_warps * device.warp_size <= device.max_threads_per_block
        and registers(shape, tile) <= 224
    )


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
