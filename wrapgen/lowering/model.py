"""The lower step: a graph without weights in; a program, TTIR and Triton sources out."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.fx import GraphModule, Node

from wrapgen import options as options_module
from wrapgen import program as program_file
from wrapgen import set_condition, sizes
from wrapgen.lowering import (
    control,
    folding,
    graph_file,
    inductor,
    ir_lines,
    passes,
    rewrites,
)
from wrapgen.lowering.declared_device import declared
from wrapgen.lowering.errors import LoweringError, Offence, unsupported
from wrapgen.lowering.interface import Interface, interface
from wrapgen.lowering.ir_lines import refs_of
from wrapgen.lowering.kernel import Builder, Built
from wrapgen.lowering.sites import Sites
from wrapgen.lowering.user_kernels import UserBuilder
from wrapgen.program import (
    Buffer,
    If,
    Kernel,
    Procedure,
    Program,
    Ref,
    SourceNode,
    TensorSpec,
    While,
    walk,
)
from wrapgen.target import Target
from wrapgen.tuning import lock

Progress = Callable[[str], None]


def lower(
    graph: Path,
    target: Target,
    out: Path,
    *,
    num_shards: int = 8,
    options: Sequence[str] = (),
    tuning: Path | None = None,
    progress: Progress | None = None,
) -> Program:
    """Lowers a model for one target.

    Args:
      graph: ``graph.json`` from the split step.
      target: what to lower for; ``compute_90`` and ``sm_90`` give the same program.
      out: directory to write: ``program.json``, ``shards/NN/*.ttir`` and ``*.json``,
        ``sources/*.py``, ``sites.json``. It must be missing, empty or a previous result, which is
        replaced; on failure it stays as it was.
      num_shards: how many shards the kernels are spread over, by their content.
      options: names of ``wrapgen.options.OPTIONS``; those that do not hold for the target change
        nothing.
      tuning: the tuning lock, if there is one. A site that it does not have is configured by the
        cost model; its entries of sites that the model does not have are told on standard error
        and in ``sites.json``.
      progress: called with a line of text as each part begins.

    Raises:
      OptionError: an option is not known.
      LockError: the lock is malformed, or an entry cannot be used; the message lists all.
      LoweringError: the model needs something that cannot be built; the message lists it all.
        Or ``out`` holds something else, or the environment would change the result.
    """
    _check_environment()
    check_directory(out)
    say = progress or _silent
    target = target.lowering
    sites = _sites(target, tuning)
    with lowering(graph, sites, target, num_shards, options, say) as lowered:
        pass
    sites.check()
    if sites.unused:
        print(_unused(sites, target, tuning), file=sys.stderr)
    state = lowered.state
    program = _program(
        state, lowered.outside, lowered.mutated, num_shards, lowered.folded, lowered.main
    )
    _check_dependents(state)
    say(f"writing {len(program.kernels)} kernels")
    _write(program, state.builder, out)
    return program


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A model whose two parts are lowered. ``scratch`` is a directory that goes with it."""

    state: State
    outside: Interface
    mutated: tuple[str, ...]
    folded: ir_lines.Translated
    main: ir_lines.Translated
    scratch: Path


@contextlib.contextmanager
def lowering(
    graph: Path,
    sites: Sites,
    target: Target,
    num_shards: int,
    options: Sequence[str],
    say: Progress,
) -> Iterator[Lowered]:
    """Lowers a model; while the context is open, PyTorch still sees the declared device.

    ``lower`` says what the arguments are, and what is raised.
    """
    holding = options_module.that_hold(options_module.check(options), target)
    with warnings.catch_warnings(), sizes.general():
        # PyTorch warns of itself, each time a program is decomposed.
        warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
        say("reading the graph")
        read = graph_file.read(graph)
        outside = interface(read.program, read.inputs, read.symbols)
        say("decomposing")
        module, strides, mutated = simplified(read)
        with declared(target.device), tempfile.TemporaryDirectory(prefix="wrapgen-") as scratch:
            builder = Builder(sites, num_shards, Path(scratch))
            state = State(read, target, builder, holding)
            parts = state.divide(module, strides)
            names = _constant_names(parts.constants, read.names)
            say("lowering the constant-folding program")
            folded = state.run(parts.folding, {}, _refs("constant", names.values()), Path(scratch))
            say("lowering the model")
            known = {node: Ref(space="constant", name=name) for node, name in names.items()}
            known |= {spec.name: Ref(space="input", name=spec.name) for spec in outside.inputs}
            results = _refs("output", [name for name, _ in outside.outputs])
            main = state.run(parts.main, known, results, Path(scratch))
            state.check()
            yield Lowered(state, outside, mutated, folded, main, Path(scratch))


def _sites(target: Target, tuning: Path | None) -> Sites:
    """What chooses configurations for a target, with a lock or without."""
    if tuning is None:
        return Sites(target.device)
    where = f"{tuning}: targets.{target}"
    return Sites(target.device, lock.load(tuning).entries(str(target)), where)


def _unused(sites: Sites, target: Target, tuning: Path | None) -> str:
    """Says which of a lock's entries are of no use. That is no fault: an edit may make them so."""
    listed = "\n".join(f"  {key}" for key in sites.unused)
    return (
        f"{tuning}: the model has no such site for {target} (any more), the entry is not used:\n"
        f"{listed}\nTune again (bazel run :NAME.tune -- --prune), or remove the entries."
    )


def simplified(
    read: graph_file.GraphFile,
) -> tuple[GraphModule, list[tuple[Any, ...]], tuple[str, ...]]:
    """Gives the decomposed graph, the strides of its results, and the inputs it changes."""
    passes.mark_origins(read.program.graph_module)
    with passes.python_dispatch(read.mode):
        rewrites.exported(read.program.graph, read.names)
    decomposed = passes.decompose(read.program, rewrites.DECOMPOSITIONS)
    passes.drop_effects(decomposed)
    mutated = passes.write_back(decomposed)
    module = decomposed.graph_module
    strides = passes.dense_outputs(module.graph)
    for each in control.graphs(module):
        passes.move_to_gpu(each.graph)
    read.symbols.check("decomposing the graph")
    return module, strides, mutated


def _silent(_text: str) -> None:
    pass


_HARMLESS = re.compile(r".*(_CACHE_DIR|_HOME|_PATH)\Z")


def _check_environment() -> None:
    """PyTorch and Triton take settings from the environment; a build takes none from there."""
    found = [
        name
        for name in sorted(os.environ)
        if name.startswith(("TORCHINDUCTOR_", "TRITON_", "TORCH_COMPILE_"))
        and not _HARMLESS.match(name)
    ]
    if found:
        raise LoweringError(f"the environment would change the kernels: unset {', '.join(found)}")


RESULTS = ("program.json", "candidates.json")
"""What tells a directory that lowering wrote."""


def check_directory(out: Path) -> None:
    """Raises ``LoweringError`` unless a directory may be written, or filled."""
    if out.exists() and not out.is_dir():
        raise LoweringError(f"{out}: not a directory")
    foreign = out.exists() and not all(_is_build_system_s(path) for path in out.iterdir())
    if foreign and not any((out / name).exists() for name in RESULTS):
        raise LoweringError(
            f"{out}: holds something else than the result of lowering: name another directory, or"
            " empty it"
        )


def _is_build_system_s(path: Path) -> bool:
    """Whether this is a directory made for us to fill, or a file that our arguments come from."""
    if path.is_dir():
        return not any(inner.is_file() for inner in path.rglob("*"))
    return path.suffix == ".params"


class State:
    """What lowering the two parts of a model shares."""

    def __init__(
        self,
        read: graph_file.GraphFile,
        target: Target,
        builder: Builder,
        options: tuple[str, ...] = (),
    ) -> None:
        self.read = read
        self.options = options
        self.target = target
        self.builder = builder
        self.own = UserBuilder(read.kernels, target, builder)
        self.mode = read.symbols.fake_mode()
        self.offences: list[Offence] = []

    def divide(self, module: GraphModule, strides: Sequence[tuple[Any, ...]]) -> folding.Divided:
        """Chooses layouts and divides the graph into what runs at load and at each call."""
        for node, reason in control.refusals(module, self.target.platform):
            self.offences.append(self._offence(inductor.Missing(node, reason)))
        self.check()
        control.expand_maps(module)
        passes.propagate(module, self.mode)
        with passes.python_dispatch(self.mode):
            rewrites.decomposed(module, self.mode)
        return folding.divide(module, self.read.names, strides)

    def run(
        self, module: GraphModule | None, known: Mapping[str, Ref], results: list[Ref], cache: Path
    ) -> ir_lines.Translated:
        """Lowers one part. Its faults are kept for ``check``, so that both parts are reported."""
        if module is None:
            return _NOTHING
        known = dict(known)
        for name, weight in self.read.weights.items():
            known[name] = Ref(space="weight", name=weight.name)
        if control.has_control(module.graph):
            return control.Pieces(self, cache).translate(module, known, results)
        return self.lower(module, known, results, cache)

    def lower(
        self,
        module: GraphModule,
        known: Mapping[str, Ref],
        results: Sequence[Ref],
        cache: Path,
        prefix: str = "",
    ) -> ir_lines.Translated:
        """Lowers a graph without branches and loops; ``known`` has all of its placeholders."""
        inputs = passes.propagate(module, self.mode)
        lowered = inductor.lower_graph(
            module, inputs, self.mode, self.builder.sites, cache, self.options
        )
        self.offences += [self._offence(missing) for missing in lowered.missing]
        if self.offences:
            return _NOTHING
        self.read.symbols.check("choosing kernels")
        return ir_lines.translate(
            lowered,
            known,
            results,
            self.builder,
            self.own,
            self.read.sources,
            self.read.symbols,
            prefix,
        )

    def sources_of(self, node: Node) -> tuple[SourceNode, ...]:
        """What a node comes from."""
        names = passes.origins(node)
        return tuple(self.read.sources[name] for name in names if name in self.read.sources)

    def check(self) -> None:
        """Raises if anything was found that cannot be lowered; the message lists it all."""
        if self.offences:
            raise unsupported(self.offences, str(self.target))

    def _offence(self, missing: inductor.Missing) -> Offence:
        source = next(iter(self.sources_of(missing.node)), None)
        inside = passes.INSIDE in (missing.node.meta.get("custom") or {})
        op = str(missing.node.target) if inside or source is None else source.op
        return Offence(op=op, reason=missing.reason, source=source)


_NOTHING = ir_lines.Translated(Procedure(buffers=(), steps=()), ())


def _constant_names(nodes: Sequence[Node], weights: Mapping[str, str]) -> dict[str, str]:
    """Names each constant after what it holds or the weight it is made from."""
    names: dict[str, str] = {}
    for node in nodes:
        found = node
        while not passes.label(found) and found.op != "placeholder" and found.all_input_nodes:
            found = found.all_input_nodes[0]
        base = passes.label(found)
        if not base:
            weight = weights.get(found.name, "constant")
            base = f"{weight}.{getattr(node.target, '__name__', 'value').split('.')[0]}"
        name, count = base, 1
        while name in names.values():
            count += 1
            name = f"{base}.{count}"
        names[node.name] = name
    return names


def _refs(space: Any, names: Any) -> list[Ref]:
    return [Ref(space=space, name=name) for name in names]


def _program(
    state: State,
    outside: Interface,
    mutated: tuple[str, ...],
    num_shards: int,
    folded: ir_lines.Translated,
    main: ir_lines.Translated,
) -> Program:
    procedures = (folded.procedure, main.procedure)
    refs = [
        ref for procedure in procedures for step in walk(procedure.steps) for ref in refs_of(step)
    ]
    used = {ref.name for ref in refs if ref.space == "weight"}
    symbols = state.read.symbols
    return Program(
        schema_version=program_file.SCHEMA_VERSION,
        target=str(state.target),
        num_shards=num_shards,
        options=state.options,
        symbols=symbols.public,
        constraints=symbols.constraints,
        inputs=tuple(
            dataclasses.replace(spec, mutated=True)
            if isinstance(spec, TensorSpec) and spec.name in mutated
            else spec
            for spec in outside.inputs
        ),
        fixed=outside.fixed,
        outputs=tuple(
            TensorSpec(
                name=name,
                path=path,
                dtype=result.dtype,
                shape=result.shape,
                strides=result.strides,
            )
            for (name, path), result in zip(outside.outputs, main.results, strict=True)
        ),
        call_spec=outside.call_spec,
        weights=tuple(w for w in state.read.weights.values() if w.name in used),
        constants=tuple(
            Buffer(
                name=result.ref.name,
                dtype=result.dtype,
                shape=result.shape,
                strides=result.strides,
                nbytes=result.nbytes,
                node=result.node,
            )
            for result in folded.results
        ),
        kernels=_kernels(state.builder, num_shards, procedures),
        folding=folded.procedure,
        main=main.procedure,
    )


def _kernels(
    builder: Builder, num_shards: int, procedures: Sequence[Procedure]
) -> tuple[Kernel, ...]:
    kernels = [built.kernel for built in builder.kernels()]
    steps = [step for procedure in procedures for step in walk(procedure.steps)]
    if any(isinstance(step, If | While) for step in steps):
        kernels.append(set_condition.kernel(num_shards))
    return tuple(sorted(kernels, key=lambda kernel: kernel.name))


_GRID_WAIT = "griddepcontrol.wait"
_GRID_LAUNCH = "griddepcontrol.launch_dependents"


def _check_dependents(state: State) -> None:
    """Raises where a generated kernel could start too early.

    Such a kernel reads what kernels before the last one wrote, without waiting: that these have
    ended follows from the last one having waited before it lets others start.
    """
    if "dependent_launch" not in state.options:
        return
    for built in state.builder.kernels():
        launch, wait = built.ttir.find(_GRID_LAUNCH), built.ttir.find(_GRID_WAIT)
        if built.kernel.launch_pdl and 0 <= launch < wait:
            raise LoweringError(
                f"the Triton kernel {built.kernel.name} lets the kernel behind it start before it"
                " has waited for the one ahead of it, which does not go with the option"
                " dependent_launch: call gdc_wait() before gdc_launch_dependents(), or do without"
                " the option"
            )


def _write(program: Program, builder: Builder, out: Path) -> None:
    """Writes everything beside ``out`` and puts it in place last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        write_shards(builder.kernels(), program.num_shards, program.target, fresh)
        (fresh / "sources").mkdir()
        for built in builder.kernels():
            _write_text(fresh / "sources" / f"{built.kernel.name}.py", built.source)
        for kernel in program.kernels:
            if kernel.name == set_condition.NAME:
                stem = fresh / "shards" / f"{kernel.shard:02d}" / kernel.name
                _write_text(stem.with_suffix(".ptx"), set_condition.PTX)
                _write_text(stem.with_suffix(".json"), _options(kernel, program.target))
        _write_text(fresh / "program.json", program_file.dumps(program))
        report = builder.sites.report(program.target)
        _write_text(fresh / "sites.json", program_file.canonical_json(report))
        put_in_place(fresh, out)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def write_shards(kernels: Sequence[Built], num_shards: int, target: str, out: Path) -> None:
    """Writes ``shards/NN/*.ttir`` and ``*.json``, which the compile step reads."""
    for i in range(num_shards):
        (out / "shards" / f"{i:02d}").mkdir(parents=True)
    for built in kernels:
        kernel = built.kernel
        stem = out / "shards" / f"{kernel.shard:02d}" / kernel.name
        _write_text(stem.with_suffix(".ttir"), built.ttir)
        _write_text(stem.with_suffix(".json"), _options(kernel, target))


def put_in_place(fresh: Path, out: Path) -> None:
    """Moves a directory that was written beside ``out`` there."""
    for path in sorted(fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    fresh.chmod(0o755)
    if out.exists():
        for new in fresh.iterdir():  # the build system made the directory, and may watch it
            old = out / new.name
            if old.exists():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            new.rename(old)
        fresh.rmdir()
    else:
        fresh.rename(out)


def _options(kernel: Kernel, target: str) -> str:
    """What the compile step needs to know of a kernel beside its TTIR."""
    return program_file.canonical_json(
        {
            "name": kernel.name,
            "target": target,
            "ttir_sha256": kernel.ttir_sha256,
            "num_warps": kernel.num_warps,
            "num_stages": kernel.num_stages,
            "num_ctas": kernel.num_ctas,
            "launch_pdl": kernel.launch_pdl,
            "params": [dataclasses.asdict(param) for param in kernel.params],
        }
    )


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))
