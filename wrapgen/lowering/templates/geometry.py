"""The shapes behind a template: what it computes, and the constants it is rendered with."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

from wrapgen.lowering.templates.cost import Product, Tile

GROUP_M: Final = 8
"""Rows of tiles that are taken together, for the sake of the L2 cache."""

MAX_BITS: Final = 63
"""Kernel positions that the template can keep one bit each for, of whether they lie inside."""


@dataclasses.dataclass(frozen=True, order=True)
class Convolution:
    """A convolution over two or three dimensions, channels last.

    Tuples are (height, width) or (depth, height, width). ``padding`` is on both sides.
    ``in_channels`` and ``out_channels`` are those of one of the ``groups``.

    Where sizes are known only at run time, ``batch`` and ``in_size`` are typical ones, and
    ``known_batch`` or ``known_size`` is false.
    """

    batch: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    known_batch: bool = True
    known_size: bool = True

    @property
    def out_size(self) -> tuple[int, ...]:
        """The result's extents, as ``torch.nn.Conv2d`` documents."""
        return tuple(
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, padding, dilation, kernel, stride in zip(
                self.in_size, self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )

    @property
    def taps(self) -> int:
        """How many positions the kernel has."""
        return math.prod(self.kernel)

    @property
    def pointwise(self) -> bool:
        """Whether each output position reads just the input position of the same place."""
        return self.groups == self.taps == math.prod(self.stride) and not any(self.padding)

    def collapsed(self) -> Convolution:
        """The same convolution with the kernel positions of a row taken for more channels.

        Without padding along the width those positions are neighbours in memory, channels last, in
        the image as in the weight: one long step instead of several short ones. ``in_size`` becomes
        what leaves ``out_size`` alone; strides in memory are not changed.
        """
        if (
            self.padding[-1]
            or self.dilation[-1] != 1
            or self.kernel[-1] == 1
            or self.groups != 1
            or not self.known_size
        ):
            return self
        return dataclasses.replace(
            self,
            in_channels=self.kernel[-1] * self.in_channels,
            in_size=(*self.in_size[:-1], (self.out_size[-1] - 1) * self.stride[-1] + 1),
            kernel=(*self.kernel[:-1], 1),
        )

    def product(self, itemsize: int) -> Product:
        """The matrix product that this convolution is, or the products, one a group."""
        return Product(
            m=self.batch * math.prod(self.out_size),
            n=self.out_channels,
            k=self.taps * self.in_channels,
            itemsize=itemsize,
            batch=self.groups,
            taps=self.taps,
            image=self.batch * self.in_channels * math.prod(self.in_size),
        )

    def constants(self, tile: Tile, precision: str = "ieee") -> dict[str, Any]:
        """Constants for ``product.CONVOLUTION``; ``precision`` is ``tl.dot``'s, for float32.

        Of sizes that are known only at run time there are none.
        """
        known_m = self.known_batch and self.known_size
        constants = {
            **_tile_constants(self.product(itemsize=2), tile, precision, known_m),
            "GROUPS": self.groups,
            "TAP_C": self.in_channels,
            "PADDED": any(self.padding),
            "BITS": "tl.int64" if self.taps > 31 else "tl.int32",
            "KEEP_BITS": self.taps <= MAX_BITS,
        }
        named = {
            "TAPS": self.kernel,
            "STRIDE": self.stride,
            "PADDING": self.padding,
            "DILATION": self.dilation,
        }
        if self.known_size:
            named |= {"OUT": self.out_size, "IN": self.in_size}
        for name, values in named.items():
            for axis, value in zip("DHW"[-len(values) :], values, strict=True):
                constants[f"{name}_{axis}"] = value
        return constants


def matmul_constants(
    product: Product, tile: Tile, precision: str = "ieee", known_m: bool = True
) -> dict[str, Any]:
    """Constants for ``product.MATMUL``; without ``M`` where it is known only at run time."""
    return {**_tile_constants(product, tile, precision, known_m), "K": product.k}


def steps(product: Product, tile: Tile) -> int:
    """Steps of ``block_k`` along k. No step reaches from one kernel position into the next."""
    return product.taps * _ceil(product.k // product.taps, tile.block_k)


def splits(product: Product, tile: Tile) -> int:
    """How many of ``split_k`` programs a tile have steps to do."""
    return _ceil(steps(product, tile), _ceil(steps(product, tile), tile.split_k))


def grid(product: Product, tile: Tile) -> tuple[int, int, int]:
    """Programs in x, y and z."""
    tiles = _ceil(product.m, tile.block_m) * _ceil(product.n, tile.block_n)
    return tiles, tile.split_k, product.batch


def _tile_constants(product: Product, tile: Tile, precision: str, known_m: bool) -> dict[str, Any]:
    constants: dict[str, Any] = {
        "ACC_TYPE": "tl.float32",
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "SPLIT_K": tile.split_k,
        "GROUP_M": GROUP_M,
        "EVEN_M": known_m and product.m % tile.block_m == 0,
        "EVEN_N": product.n % tile.block_n == 0,
        "EVEN_K": product.k // product.taps % tile.block_k == 0,
        "EVEN_SPLIT": steps(product, tile) % tile.split_k == 0,
        "N": product.n,
        "PRECISION": f'"{precision}"',
    }
    if known_m:
        constants["M"] = product.m
    return constants


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
