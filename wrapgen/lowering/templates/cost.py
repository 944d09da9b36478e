"""How long a tiled matrix product takes on a declared device: a model, calibrated once.

A product of ``m`` x ``k`` by ``k`` x ``n`` is computed by a grid of programs, each of which makes
one ``block_m`` x ``block_n`` tile of the result in steps of ``block_k``. A convolution is such a
product too: m = images x output positions, n = output channels, k = kernel positions x input
channels.

The model. Of ``tiles`` programs the busiest multiprocessor gets ceil(tiles / multiprocessors), and
runs ``resident`` of them at a time, in rounds. A round of r programs takes a start-up time and one
to store a program's own results; then, per step, the larger of a latency, which one program alone
meets, and the arithmetic of r programs; then the time to store r tiles. Beside this, memory and the
L2 cache need a time of their own for the bytes that move. The result is about the largest of the
three (their 4-norm), and the launch; with ``split_k`` also the kernel that adds the parts up.

The coefficients were fitted to 2973 kernels measured on one H200; bench/README.md has the method
and how good the choices are. Rates are relative to the device's, so the model carries over to
others. There is no table of shapes.

Only + - * / and sqrt are used, which IEEE 754 rounds correctly: the same choice on every machine.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from wrapgen.target import Device

TILE: Final = "wrapgen.tile"
"""Key in an Inductor candidate's ``annotations``: its (product, tile), where it was chosen here."""

# Microseconds.
_LAUNCH: Final = 1.43
_ROUND: Final = 0.77
_LOAD_LATENCY: Final = 0.79
_SUM_LAUNCH: Final = 1.35
_ACCUMULATOR: Final = 0.0035
"""For each result that a thread has to store: it stores them one after the other."""

# Fractions of the device's rates.
_WGMMA: Final = 0.935
_MMA: Final = 0.334
_MMA_ALONE: Final = 0.6
_FMA: Final = 1 / 16
_MEMORY: Final = 0.92
_L2: Final = 3.7
_STORE: Final = 1.58
_SUM: Final = 2.2

# A tile of n columns reaches n / (n + _HALF_N) of the arithmetic rate, likewise rows.
_HALF_N: Final = 29.3
_HALF_M: Final = 18.7
_DEPENDENT: Final = 2.16
"""How much longer a step's arithmetic takes when the next waits for it, as in a lone program."""
_BARRIERS: Final = 1024
"""Bytes. Allowance for barriers and alignment on top of the pipeline's buffers, and what the driver
reserves of a multiprocessor's shared memory for each program."""


@dataclasses.dataclass(frozen=True, order=True)
class Product:
    """The product to compute.

    ``itemsize`` is an operand's, in bytes; ``batch`` counts products. ``taps`` is how many kernel
    positions k is made of: a step of a convolution stays within one. ``image`` is the size of the
    left operand in memory, in elements, where it is less than m x k.
    """

    m: int
    n: int
    k: int
    itemsize: int
    batch: int = 1
    taps: int = 1
    image: int = 0


@dataclasses.dataclass(frozen=True, order=True)
class Tile:
    """A configuration of a matrix-product template."""

    block_m: int
    block_n: int
    block_k: int
    num_stages: int
    num_warps: int
    split_k: int = 1


MENU: Final = (
    Tile(16, 32, 64, 6, 2),
    Tile(16, 32, 128, 4, 4),
    Tile(16, 64, 128, 4, 4),
    Tile(32, 32, 32, 5, 4),
    Tile(32, 32, 64, 4, 4),
    Tile(64, 16, 128, 4, 4),
    Tile(64, 32, 64, 4, 4),
    Tile(64, 32, 128, 4, 4),
    Tile(64, 64, 32, 4, 4),
    Tile(64, 64, 64, 3, 4),
    Tile(64, 64, 64, 4, 4),
    Tile(64, 64, 64, 6, 4),
    Tile(64, 128, 64, 3, 4),
    Tile(64, 128, 64, 4, 4),
    Tile(128, 64, 32, 4, 4),
    Tile(128, 64, 64, 3, 4),
    Tile(128, 128, 64, 3, 4),
    Tile(128, 128, 64, 3, 8),
    Tile(256, 64, 32, 4, 4),
    # For short runs along k, which the sweep has none of.
    Tile(16, 16, 16, 3, 2),
    Tile(32, 32, 16, 4, 4),
    Tile(64, 64, 16, 4, 4),
)
"""The tiles the templates may use: those that were best or near it for some product of the sweep,
of the ones that spill no registers."""

SPLITS: Final = (1, 2, 3, 4, 6, 8, 16)


def ranked(product: Product, device: Device) -> list[Tile]:
    """All tiles that may be used, by predicted time; equals as they sort."""
    tiles = [
        tile
        for blocks in MENU
        for tile in (dataclasses.replace(blocks, split_k=split) for split in SPLITS)
        if not refusal(product, tile, device)
    ]
    return sorted(tiles, key=lambda tile: (seconds(product, tile, device), tile))


def best(product: Product, device: Device) -> Tile:
    """The tile with the smallest predicted time; of equals the one that sorts first."""
    return ranked(product, device)[0]


def refusal(product: Product, tile: Tile, device: Device) -> str:
    """Why a tile may not be used for a product, a clause; empty if it may."""
    if dataclasses.replace(tile, split_k=1) not in MENU or tile.split_k not in SPLITS:
        return "it is none of the tiles in wrapgen/lowering/templates/cost.py (MENU, SPLITS)"
    if tile.block_k > max(16, _power_of_two(product.k // product.taps)):
        return f"block_k is beyond the {product.k // product.taps} elements of a run along k"
    if not proved(product, tile):
        return "8 warps or more with a kernel larger than 1x1, where results were wrong before"
    if not fits(product, tile, device):
        return (
            f"it needs up to {shared_memory(product, tile)} bytes of shared memory, of which there "
            f"are {device.shared_memory_per_block_optin}, and {accumulators(tile)} registers for "
            "results, of which 128 are permitted"
        )
    if tile.split_k > 1 and not _worth_splitting(product, tile):
        return f"{tile.split_k} parts leave less than two steps to one, or are too many programs"
    return ""


def proved(product: Product, tile: Tile) -> bool:
    """Excludes 8 warps and more for kernels larger than 1x1.

    Inductor's convolution template is silently wrong there (pytorch#173068). Ours was right in
    every such case of the sweep, but gains nothing from it.
    """
    return product.taps == 1 or tile.num_warps < 8


def _worth_splitting(product: Product, tile: Tile) -> bool:
    """At least two steps a program, none without any, and partial sums within reason."""
    steps = _steps(product, tile)
    each = _ceil(steps, tile.split_k)
    return each >= 2 and _ceil(steps, each) == tile.split_k and _tiles(product, tile) <= 512


def shared_memory(product: Product, tile: Tile) -> int:
    """Upper bound of the bytes of shared memory a program takes: the pipeline's buffers."""
    step = (tile.block_m + tile.block_n) * tile.block_k * product.itemsize
    # The store turns the tile's layout round in shared memory, once the buffers are free.
    turned = tile.block_m * tile.block_n * 4
    return max(tile.num_stages * step, turned) + _BARRIERS


def accumulators(tile: Tile) -> int:
    """32-bit registers a thread holds for the result tile."""
    return tile.block_m * tile.block_n // (32 * tile.num_warps)


def registers(tile: Tile) -> float:
    """Estimated registers a thread (measured: within 15% for tiles of 16 accumulators or more)."""
    return min(255.0, 42 + 1.2 * accumulators(tile))


def fits(product: Product, tile: Tile, device: Device) -> bool:
    """Whether a program stays inside the device's limits, so that it loads and does not spill."""
    return (
        shared_memory(product, tile) <= device.shared_memory_per_block_optin
        and tile.num_warps * device.warp_size <= device.max_threads_per_block
        and accumulators(tile) <= 128
    )


def resident(product: Product, tile: Tile, device: Device) -> int:
    """How many programs a multiprocessor runs at a time; at least one."""
    threads = tile.num_warps * device.warp_size
    granted = math.ceil(registers(tile) / 8) * 8
    return max(
        1,
        min(
            device.shared_memory_per_multiprocessor // (shared_memory(product, tile) + _BARRIERS),
            device.max_threads_per_multiprocessor // threads,
            device.registers_per_multiprocessor // (granted * threads),
        ),
    )


def seconds(product: Product, tile: Tile, device: Device) -> float:
    """Predicted time, adding up the parts of a split included. See the module's text."""
    tiles, steps = _tiles(product, tile), _ceil(_steps(product, tile), tile.split_k)
    per_microsecond = device.tensor_flops / device.multiprocessors / 1e6
    memory = device.bandwidth / 1e6
    operations = 2.0 * tile.block_m * tile.block_n * tile.block_k / per_microsecond
    arithmetic = operations / _efficiency(product, tile, device)
    latency = max(_LOAD_LATENCY / max(1, tile.num_stages - 1), _DEPENDENT * operations)
    stored = 4 if tile.split_k > 1 else product.itemsize
    store = tile.block_m * tile.block_n * stored / (_STORE * memory / device.multiprocessors)

    alone = _ROUND + _ACCUMULATOR * accumulators(tile)

    def round_of(programs: int) -> float:
        return alone + steps * max(latency, programs * arithmetic) + programs * store

    concurrent = resident(product, tile, device)
    rounds, rest = divmod(_ceil(tiles, device.multiprocessors), concurrent)
    computing = rounds * round_of(concurrent) + (round_of(rest) if rest else 0.0)
    caching = (
        float(tiles)
        * steps
        * (tile.block_m + tile.block_n)
        * tile.block_k
        * product.itemsize
        / (_L2 * memory)
    )
    moving = _bytes(product, tile, device) / (_MEMORY * memory)
    microseconds = _LAUNCH + _norm(computing, caching, moving)
    if tile.split_k > 1:
        result = product.m * product.n * product.batch
        microseconds += _SUM_LAUNCH + result * (4 * tile.split_k + 2 * product.itemsize) / (
            _SUM * memory
        )
    return microseconds / 1e6


def _efficiency(product: Product, tile: Tile, device: Device) -> float:
    """The fraction of the device's tensor rate that a tile reaches."""
    if product.itemsize > 2:
        rate = _FMA
    elif device.platform == "hip" or device.capability[0] not in (9, 10):
        rate = _MMA_ALONE
    else:
        # Four warps issue wgmma together, for 64 rows; smaller tiles use the older mma. So it is
        # with tcgen05 of 10.0, whose rates are taken to be Hopper's; 12.0 has the older mma alone.
        rate = _WGMMA if tile.block_m >= 64 else _MMA
    by_n = tile.block_n / (tile.block_n + _HALF_N)
    return rate * by_n * tile.block_m / (tile.block_m + _HALF_M)


def _bytes(product: Product, tile: Tile, device: Device) -> float:
    """Bytes to and from memory: weights, the image where it cannot be in the L2 cache, results."""
    image = (product.image or product.m * product.k) * product.batch * product.itemsize
    if image < device.l2_cache * 2 // 5:
        image = 0
    weights = product.n * product.k * product.batch * product.itemsize
    stored = 4 * tile.split_k if tile.split_k > 1 else product.itemsize
    return float(image + weights + product.m * product.n * product.batch * stored)


def _norm(*times: float) -> float:
    return math.sqrt(math.sqrt(sum((time * time) * (time * time) for time in times)))


def _tiles(product: Product, tile: Tile) -> int:
    across = _ceil(product.m, tile.block_m) * _ceil(product.n, tile.block_n)
    return across * tile.split_k * product.batch


def _steps(product: Product, tile: Tile) -> int:
    return product.taps * _ceil(product.k // product.taps, tile.block_k)


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _power_of_two(value: int) -> int:
    return 1 << max(0, value - 1).bit_length()
