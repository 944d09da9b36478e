"""Candidates for the tuner: each site of a model in several configurations, ready to be compiled.

No GPU is needed. A site becomes a small program of its own: what a template computes is lowered
again, alone, once in each configuration, as the model is; a generated kernel is made again with
other block sizes, for its first call in the model. All candidates of a site have the same inputs
and outputs, so that times and results can be compared. Kernels for making inputs and for comparing
(tuner_kernels.py) go with them: ``wrapgen.tuning`` has no other means.
"""

from __future__ import annotations

import dataclasses
import operator
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch.fx import Graph, GraphModule

from wrapgen import expression
from wrapgen.dtype import INFO, DType
from wrapgen.lowering import choices, inductor, ir_lines, model, passes, tuner_kernels
from wrapgen.lowering.declared_device import CUDA
from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.graph_file import dtype_of
from wrapgen.lowering.kernel import Builder, Built, Generated
from wrapgen.lowering.sites import Site, Sites
from wrapgen.lowering.templates.problem import Problem
from wrapgen.program import (
    Arg,
    Dim,
    Launch,
    PointerArg,
    Procedure,
    Ref,
    ScalarArg,
    TensorSpec,
    canonical_json,
    extent,
    walk,
    weight_nbytes,
)
from wrapgen.target import Target
from wrapgen.tuning.lock import Config, Entry

SCHEMA_VERSION: Final = 1
"""Of ``candidates.json``; wrapgen/tuning/candidates.py reads it."""

DEFAULT_COUNT: Final = 8
"""Configurations of a site, the default among them."""

_Json = dict[str, Any]


def make(
    graph: Path,
    target: Target,
    out: Path,
    *,
    count: int = DEFAULT_COUNT,
    num_shards: int = 8,
    options: Sequence[str] = (),
    progress: model.Progress | None = None,
) -> None:
    """Makes the candidates of a model's sites for one target.

    Args:
      graph: ``graph.json`` from the split step.
      target: one of NVIDIA's; ``compute_90`` and ``sm_90`` give the same candidates.
      out: directory to write: ``candidates.json`` and ``shards/``, as lowering does.
      count: how many configurations of a site, by the ranking that chooses the default.
      num_shards: how many shards the kernels are spread over, by their content.
      options: those of lowering.
      progress: called with a line of text as each part begins.

    Raises:
      LoweringError: the model cannot be lowered, or the target has no tuner.
    """
    if target.platform != "cuda":
        raise LoweringError(
            f"no candidates for {target}: the tuner measures on NVIDIA's GPUs; write entries of "
            "the lock for AMD's by hand (docs/tuning.md)"
        )
    model.check_directory(out)
    say = progress or (lambda _text: None)
    target = target.lowering
    sites = Sites(target.device)
    with model.lowering(graph, sites, target, num_shards, options, say) as lowered:
        making = _Making(lowered, count, num_shards)
        found: list[_Json] = []
        for site in sites.met.values():
            if site.problem is not None and len(site.options) > 1:
                say(site.key)
                found.append(making.of_template(site, sites.uses[site.key]))
        found += making.of_generated()
        tools = making.tools(found)
        folding = making.of_folding()
    found.sort(key=operator.itemgetter("site"))
    others = sites.met.keys() - {each["site"] for each in found}
    value = {
        "schema_version": SCHEMA_VERSION,
        "target": str(target),
        "l2_bytes": target.device.l2_cache,
        "tools": tools,
        "sites": found,
        "not_measured": sorted(others - folding),
        "folding": sorted(others & folding),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        kernels = [making.kernels[name] for name in sorted(making.kernels)]
        model.write_shards(kernels, num_shards, str(target), fresh)
        (fresh / "candidates.json").write_text(canonical_json(value), encoding="utf-8")
        model.put_in_place(fresh, out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


class _Making:
    """Makes candidates; ``kernels`` has those that they use, by name."""

    def __init__(self, lowered: model.Lowered, count: int, num_shards: int) -> None:
        self._lowered = lowered
        self._state = lowered.state
        self._count = count
        self._num_shards = num_shards
        self._device = self._state.target.device
        scratch = lowered.scratch / "candidates"
        scratch.mkdir()
        self._builder = Builder(Sites(self._device), num_shards, scratch)
        symbols = self._state.read.symbols
        self._hints = {
            symbol.name: hint for symbol, hint in zip(symbols.public, symbols.hints, strict=True)
        }
        self.kernels: dict[str, Built] = {}

    def _number(self, dim: Dim) -> int:
        return expression.evaluate(dim, self._hints)

    # Templates.

    def of_template(self, site: Site, uses: int) -> _Json:
        """A template's site. Its problem is lowered once to see what the site is called there:
        where sizes are symbolic, it is not what the model calls it."""
        alone, _ = self._alone(site.problem, {})
        (own,) = [each for each in alone.met.values() if each.problem is not None]
        made = []
        for config in site.options[: self._count]:
            _, translated = self._alone(site.problem, {own.key: Entry(config)})
            made.append(self._candidate(config, translated.procedure))
        problem: Problem = site.problem
        buffers = {
            f"x{i}": self._buffer(dtype_of(each.dtype), _nbytes(each), "in")
            for i, each in enumerate(problem.operands)
        }
        (result,) = translated.results
        buffers["y"] = self._buffer(result.dtype, self._number(result.nbytes), "out")
        return _site(site.key, uses, buffers, made)

    def _alone(
        self, problem: Problem, entries: Mapping[str, Entry]
    ) -> tuple[Sites, ir_lines.Translated]:
        """Lowers a graph that is nothing but a problem."""
        mode = self._state.mode
        graph = Graph()
        inputs = [graph.placeholder(f"x{i}") for i in range(len(problem.operands))]
        with mode:
            for node, operand in zip(inputs, problem.operands, strict=True):
                node.meta["val"] = torch.empty_strided(
                    operand.size, operand.stride, dtype=operand.dtype, device=CUDA
                )
        graph.output((graph.call_function(problem.target, problem.arguments(*inputs)),))
        module = GraphModule(torch.nn.Module(), graph)
        fake = passes.propagate(module, mode)
        sites = Sites(self._device, entries)
        lowered = inductor.lower_graph(
            module, fake, mode, sites, self._lowered.scratch, self._state.options
        )
        if lowered.missing:
            raise LoweringError(f"a candidate cannot be lowered: {lowered.missing[0].reason}")
        sites.check()
        translated = ir_lines.translate(
            lowered,
            {node.name: Ref(space="input", name=node.name) for node in inputs},
            [Ref(space="output", name="y")],
            self._builder,
            self._state.own,
            {},
            self._state.read.symbols,
        )
        return sites, translated

    def _candidate(self, config: Config, procedure: Procedure) -> _Json:
        """A candidate that is a procedure."""
        built = {each.kernel.name: each for each in self._builder.kernels()}
        steps = []
        for step in procedure.steps:
            if not isinstance(step, Launch):
                raise LoweringError(f"a candidate has a {step.kind}, which the tuner cannot run")
            self.kernels[step.kernel] = built[step.kernel]
            steps.append(self._step(step, {}))
        temporaries = {each.name: self._number(each.nbytes) for each in procedure.buffers}
        return {"config": config, "temporaries": temporaries, "steps": steps}

    # Generated kernels.

    def _calls(self) -> list[Launch]:
        """The launches of ``main``."""
        steps = walk(self._lowered.main.procedure.steps)
        return [step for step in steps if isinstance(step, Launch)]

    def of_folding(self) -> set[str]:
        """Keys of the generated kernels that run when the model is loaded, and then no more."""
        called = {step.kernel for step in self._calls()}
        generated = self._state.builder.generated
        return {each.key for name, each in generated.items() if name not in called}

    def of_generated(self) -> list[_Json]:
        """All sites that are generated kernels of ``main``."""
        builder = self._state.builder
        steps = self._calls()
        found = []
        for name, generated in builder.generated.items():
            calls = [step for step in steps if step.kernel == name]
            if calls and len(generated.configs) > 1 and self._is_plain(calls[0], builder, name):
                found.append(self._generated(calls, generated))
        return found

    def _is_plain(self, step: Launch, builder: Builder, name: str) -> bool:
        """Whether a kernel can be run alone: its programs do not wait for each other, nor count."""
        (built,) = [each for each in builder.kernels() if each.kernel.name == name]
        counts = any(param.name.startswith(("ws_ptr", "sem_ptr")) for param in built.kernel.params)
        plain = all(isinstance(arg, PointerArg | ScalarArg) for arg in step.args)
        return plain and not counts and not built.kernel.cooperative

    def _generated(self, calls: Sequence[Launch], generated: Generated) -> _Json:
        step = calls[0]
        names: dict[tuple[str, str], str] = {}
        buffers: dict[str, _Json] = {}
        (params,) = [
            each.kernel.params
            for each in self._state.builder.kernels()
            if each.kernel.name == step.kernel
        ]
        for arg, param in zip(step.args, params, strict=True):
            if not isinstance(arg, PointerArg):
                continue
            place = (arg.ref.space, arg.ref.name)
            name = names.setdefault(place, f"{arg.ref.space}{len(names)}")
            role = {"read": "in", "write": "out", "read_write": "both"}[arg.access]
            before = buffers.get(name)
            if before is None:
                nbytes = self._block(arg.ref)
                buffers[name] = self._buffer(param.dtype, nbytes, role)
            elif before["role"] != role:
                buffers[name] = {**before, "role": "both"}
        made: list[_Json] = []
        seen: set[Launch] = set()
        for config in generated.configs:
            if len(made) == self._count:
                break
            built = generated.make(config)
            x, y, z = self._state.builder.grids[step.kernel](built)
            launch = dataclasses.replace(step, kernel=built.kernel.name, grid=(x, y, z))
            if launch in seen:
                continue
            seen.add(launch)
            self.kernels[built.kernel.name] = built
            made.append(
                {
                    "config": choices.as_config(config),
                    "temporaries": {},
                    "steps": [self._step(launch, names)],
                }
            )
        return _site(generated.key, len(calls), buffers, made)

    def _block(self, ref: Ref) -> int:
        """Bytes of the block that an address lies in."""
        main, outside = self._lowered.main, self._lowered.outside
        if ref.space == "arena":
            (found,) = [each for each in main.procedure.buffers if each.name == ref.name]
            return self._number(found.nbytes)
        if ref.space == "input":
            (spec,) = [each for each in outside.inputs if each.name == ref.name]
            assert isinstance(spec, TensorSpec)
            shape, strides = (tuple(map(self._number, each)) for each in (spec.shape, spec.strides))
            return extent(shape, strides, INFO[spec.dtype].itemsize)
        if ref.space == "weight":
            return weight_nbytes(
                next(each for each in self._state.read.weights.values() if each.name == ref.name)
            )
        results = main.results if ref.space == "output" else self._lowered.folded.results
        return self._number(next(each.nbytes for each in results if each.ref.name == ref.name))

    # Both.

    def _buffer(self, dtype: DType, nbytes: int, role: str) -> _Json:
        return {"dtype": str(dtype), "nbytes": nbytes, "role": role}

    def _step(self, step: Launch, names: Mapping[tuple[str, str], str]) -> _Json:
        return {
            "kernel": step.kernel,
            "grid": [self._number(each) for each in step.grid],
            "args": [self._arg(arg, names) for arg in step.args],
        }

    def _arg(self, arg: Arg, names: Mapping[tuple[str, str], str]) -> _Json:
        if isinstance(arg, ScalarArg):
            number = arg.value
            if not arg.dtype.startswith(("float", "bfloat")):
                number = self._number(number)
            return {"kind": "scalar", "dtype": str(arg.dtype), "value": number}
        name = names.get((arg.ref.space, arg.ref.name), arg.ref.name)
        return {"kind": "pointer", "buffer": name, "offset": self._number(arg.ref.offset)}

    def tools(self, sites: Sequence[_Json]) -> _Json:
        """Makes the kernels that fill inputs and compare results, for the types that occur."""
        tools: _Json = {"block": tuner_kernels.BLOCK, "fill": {}, "compare": {}}
        wanted = {
            "fill": {"in", "both"},
            "compare": {"out", "both"},
        }
        for kind, roles in wanted.items():
            dtypes = {
                buffer["dtype"]
                for site in sites
                for buffer in site["buffers"].values()
                if buffer["role"] in roles
            }
            for dtype in sorted(dtypes):
                if kind == "fill" and not _is_filled(DType(dtype)):
                    continue
                # What arithmetic some targets lack: its bits are compared.
                own = DType.UINT8 if dtype.startswith("float8") else DType(dtype)
                built = tuner_kernels.build(kind, own, self._device, self._num_shards)
                self.kernels[built.kernel.name] = built
                tools[kind][dtype] = built.kernel.name
        return tools


def _is_filled(dtype: DType) -> bool:
    """Whether inputs of a type are random numbers; others are zeros, as they may be indices, or are
    floats of 8 bits, which not all targets have."""
    floating = dtype.startswith(("float", "bfloat")) and not dtype.startswith("float8")
    return dtype == DType.BOOL or floating


def _nbytes(operand: Any) -> int:
    return extent(operand.size, operand.stride, operand.dtype.itemsize)


def _site(key: str, uses: int, buffers: _Json, candidates: list[_Json]) -> _Json:
    return {"site": key, "uses": uses, "buffers": buffers, "candidates": candidates}


__all__ = ["DEFAULT_COUNT", "make"]
