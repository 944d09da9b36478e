"""How long a tiled matrix product takes on a declared device: a model, not a measurement.

A product of ``m`` x ``k`` by ``k`` x ``n`` is computed by a grid of programs, each of which makes one
``block_m`` x ``block_n`` tile of the result in steps of ``block_k``. A convolution is such a product
too: m = images x output positions, n = output channels, k = kernel positions x input channels.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from wrapgen.target import Device

TILE: Final = "wrapgen.tile"
"""Key in an Inductor candidate's ``annotations``: its (product, tile), where it was chosen here."""


@dataclasses.dataclass(frozen=True, order=True)
class Product:
    """The product to compute.

    ``itemsize`` is an operand's, in bytes; ``batch`` counts products. ``taps`` is how many kernel
    positions k is made of: a step of a convolution stays within one.
    """

    m: int
    n: int
    k: int
    itemsize: int
    batch: int = 1
    taps: int = 1


@dataclasses.dataclass(frozen=True, order=True)
class Tile:
    """A configuration of a matrix-product template."""

    block_m: int
    block_n: int
    block_k: int
    num_stages: int
    num_warps: int
    split_k: int = 1


def shared_memory(product: Product, tile: Tile) -> int:
    """Bytes of shared memory a program takes: the pipeline's buffers for both operands."""
    return (
        tile.num_stages
        * (tile.block_m + tile.block_n)
        * tile.block_k
        * product.itemsize
        + _BARRIERS
    )


_BARRIERS = 1024
"""Bytes. Allowance for barriers and alignment on top of the pipeline's buffers."""


def accumulators(tile: Tile) -> int:
    """32-bit registers a thread holds for the result tile."""
    return tile.block_m * tile.block_n // (32 * tile.num_warps)


def fits(product: Product, tile: Tile, device: Device) -> bool:
    """Whether a program stays inside the device's limits, so that it loads and does not spill."""
    return (
        shared_memory(product, tile) <= device.shared_memory_per_block_optin
        and tile.num_warps * device.warp_size <= device.max_threads_per_block
        and accumulators(tile) <= 128
    )


def seconds(product: Product, tile: Tile, device: Device) -> float:
    """Predicted time of the product with this tile. Only differences between tiles matter."""
    tiles = (
        math.ceil(product.m / tile.block_m)
        * math.ceil(product.n / tile.block_n)
        * tile.split_k
        * product.batch
    )
    steps = math.ceil(math.ceil(product.k / tile.block_k) / tile.split_k)
    resident = max(
        1,
        min(
            device.shared_memory_per_multiprocessor
            // (shared_memory(product, tile) + 1024),
            device.max_threads_per_multiprocessor
            // (tile.num_warps * device.warp_size),
        ),
    )
    concurrent = min(resident, math.ceil(tiles / device.multiprocessors))
    waves = math.ceil(tiles / (device.multiprocessors * concurrent))
    flops = 2.0 * tile.block_m * tile.block_n * tile.block_k
    peak = device.tensor_flops / device.multiprocessors
    # A small tile feeds the tensor cores badly, a warp with little work worse.
    efficiency = min(1.0, math.sqrt(tile.block_m * tile.block_n) / 128) * 0.7
    compute = concurrent * flops / (peak * efficiency)
    traffic = (
        concurrent * (tile.block_m + tile.block_n) * tile.block_k * product.itemsize
    )
    # Every program reads through L2, which is a few times as fast as memory.
    move = traffic / (3.0 * device.bandwidth / device.multiprocessors)
    latency = 0.7e-6 / max(1, tile.num_stages - 1)
    step = max(compute, move, latency)
    fill = 1.5e-6
    store = (
        concurrent
        * tile.block_m
        * tile.block_n
        * product.itemsize
        / (device.bandwidth / device.multiprocessors)
    )
    reduce = 0.0
    if tile.split_k > 1:
        reduce = 2e-6 + product.m * product.n * product.batch * (
            tile.split_k * 8 + product.itemsize
        ) / (2 * device.bandwidth)
    return waves * (fill + steps * step + store) + reduce


MENU = (
    # block_m, block_n, block_k, num_stages, num_warps
    (128, 128, 64, 3, 8),
    (128, 128, 64, 3, 4),
    (64, 128, 64, 4, 4),
    (128, 64, 64, 3, 4),
    (64, 64, 64, 4, 4),
    (64, 32, 64, 4, 4),
    (64, 64, 32, 4, 4),
    (128, 64, 32, 4, 4),
    (32, 32, 64, 4, 4),
    (16, 32, 64, 6, 2),
    (16, 16, 16, 3, 2),
)


def best(product: Product, device: Device) -> Tile:
    """The tile with the smallest predicted time; ties go to the one that sorts first."""
    tiles = [
        Tile(*blocks, split)
        for blocks in MENU
        for split in (1, 2, 3, 4, 6, 8, 16)
        if not (product.taps > 1 and blocks[4] >= 8)
    ]
    tiles = [
        t
        for t in tiles
        if fits(product, t, device)
        and (
            t.split_k == 1
            or product.taps
            * math.ceil(product.k / product.taps / t.block_k)
            % t.split_k
            == 0
        )
    ]
    return min(tiles, key=lambda t: (seconds(product, t, device), t))
