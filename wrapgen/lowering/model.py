"""The lower step: a graph without weights in; a program, TTIR and Triton sources out."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from wrapgen import program as program_file
from wrapgen.dtype import INFO
from wrapgen.lowering import folding, graph_file, inductor, ir_lines, passes, rewrites
from wrapgen.lowering.declared_device import declared
from wrapgen.lowering.errors import LoweringError, Offence, unsupported
from wrapgen.lowering.ir_lines import refs_of
from wrapgen.lowering.kernel import Builder
from wrapgen.program import Buffer, Kernel, Procedure, Program, Ref, TensorSpec
from wrapgen.target import Target

Progress = Callable[[str], None]


def lower(
    graph: Path,
    target: Target,
    out: Path,
    *,
    num_shards: int = 8,
    progress: Progress | None = None,
) -> Program:
    """Lowers a model for one target.

    Args:
      graph: ``graph.json`` from the split step.
      target: what to lower for; ``compute_90`` and ``sm_90`` give the same program.
      out: directory to write: ``program.json``, ``shards/NN/*.ttir`` and ``*.json``,
        ``sources/*.py``. It must be missing, empty or a previous result, which is replaced; on
        failure it stays as it was.
      num_shards: how many shards the kernels are spread over, by their content.
      progress: called with a line of text as each part begins.

    Raises:
      LoweringError: the model needs something that cannot be built; the message lists it all.
        Or ``out`` holds something else, or the environment would change the result.
    """
    _check_environment()
    _check_directory(out)
    say = progress or _silent
    target = target.lowering
    with warnings.catch_warnings():
        # PyTorch warns of itself, each time a program is decomposed.
        warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
        say("reading the graph")
        read = graph_file.read(graph)
        inputs, outputs = _interface(read)
        say("decomposing")
        module, strides = _simplified(read)
        with declared(target.device), tempfile.TemporaryDirectory(prefix="wrapgen-") as scratch:
            state = _State(read, target, Builder(target.device, num_shards, Path(scratch)))
            parts = state.divide(module, strides)
            names = _constant_names(parts.constants, read.names)
            say("lowering the constant-folding program")
            folded = state.run(parts.folding, {}, _refs("constant", names.values()), Path(scratch))
            say("lowering the model")
            known = {node: Ref(space="constant", name=name) for node, name in names.items()}
            known |= {spec.name: Ref(space="input", name=spec.name) for spec in inputs}
            results = _refs("output", [name for name, _ in outputs])
            main = state.run(parts.main, known, results, Path(scratch))
            state.check()
    program = _program(read, target, num_shards, inputs, outputs, folded, main, state)
    say(f"writing {len(program.kernels)} kernels")
    _write(program, state.builder, out)
    return program


def _simplified(read: graph_file.GraphFile) -> tuple[GraphModule, list[tuple[int, ...]]]:
    """Gives the decomposed graph, batch norms folded, and the strides of its outputs."""
    passes.mark_origins(read.program.graph_module)
    rewrites.exported(read.program.graph, read.names)
    decomposed = passes.decompose(read.program, rewrites.DECOMPOSITIONS)
    _refuse_mutation(decomposed)
    passes.drop_effects(decomposed)
    module = decomposed.graph_module
    strides = passes.dense_outputs(module.graph)
    passes.move_to_gpu(module.graph)
    return module, strides


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


def _check_directory(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise LoweringError(f"{out}: not a directory")
    foreign = out.exists() and not all(_is_build_system_s(path) for path in out.iterdir())
    if foreign and not (out / "program.json").exists():
        raise LoweringError(
            f"{out}: holds something else than the result of lowering: name another directory, or"
            " empty it"
        )


def _is_build_system_s(path: Path) -> bool:
    """Whether this is a directory made for us to fill, or a file that our arguments come from."""
    if path.is_dir():
        return not any(inner.is_file() for inner in path.rglob("*"))
    return path.suffix == ".params"


class _State:
    """What lowering the two parts of a model shares."""

    def __init__(self, read: graph_file.GraphFile, target: Target, builder: Builder) -> None:
        self.read = read
        self.target = target
        self.builder = builder
        # Results remembered from before would be those of another device.
        FakeTensorMode.cache_clear()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
        self.offences: list[Offence] = []

    def divide(self, module: GraphModule, strides: Sequence[tuple[int, ...]]) -> folding.Divided:
        """Chooses layouts and divides the graph into what runs at load and at each call."""
        self.refuse(passes.higher_order(module.graph), "control flow is not supported")
        passes.propagate(module, self.mode)
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
        inputs = passes.propagate(module, self.mode)
        lowered = inductor.lower_graph(module, inputs, self.mode, self.target.device, cache)
        self.offences += [self._offence(missing) for missing in lowered.missing]
        if self.offences:
            return _NOTHING
        return ir_lines.translate(lowered, known, results, self.builder, self.read.sources)

    def refuse(self, nodes: Iterable[Node], reason: str) -> None:
        """Raises if there are any nodes."""
        self.offences += [self._offence(inductor.Missing(node, reason)) for node in nodes]
        self.check()

    def check(self) -> None:
        if self.offences:
            raise unsupported(self.offences, str(self.target))

    def _offence(self, missing: inductor.Missing) -> Offence:
        sources = [
            self.read.sources[name]
            for name in passes.origins(missing.node)
            if name in self.read.sources
        ]
        source = sources[0] if sources else None
        op = source.op if source else str(missing.node.target)
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


def _interface(
    read: graph_file.GraphFile,
) -> tuple[tuple[TensorSpec, ...], tuple[tuple[str, str], ...]]:
    """Gives the inputs, and name and path of each output; refuses what is not supported."""
    program = read.program
    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    faults: list[str] = []
    names = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind is InputKind.USER_INPUT
    ]
    in_spec = program.call_spec.in_spec
    assert in_spec is not None
    inputs = []
    for name, path in zip(names, _paths(in_spec, ("args", "kwargs")), strict=True):
        value = placeholders[name].meta.get("val") if name in placeholders else None
        if not isinstance(value, torch.Tensor):
            faults.append(
                f"input {path} is {type(value).__name__}, not a tensor: make it a constant of the"
                " model, or a tensor"
            )
            continue
        dynamic = [i for i, extent in enumerate(value.shape) if not isinstance(extent, int)]
        faults += [
            f"input {path} ({name}): dimension {i} is dynamic ({value.shape[i]}); shapes must be"
            " static so far: export without dynamic_shapes for it"
            for i in dynamic
        ]
        if not dynamic:
            inputs.append(
                TensorSpec(
                    name=name,
                    path=path,
                    dtype=graph_file.dtype_of(value.dtype),
                    shape=tuple(value.shape),
                    strides=tuple(value.stride()),
                )
            )
    out_spec = program.call_spec.out_spec
    assert out_spec is not None
    outputs = []
    specs = program.graph_signature.output_specs
    user = [spec for spec in specs if spec.kind is OutputKind.USER_OUTPUT]
    paths = _paths(out_spec, ())
    for spec, path in zip(user, paths, strict=True):
        if not isinstance(spec.arg, torch.export.graph_signature.TensorArgument):
            faults.append(f"{path} is no tensor: return tensors only")
            continue
        outputs.append((_output_name(path), path))
    if faults:
        raise LoweringError("cannot lower the model:\n" + "\n".join(f"  {f}" for f in faults))
    return tuple(inputs), tuple(outputs)


def _refuse_mutation(program: ExportedProgram) -> None:
    """Raises if the model writes to its inputs or buffers; decomposition makes that visible."""
    allowed = (OutputKind.USER_OUTPUT, OutputKind.TOKEN)
    faults = [
        f"  the model changes {spec.target} when it is called"
        f" ({spec.kind.name.lower().replace('_', ' ')}): make it return the new value instead"
        for spec in program.graph_signature.output_specs
        if spec.kind not in allowed
    ]
    if faults:
        raise LoweringError("\n".join(["cannot lower the model:", *faults]))


def _paths(spec: pytree.TreeSpec, roots: tuple[str, ...]) -> list[str]:
    """Spells where each leaf stands: ``args[0]``, ``kwargs["mask"]``, ``outputs[0].logits``."""
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths = []
    for keys, _ in pytree.tree_flatten_with_path(tree)[0]:
        text, rest = "outputs", list(keys)
        if roots:
            root = rest.pop(0)
            assert isinstance(root, pytree.SequenceKey)
            text = roots[root.idx]
        for key in rest:
            if isinstance(key, pytree.SequenceKey):
                text += f"[{key.idx}]"
            elif isinstance(key, pytree.MappingKey):
                text += f'["{key.key}"]' if isinstance(key.key, str) else f"[{key.key}]"
            else:
                text += str(key)
        paths.append(text)
    return paths


def _output_name(path: str) -> str:
    """An identifier from a path: ``outputs`` is ``output``, ``outputs[0].logits`` ``logits_0``."""
    rest = path.removeprefix("outputs")
    words = [word for word in re.split(r"\W+", rest) if word]
    if not words:
        return "output"
    name = "_".join(words)
    return name if program_file.IDENTIFIER.match(name) else f"output_{name}"


def _program(
    read: graph_file.GraphFile,
    target: Target,
    num_shards: int,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[tuple[str, str], ...],
    folded: ir_lines.Translated,
    main: ir_lines.Translated,
    state: _State,
) -> Program:
    procedures = (folded.procedure, main.procedure)
    refs = [ref for procedure in procedures for step in procedure.steps for ref in refs_of(step)]
    used = {ref.name for ref in refs if ref.space == "weight"}
    return Program(
        schema_version=program_file.SCHEMA_VERSION,
        target=str(target),
        num_shards=num_shards,
        symbols=(),
        inputs=inputs,
        outputs=tuple(
            TensorSpec(
                name=name,
                path=path,
                dtype=result.dtype,
                shape=result.shape,
                strides=result.strides,
            )
            for (name, path), result in zip(outputs, main.results, strict=True)
        ),
        weights=tuple(w for w in read.weights.values() if w.name in used),
        constants=tuple(
            Buffer(
                name=result.ref.name,
                dtype=result.dtype,
                shape=result.shape,
                strides=result.strides,
                nbytes=math.prod(result.shape) * INFO[result.dtype].itemsize,
            )
            for result in folded.results
        ),
        kernels=tuple(built.kernel for built in state.builder.kernels()),
        folding=folded.procedure,
        main=main.procedure,
    )


def _write(program: Program, builder: Builder, out: Path) -> None:
    """Writes everything beside ``out`` and puts it in place last."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        for i in range(program.num_shards):
            (fresh / "shards" / f"{i:02d}").mkdir(parents=True)
        (fresh / "sources").mkdir()
        for built in builder.kernels():
            kernel = built.kernel
            stem = fresh / "shards" / f"{kernel.shard:02d}" / kernel.name
            _write_text(stem.with_suffix(".ttir"), built.ttir)
            _write_text(stem.with_suffix(".json"), _options(kernel, program.target))
            _write_text(fresh / "sources" / f"{kernel.name}.py", built.source)
        _write_text(fresh / "program.json", program_file.dumps(program))
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
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


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
            "params": [dataclasses.asdict(param) for param in kernel.params],
        }
    )


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))
