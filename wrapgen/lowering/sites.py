"""Sites: the places in a model whose kernel has a choice of configurations.

A site is a use of a template (a convolution, a matrix product, an attention), or a kernel that
Inductor generates. Its configuration is the tuning lock's, where that has an entry for it, else the
first of a ranking by models of the declared device. The lock knows a site by its key, a text that
says what is computed and nothing else: shapes, strides, types; of a generated kernel, a digest of
its body. So the key stays when the model is edited elsewhere, and equal sites share an entry.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import sympy

from wrapgen.target import Device
from wrapgen.tuning.lock import ADVICE, Config, Entry, LockError

T = TypeVar("T")

REPORT_VERSION: Final = 1
"""Of ``sites.json``."""


@dataclasses.dataclass(frozen=True)
class Site:
    """A site that was met, and what was chosen.

    Attributes:
      key: what the lock calls it.
      config: the configuration it has.
      options: every one that it may have; the first is the default.
      locked: whether the lock has an entry for it.
      problem: of a template, what makes the same site in a graph of its own; else ``None``.
    """

    key: str
    config: Config
    options: tuple[Config, ...]
    locked: bool
    problem: Any = None


class Sites:
    """Chooses a configuration for each site of one lowering, and remembers what it chose.

    Args:
      device: the declared device.
      entries: the tuning lock's for the target, by site.
      where: the lock and the target, to begin messages with.
    """

    def __init__(
        self, device: Device, entries: Mapping[str, Entry] | None = None, where: str = ""
    ) -> None:
        self.device = device
        self.met: dict[str, Site] = {}
        self.uses: collections.Counter[str] = collections.Counter()
        self._entries = entries or {}
        self._where = where
        self._faults: dict[str, str] = {}

    def choose(
        self,
        key: str,
        options: Sequence[tuple[Config, T]],
        refusal: Callable[[Config], str],
        problem: Any = None,
    ) -> T:
        """Returns what belongs to the site's configuration.

        Args:
          key: the site's.
          options: all that it may have, the default first.
          refusal: why a configuration that is none of them may not be used, a clause.
          problem: see ``Site``.

        An entry that cannot be used is kept for ``check``, which tells all of them at once.
        """
        config, chosen = options[0]
        entry = self._entries.get(key)
        if entry is not None:
            wanted = [option for option in options if option[0] == entry.config]
            if wanted:
                config, chosen = wanted[0]
            else:
                self._faults[key] = self._fault(key, entry.config, refusal(entry.config), config)
        self.uses[key] += 1
        self.met.setdefault(
            key,
            Site(key, config, tuple(each for each, _ in options), entry is not None, problem),
        )
        return chosen

    def _fault(self, key: str, config: Config, reason: str, default: Config) -> str:
        return (
            f"{self._where}[{json.dumps(key)}]: {self.device.name} cannot use {_text(config)}: "
            f"{reason}; without a lock it is {_text(default)}. What to do: {ADVICE}."
        )

    @property
    def unused(self) -> tuple[str, ...]:
        """Entries of sites that the model does not have, or no more; sorted."""
        return tuple(sorted(self._entries.keys() - self.met.keys()))

    def check(self) -> None:
        """Raises ``LockError`` if an entry cannot be used; the message has all of them."""
        if self._faults:
            raise LockError("\n".join(self._faults[key] for key in sorted(self._faults)))

    def report(self, target: str) -> dict[str, Any]:
        """What ``sites.json`` says."""
        return {
            "schema_version": REPORT_VERSION,
            "target": target,
            "sites": [
                {
                    "site": site.key,
                    "config": site.config,
                    "default": site.options[0],
                    "from": "lock" if site.locked else "model",
                }
                for _, site in sorted(self.met.items())
            ],
            "unused": list(self.unused),
        }


def _text(config: Config) -> str:
    """Such as ``block_m=64, num_warps=4``."""
    return ", ".join(f"{name}={int(config[name])}" for name in sorted(config)) or "nothing"


def of_dataclass(tile: Any) -> Config:
    """The configuration that a tile is."""
    return {name: int(value) for name, value in dataclasses.asdict(tile).items()}


def missing_fields(config: Config, like: Config) -> str:
    """Says how the names in a configuration differ from those of another; empty if they do not."""
    if config.keys() == like.keys():
        return ""
    return f"expected {', '.join(sorted(like))}, got {', '.join(sorted(config)) or 'nothing'}"


# Keys.


def operand(node: Any) -> str:
    """An operand of a template, an Inductor tensor: ``float16[1,64,56,56]{200704,1,3584,64}``.

    A size that is known only at run time is written with a question mark and what it is taken for
    where speed is decided: ``[?64,768]``.
    """
    dtype = str(node.get_dtype()).removeprefix("torch.")
    size, stride = (",".join(map(_extent, each)) for each in (node.get_size(), node.get_stride()))
    return f"{dtype}[{size}]{{{stride}}}"


def _extent(extent: Any) -> str:
    if isinstance(extent, (int, sympy.Integer)):
        return str(int(extent))
    return f"?{typical(extent)}"


def typical(extent: Any) -> int:
    """What speed is decided for: the size, or of a symbolic one the number it is taken for."""
    if isinstance(extent, (int, sympy.Integer)):
        return int(extent)
    from torch._inductor.virtualized import V

    return int(V.graph.sizevars.optimization_hint(extent))


def of_generated(
    function: str,
    heuristic: str,
    size_hints: Mapping[str, int],
    signature: Mapping[str, Any],
    promises: Any,
) -> str:
    """The key of a kernel that Inductor generates, such as ``pointwise x=4096 3fa9c1d20b7e``.

    Args:
      function: the kernel's source; its first function counts, without decorators and comments.
      heuristic: the kind of kernel.
      size_hints: extents along each axis, rounded up to a power of two.
      signature: types and constants by the parameter's name.
      promises: what Triton is promised of parameters.
    """
    (body, *_) = [node for node in ast.parse(function).body if isinstance(node, ast.FunctionDef)]
    body.decorator_list = []
    content = json.dumps([ast.unparse(body), signature, promises], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    extents = " ".join(f"{axis}={size_hints[axis]}" for axis in sorted(size_hints))
    return " ".join(part for part in (heuristic, extents, digest) if part)
