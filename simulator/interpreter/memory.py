"""Device memory as the evaluator sees it: bytes, which of them were written, and blocks."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable

import numpy as np
import torch


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """An allocation: ``size`` bytes from ``address``.

    ``serial`` tells it from others at the same place at other times.
    """

    name: str
    address: int
    size: int
    serial: int = 0

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.address + self.size


def sparse_zeros(size: int, dtype: type[np.generic]) -> torch.Tensor:
    """A 1-d tensor of zeros that takes memory only where it is touched."""
    return torch.from_numpy(np.zeros(size, dtype=dtype))  # calloc; torch.zeros writes the zeros


class Memory:
    """Bytes from address ``base`` on, a shadow byte for each, and the table of blocks.

    Args:
      data: 1-d uint8 tensor; may be memory that another process maps too.
      written: 1-d uint8 tensor of the same length: 1 where a byte was written since its block was
        allocated, else 0.
      base: the address of ``data[0]``, a multiple of 16.
    """

    def __init__(self, data: torch.Tensor, written: torch.Tensor, base: int) -> None:
        assert data.dtype == written.dtype == torch.uint8
        assert data.shape == written.shape and data.dim() == 1
        assert base % 16 == 0
        self.data = data
        self.written = written
        self.base = base
        self._live: dict[int, Block] = {}
        self._order: list[int] = []
        self._freed: dict[int, Block] = {}
        # Whether all of a block was written; False holds until something is.
        self._whole: dict[Block, bool] = {}

    @classmethod
    def own(cls, size: int, base: int = 1 << 32) -> Memory:
        """Memory of ``size`` bytes that nobody else sees, none of it written or allocated."""
        return cls(sparse_zeros(size, np.uint8), sparse_zeros(size, np.uint8), base)

    def add(self, block: Block) -> None:
        """Makes a block live. Its shadow is the caller's to clear."""
        if block.address < self.base or block.end > self.base + len(self.data):
            raise ValueError(f"{block} lies outside the memory")
        self._live[block.address] = block
        self._order = sorted(self._live)
        self._freed.pop(block.address, None)

    def free(self, address: int) -> None:
        """Ends the life of the block at ``address``."""
        block = self._live.pop(address)
        self._order = sorted(self._live)
        self._whole.pop(block, None)
        self._freed[address] = block

    def update(self, live: Iterable[Block], freed: Iterable[Block]) -> None:
        """Replaces both tables."""
        self._live = {block.address: block for block in live}
        self._order = sorted(self._live)
        self._freed = {block.address: block for block in freed}
        known = set(self._live.values())
        self._whole = {block: True for block, yes in self._whole.items() if yes and block in known}

    def blocks(self) -> list[Block]:
        """The live blocks by address."""
        return [self._live[address] for address in self._order]

    def find(self, address: int) -> Block | None:
        """The live block that holds ``address``; a block of no size holds its own."""
        i = bisect.bisect_right(self._order, address) - 1
        if i < 0:
            return None
        block = self._live[self._order[i]]
        return block if address < block.end or address == block.address else None

    def find_freed(self, address: int) -> Block | None:
        """A block that held ``address`` and was freed, where that is remembered."""
        for start in sorted(self._freed):
            block = self._freed[start]
            if block.address <= address < block.end:
                return block
        return None

    def is_written(self, block: Block) -> bool:
        """Whether each byte of a block was written. A yes is remembered until the block is freed,
        a no until ``wrote`` or ``forget``."""
        known = self._whole.get(block)
        if known is None:
            start = block.address - self.base
            known = bool(self.written[start : start + block.size].all())
            self._whole[block] = known
        return known

    def wrote(self, block: Block) -> None:
        """Notes that something of a block was written."""
        if self._whole.get(block) is False:
            del self._whole[block]

    def forget(self) -> None:
        """Notes that somebody else may have written anything."""
        self._whole = {block: True for block, whole in self._whole.items() if whole}

    def view(self, block: Block, dtype: torch.dtype, phase: int) -> torch.Tensor:
        """A block's bytes from offset ``phase`` on as elements; a rest at the end is left out."""
        return self._view(self.data, block, dtype, phase)

    def shadow(self, block: Block, dtype: torch.dtype, phase: int) -> torch.Tensor:
        """The shadow like ``view``."""
        return self._view(self.written, block, dtype, phase)

    def _view(
        self, data: torch.Tensor, block: Block, dtype: torch.dtype, phase: int
    ) -> torch.Tensor:
        start = block.address - self.base + phase
        count = max(0, block.size - phase) // dtype.itemsize
        return data[start : start + count * dtype.itemsize].view(dtype)

    def bytes(self, address: int, nbytes: int) -> torch.Tensor:
        """``nbytes`` bytes from ``address`` on, wherever they lie."""
        start = address - self.base
        return self.data[start : start + nbytes]

    def mark(self, address: int, nbytes: int) -> None:
        """Notes that bytes were written."""
        start = address - self.base
        self.written[start : start + nbytes] = 1
        block = self.find(address)
        if block is not None:
            self.wrote(block)
