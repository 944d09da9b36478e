"""From the Triton source that Inductor writes to a kernel: TTIR, parameters, launch bounds.

Inductor's source is a module with one decorated function. The decorator's arguments say what the
parameters are and offer configurations; nothing is compiled further than TTIR here.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest import mock

from torch._inductor.runtime import triton_helpers, triton_heuristics
from triton._C.libtriton import ir
from triton.compiler.compiler import ASTSource, make_backend

from wrapgen.dtype import INFO, DType
from wrapgen.lowering import choices, sites
from wrapgen.lowering.declared_device import gpu_target
from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.sites import Sites
from wrapgen.program import Dim, Kernel, KernelParam
from wrapgen.target import Device
from wrapgen.tuning.lock import Config

_DTYPES: Final = {info.triton: dtype for dtype, info in INFO.items()}
_GRID_WAIT: Final = "griddepcontrol.wait"
_MASK: Final = "kernel"
"""The function's name while its content is digested."""


@dataclasses.dataclass(frozen=True)
class Built:
    """A kernel, and what a caller needs beside it.

    Attributes:
      kernel: the kernel as the program records it.
      ttir: its TTIR, with no locations.
      source: its readable Triton source, a module.
      arguments: which arguments of an Inductor call are the parameters, by position.
      loaded: parameters whose memory the kernel reads, atomically or not, before it writes there.
      meta: Inductor's metadata of the kernel, for the grid.
      config: the chosen configuration's constants by name.
    """

    kernel: Kernel
    ttir: str
    source: str
    arguments: tuple[int, ...]
    loaded: frozenset[str]
    meta: Mapping[str, Any]
    config: Mapping[str, Any]


class Builder:
    """Builds kernels for one device; equal kernels are built once."""

    def __init__(self, sites: Sites, num_shards: int, scratch: Path) -> None:
        self.sites = sites
        self._device = sites.device
        self.num_shards = num_shards
        self._scratch = scratch
        self._built: dict[tuple[str, str], Built] = {}
        self.generated: dict[str, Generated] = {}
        # Of each kernel's last call: the grid, for the kernel in whatever configuration.
        self.grids: dict[str, Callable[[Built], tuple[Dim, Dim, Dim]]] = {}

    def build(self, source: str, name: str, template: str) -> Built:
        """Builds a kernel.

        Args:
          source: the module that Inductor wrote.
          name: the function's name in it.
          template: the Triton template it was made from, or empty.
        """
        # The same source under two names is one kernel.
        masked = re.sub(rf"\b{re.escape(name)}\b", _MASK, source)
        key = (masked, template)
        if key not in self._built:
            self._built[key] = self._build(masked, template)
        return self._built[key]

    def add(self, built: Built) -> Built:
        """Takes in a kernel that was built elsewhere."""
        return self._built.setdefault((built.ttir, built.kernel.name), built)

    def kernels(self) -> list[Built]:
        """Every kernel built, once each, sorted by name."""
        unique = {built.kernel.name: built for built in self._built.values()}
        return [unique[name] for name in sorted(unique)]

    def _build(self, source: str, template: str) -> Built:
        record = _load(source, self._scratch, len(self._built))
        if template:  # its configuration is in the source
            config = choices.select_config(record.meta, record.configs, self._device)
            return self._made(source, template, record, config)
        ranked = choices.rank_configs(record.meta, record.configs, self._device)
        key = sites.of_generated(
            source,
            record.meta["heuristic"],
            record.meta["size_hints"],
            record.triton_meta["signature"],
            [
                record.triton_meta["constants"],
                sorted(record.triton_meta["configs"][0].items()),
            ],
        )

        def refusal(config: Config) -> str:
            return choices.config_refusal(record.meta, record.configs, config, self._device)

        options = [(choices.as_config(config), config) for config in ranked]
        built = self._made(source, "", record, self.sites.choose(key, options, refusal))
        make = functools.partial(self._made, source, "", record)
        self.generated.setdefault(built.kernel.name, Generated(key, tuple(ranked), make))
        return built

    def _made(self, source: str, template: str, record: _Record, config: Any) -> Built:
        constants = _constants(record, config)
        signature = {
            name: "constexpr" if name in constants else record.triton_meta["signature"][name]
            for name in record.function.arg_names
        }
        attributes = record.triton_meta["configs"][0]
        num_ctas = getattr(config, "num_ctas", None) or 1
        options = {
            "num_warps": config.num_warps,
            "num_stages": config.num_stages,
            "num_ctas": num_ctas,
        }
        ttir = make_ttir(record.function, signature, constants, attributes, options, self._device)
        cooperative = bool(record.triton_meta.get("launch_cooperative_grid"))
        # Whoever does not wait for the kernel before it must not be started before its end. And one
        # whose programs wait for each other starts whole.
        dependent = bool(record.triton_meta.get("launch_pdl")) and _GRID_WAIT in ttir
        launch = {"cooperative": cooperative, "launch_pdl": dependent and not cooperative}
        options |= {name: True for name, holds in launch.items() if holds}
        digest = hashlib.sha256(
            json.dumps([ttir, options, template], sort_keys=True).encode()
        ).hexdigest()[:12]
        name = f"{_stem(record, template)}_{digest}"
        ttir = ttir.replace(f"@{_MASK}(", f"@{name}(")
        names = [name for name in record.function.arg_names if signature[name] != "constexpr"]
        kernel = Kernel(
            name=name,
            shard=int(digest, 16) % self.num_shards,
            ttir_sha256=hashlib.sha256(ttir.encode()).hexdigest(),
            params=tuple(
                _param(record.function.arg_names.index(name), name, signature[name], attributes)
                for name in names
            ),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            num_ctas=num_ctas,
            template=template,
            config={name: _plain(value) for name, value in sorted(constants.items())},
            **launch,
        )
        call_order = list(record.triton_meta["signature"])
        return Built(
            kernel=kernel,
            ttir=ttir,
            source=_readable(source, name, kernel),
            arguments=tuple(call_order.index(name) for name in names),
            loaded=_loaded(source, names),
            meta=record.meta,
            config=triton_heuristics.config_to_dict(config),
        )


@dataclasses.dataclass(frozen=True)
class Generated:
    """A kernel that Inductor generated: its site's key, the configurations that it may have, and
    what makes it with one of them."""

    key: str
    configs: tuple[Any, ...]
    make: Callable[[Any], Built]


@dataclasses.dataclass(frozen=True)
class _Record:
    """What a decorated kernel says about itself.

    ``meta`` is Inductor's metadata plus ``size_hints`` and ``heuristic``, ``function`` Triton's
    ``JITFunction``.
    """

    function: Any
    configs: Sequence[Any]
    triton_meta: Mapping[str, Any]
    meta: Mapping[str, Any]


def _load(source: str, scratch: Path, number: int) -> _Record:
    """Runs the module with Inductor's decorator replaced by one that records its arguments."""
    # Triton reads a function's source from its file.
    path = scratch / f"kernel_{number}.py"
    path.write_text(source, encoding="utf-8")

    def record(
        size_hints: Any,
        configs: Sequence[Any],
        triton_meta: dict[str, Any],
        heuristic_type: Any,
        inductor_meta: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        def decorate(function: Any) -> _Record:
            meta = {
                **(inductor_meta or {}),
                "size_hints": size_hints or {},
                "heuristic": heuristic_type.name.lower(),
            }
            return _Record(function, _usable(configs, function), triton_meta, meta)

        return decorate

    with (
        mock.patch.object(triton_heuristics, "cached_autotune", record),
        mock.patch.object(triton_helpers, "set_driver_to_gpu", lambda: None),
    ):
        module = import_module(path, f"wrapgen_kernel_{number}")
    found = getattr(module, _MASK)
    if not isinstance(found, _Record):
        raise LoweringError(f"Inductor wrote a kernel of a kind that is not supported: {source}")
    return found


def import_module(path: Path, name: str) -> ModuleType:
    """Runs a file as a module; writes no byte code."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _no_bytecode():
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    with mock.patch.object(sys, "dont_write_bytecode", True):
        yield


def _usable(configs: Sequence[Any], function: Any) -> list[Any]:
    """Drops ``XBLOCK`` where the kernel has it fixed at 1, as Inductor's own loader does."""
    unique: list[Any] = triton_heuristics.unique_configs(list(configs))
    if "XBLOCK" not in function.arg_names:
        for config in unique:
            config.kwargs.pop("XBLOCK", None)
    return unique


def _constants(record: _Record, config: Any) -> dict[str, Any]:
    """The compile-time constants by parameter name."""
    constants = dict(record.triton_meta["constants"])
    constants.update(config.kwargs)
    missing = [
        name
        for name, kind in record.triton_meta["signature"].items()
        if kind == "constexpr" and name not in constants
    ]
    if missing:
        raise LoweringError(f"a kernel has constants without a value: {', '.join(missing)}")
    return {name: value for name, value in constants.items() if name in record.function.arg_names}


def make_ttir(
    function: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    attributes: Mapping[Any, Any],
    options: Mapping[str, Any],
    device: Device,
) -> str:
    """Runs Triton's front end and its target-independent passes; no file is written."""
    target = gpu_target(device)
    backend = make_backend(target)
    parsed = backend.parse_options(dict(options))
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    source = ASTSource(function, dict(signature), dict(constants), dict(attributes))
    stages: dict[str, Any] = {}
    backend.add_stages(stages, parsed, source.language)
    module: Any = source.make_ir(
        target,
        parsed,
        backend.get_codegen_implementation(parsed),
        backend.get_module_map(),
        context,
    )
    module = stages["ttir"](module, {})
    return str(module.str_nodebug())


def _stem(record: _Record, template: str) -> str:
    """What the kernel is, from nothing but its content."""
    if template:
        return re.sub(r"\W+", "_", template)
    return str(record.meta["heuristic"]).removeprefix("persistent_")


def _param(index: int, name: str, kind: str, attributes: Mapping[Any, Any]) -> KernelParam:
    pointer = kind.startswith("*")
    # Semaphores are unsigned, which TTIR does not say.
    dtype = DType.INT32 if kind == "*u32" else _DTYPES.get(kind.removeprefix("*"))
    if dtype is None:
        raise LoweringError(f"a kernel has a parameter of unknown type {kind}: {name}")
    return KernelParam(
        name=name,
        kind="pointer" if pointer else "scalar",
        dtype=DType(dtype),
        divisible_by_16=["tt.divisibility", 16] in [list(a) for a in attributes.get((index,), [])],
    )


def _loaded(source: str, names: Sequence[str]) -> frozenset[str]:
    """The parameters that a load or an atomic update reads before any store has written them.

    A reduction in several passes stores what it computes in the first and loads it again later: of
    what was there before it, it reads nothing.
    """
    first: dict[str, str] = {}
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args
    ]
    for call in sorted(calls, key=lambda call: (call.end_lineno, call.end_col_offset)):
        assert isinstance(call.func, ast.Attribute)
        if re.fullmatch(r"load|store|atomic_\w+", call.func.attr):
            for leaf in ast.walk(call.args[0]):
                if isinstance(leaf, ast.Name):
                    first.setdefault(leaf.id, call.func.attr)
    return frozenset(name for name in names if first.get(name, "store") != "store")


def _plain(value: Any) -> int | str | bool | None:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return value.hex() if isinstance(value, float) else str(value)


def _readable(source: str, name: str, kernel: Kernel) -> str:
    """The module without Inductor's decorator: imports, and the function under its final name."""
    tree = ast.parse(source)
    lines = source.splitlines()
    kept: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Expr):
            continue  # set_driver_to_gpu()
        start = node.lineno
        if isinstance(node, ast.FunctionDef):
            kept += ["", "", "@triton.jit"]
        kept += lines[start - 1 : node.end_lineno]
    constants = ", ".join(f"{key}={value}" for key, value in kernel.config.items())
    header = [
        f"# num_warps={kernel.num_warps}, num_stages={kernel.num_stages}"
        + (f", template {kernel.template}" if kernel.template else ""),
        f"# constants: {constants or 'none'}",
    ]
    text = "\n".join([*header, *kept]) + "\n"
    return re.sub(rf"\b{_MASK}\b", name, text)
