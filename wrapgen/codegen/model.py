"""Programs and compiled kernels to the files of a model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wrapgen import program as program_module
from wrapgen.codegen import aotinductor as aotinductor_source
from wrapgen.codegen import debug, kernels, memory, model_header, model_source, scratch
from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.names import check_model_name
from wrapgen.program import Program, Weight
from wrapgen.target import Target, TargetError, platform_of


def wrap_files(
    name: str,
    programs: Mapping[Target, Path],
    kernel_dirs: Sequence[Path],
    targets: Sequence[Target],
    out: Path,
    *,
    debug_modes: Sequence[str] = (),
    aotinductor: bool = False,
) -> None:
    """``wrap`` for program files; raises ``ProgramError`` for a malformed one."""
    loaded = {target: program_module.load(path) for target, path in programs.items()}
    wrap(
        name,
        loaded,
        kernel_dirs,
        targets,
        out,
        debug_modes=debug_modes,
        aotinductor=aotinductor,
    )


def wrap(
    name: str,
    programs: Mapping[Target, Program],
    kernel_dirs: Sequence[Path],
    targets: Sequence[Target],
    out: Path,
    *,
    debug_modes: Sequence[str] = (),
    aotinductor: bool = False,
) -> None:
    """Writes the C++ of a model: model.h, model.cc, entry.cc, kernels.S and images/. With
    ``aotinductor`` also aotinductor.cc, which AOTInductor's interface to the model needs.

    ``programs`` maps each SASS target that something is built from to its program; ``targets`` are
    what the model carries, SASS or PTX; ``kernel_dirs`` are outputs of the compile step, with
    ``<target>/<kernel>.json`` and its image. What an earlier run wrote to ``out`` is replaced, once
    all is written beside it. ``debug_modes`` are some of ``options.DEBUG_MODES``. Raises
    ``CodegenError``, before anything is written.
    """
    files = generate(
        name,
        programs,
        kernel_dirs,
        targets,
        debug_modes=debug_modes,
        aotinductor=aotinductor,
    )
    write(files, out, "images")


def write(files: Mapping[str, bytes], out: Path, directory: str) -> None:
    """Writes files, by path below ``out``. What an earlier run wrote is replaced, of ``directory``
    in it all there is, once everything is written beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        whole = Path(scratch) / "out"
        (whole / directory).mkdir(parents=True)
        for path, data in files.items():
            (whole / path).parent.mkdir(exist_ok=True)
            (whole / path).write_bytes(data)
        out.mkdir(exist_ok=True)
        if (out / directory).exists():
            shutil.rmtree(out / directory)
        for made in sorted(whole.iterdir()):
            made.replace(out / made.name)


def generate(
    name: str,
    programs: Mapping[Target, Program],
    kernel_dirs: Sequence[Path],
    targets: Sequence[Target],
    *,
    debug_modes: Sequence[str] = (),
    aotinductor: bool = False,
) -> dict[str, bytes]:
    """Makes the files that ``wrap`` writes, by their path in its output."""
    debugging = debug.parse(name, debug_modes)
    embedding = kernels.Embedding(name)
    models = lowered_models(name, programs, kernel_dirs, targets, embedding)
    first = models[0].program
    ordered = sorted(targets, key=_order)
    texts = {
        "model.h": model_header.header(name, first, ordered),
        "model.cc": model_source.source(name, models, debugging),
        "entry.cc": model_header.entry(name),
        "kernels.S": embedding.assembly(),
    }
    if aotinductor:
        if platform_of(targets) == "hip":
            raise CodegenError(
                "AOTInductor's interface is there for NVIDIA's GPUs alone, the targets are "
                f"{', '.join(map(str, ordered))}; build the library without"
            )
        texts["aotinductor.cc"] = aotinductor_source.source(name, first, targets)
    return {path: text.encode() for path, text in texts.items()} | embedding.files()


def lowered_models(
    name: str,
    programs: Mapping[Target, Program],
    kernel_dirs: Sequence[Path],
    targets: Sequence[Target],
    embedding: kernels.Embedding,
) -> list[model_source.Lowered]:
    """The programs that targets are built from, each with its memory plan and its kernels, which
    are added to ``embedding``. Raises ``CodegenError`` unless they are one model."""
    check_model_name(name)
    _check_targets(programs, targets)
    lowerings = sorted({target.lowering for target in targets})
    _check_agreement([programs[lowering] for lowering in lowerings])
    return [
        _lowered(programs[lowering], lowering, kernel_dirs, targets, embedding)
        for lowering in lowerings
    ]


def _order(target: Target) -> tuple[bool, Target]:
    """Machine code before PTX, as the runtime prefers it."""
    return (not target.is_machine_code, target)


def _check_targets(programs: Mapping[Target, Program], targets: Sequence[Target]) -> None:
    if not targets:
        raise CodegenError("no target: name at least one, such as sm_90")
    if len(set(targets)) != len(targets):
        raise CodegenError(f"a target is named twice: {', '.join(map(str, targets))}")
    try:
        platform_of(targets)
    except TargetError as error:
        raise CodegenError(str(error)) from error
    for target, program in sorted(programs.items()):
        if program.target != str(target):
            raise CodegenError(f"the program given for {target} was lowered for {program.target}")
    for target in targets:
        if target.lowering not in programs:
            given = ", ".join(map(str, sorted(programs))) or "none"
            raise CodegenError(
                f"{target} needs the program lowered for {target.lowering}; given: {given}"
            )
    unused = sorted(set(programs) - {target.lowering for target in targets})
    if unused:
        raise CodegenError(
            f"the program for {unused[0]} is used by none of the targets "
            + ", ".join(map(str, targets))
        )


def _check_agreement(programs: Sequence[Program]) -> None:
    """Raises ``CodegenError`` unless all programs look the same from outside."""
    first = programs[0]
    for other in programs[1:]:
        groups: list[tuple[str, Sequence[Any], Sequence[Any]]] = [
            ("symbols", first.symbols, other.symbols),
            ("constraints", first.constraints, other.constraints),
            ("inputs", first.inputs, other.inputs),
            ("fixed", first.fixed, other.fixed),
            ("outputs", first.outputs, other.outputs),
            ("call_spec", [first.call_spec], [other.call_spec]),
            ("weights", _sorted(first.weights), _sorted(other.weights)),
        ]
        for group, ours, theirs in groups:
            for i in range(max(len(ours), len(theirs))):
                a = str(ours[i]) if i < len(ours) else "nothing"
                b = str(theirs[i]) if i < len(theirs) else "nothing"
                if a != b:
                    raise CodegenError(
                        f"the programs differ in {group}[{i}]: {first.target} has {a}, "
                        f"{other.target} has {b}; lower both from the same graph"
                    )


def _sorted(weights: Sequence[Weight]) -> list[Weight]:
    return sorted(weights, key=lambda weight: weight.name)


def _lowered(
    program: Program,
    lowering: Target,
    kernel_dirs: Sequence[Path],
    targets: Sequence[Target],
    embedding: kernels.Embedding,
) -> model_source.Lowered:
    builds = []
    for target in sorted(targets, key=_order):
        if target.lowering == lowering:
            images = [
                kernels.load(kernel, target, kernel_dirs)
                for kernel in model_source.launched(program)
            ]
            entries = [model_source.EmbeddedImage(im, embedding.add(im)) for im in images]
            builds.append(model_source.Build(target, tuple(entries)))
    # One memory plan serves all that were built of the program.
    nbytes: dict[str, int] = {}
    for build in builds:
        for entry in build.images:
            name, metadata = entry.image.kernel, entry.image.metadata
            nbytes[name] = max(nbytes.get(name, 0), metadata.global_scratch)
    nbytes = {name: needed for name, needed in nbytes.items() if needed}
    provided = scratch.provide(program, nbytes)
    return model_source.Lowered(provided, memory.plan(provided), tuple(builds), nbytes)
