"""Compiles kernels: one, several, or a shard directory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wrapgen import set_condition
from wrapgen.kernels import amdgcn, cubin, ptx, ptxas
from wrapgen.kernels import launch as launches
from wrapgen.kernels import metadata as metadata_module
from wrapgen.kernels.errors import KernelCompileError, KernelResourceError
from wrapgen.kernels.launch import Launch
from wrapgen.kernels.metadata import Metadata
from wrapgen.kernels.process import run_all
from wrapgen.target import Target

_ENVIRONMENT: Final[dict[str, str]] = {}
"""The compiler's environment. Triton, MLIR and LLVM obey dozens of variables; they see none."""

_MOST_ERRORS: Final = 10
"""Of a shard's failures, how many are told in full."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One kernel to compile for one target. ``ttir`` is PTX where the kernel is written in it;
    ``origin`` names it in messages."""

    ttir: bytes
    launch: Launch
    target: Target
    origin: str


@dataclasses.dataclass(frozen=True)
class CompiledKernel:
    """A compiled kernel: the image (cubin, PTX or hsaco), the PTX or assembly of AMD's that it was
    made from, and its metadata."""

    image: bytes
    assembly: str
    metadata: Metadata


def preload() -> None:
    """Imports and sets up what compiling needs, so that processes forked from this one need not."""
    ptx.preload()
    amdgcn.preload()
    cubin.preload()


def compile_kernels(
    requests: Sequence[Request],
    *,
    ptxas_path: Path | None = None,
    jobs: int = 1,
    progress: Callable[[str], None] | None = None,
) -> list[CompiledKernel | KernelCompileError]:
    """Compiles kernels, each in a process of its own; returns results in order of requests.

    A kernel that fails leaves its error in the list (``KernelResourceError`` where only the
    declared device stands in the way), so that configurations can be tried. ``jobs`` processes run
    at a time. ``progress`` gets a line of text per finished kernel.

    The result depends on the requests and on Triton and ptxas, and on nothing else.
    """
    assembler = ptxas.default_ptxas() if ptxas_path is None else ptxas.check_ptxas(ptxas_path)
    for request in requests:
        if request.target.platform == "cuda":
            ptx.code_path(request.target)
    if not requests:
        return []
    preload()
    done = 0

    def finished(index: int) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            request = requests[index]
            progress(f"[{done}/{len(requests)}] {request.launch.name} for {request.target}")

    outcomes = run_all(
        [functools.partial(_compile, request, assembler) for request in requests],
        jobs=jobs,
        environment=_ENVIRONMENT,
        finished=finished,
    )
    results: list[CompiledKernel | KernelCompileError] = []
    for request, outcome in zip(requests, outcomes, strict=True):
        said = f"\n{outcome.output.rstrip()}" if outcome.output.strip() else ""
        if outcome.death:
            results.append(
                KernelCompileError(
                    f"{request.origin}: the compiler {outcome.death} on kernel "
                    f"{request.launch.name} for {request.target}{said}"
                )
            )
        elif isinstance(outcome.error, KernelCompileError):
            kind = type(outcome.error)
            results.append(kind(f"{request.origin}: {outcome.error}{said}"))
        elif outcome.error is not None:
            raise outcome.error
        else:
            assert outcome.value is not None
            results.append(outcome.value)
    return results


def _compile(request: Request, assembler: Path) -> CompiledKernel:
    """Runs in a child process, in an empty directory and environment."""
    if request.target.platform == "hip":
        if _is_written(request.launch.name):
            raise KernelCompileError(
                f"kernel {request.launch.name} for {request.target}: control flow is decided by "
                "conditional nodes of a CUDA graph, and HIP's graphs have none; build models with "
                "torch.cond or while_loop for NVIDIA's GPUs"
            )
        code = amdgcn.generate(request.ttir, request.launch, request.target)
        metadata = metadata_module.gather_hsaco(request.launch, request.target, code)
        return CompiledKernel(code.hsaco, code.text, metadata)
    path = ptx.code_path(request.target)
    written = _is_written(request.launch.name)
    generate = ptx.complete if written else ptx.generate
    generated = generate(request.ttir, request.launch, request.target)
    assembled = ptxas.assemble(request.launch, generated.text, path.assemble_for, assembler)
    metadata, image = metadata_module.gather(request.launch, request.target, generated, assembled)
    if written:
        driver = max(metadata.driver, set_condition.DRIVER)
        metadata = dataclasses.replace(metadata, driver=driver)
    return CompiledKernel(image, generated.text, metadata)


def _is_written(kernel: str) -> bool:
    """Whether a kernel is written in PTX, and there is no TTIR of it."""
    return kernel == set_condition.NAME


def compile_shard(
    shard: Path,
    targets: Sequence[Target],
    out: Path,
    *,
    ptxas_path: Path | None = None,
    jobs: int = 1,
    keep_going: bool = False,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Compiles every kernel of a shard for every target.

    Reads ``<kernel>.ttir`` (``.ptx`` of the one kernel that is written in it) and
    ``<kernel>.json`` in ``shard``, which may be empty; writes
    ``<target>/<kernel>.cubin`` (``.ptx`` for ``compute_*``, ``.hsaco`` for ``gfx*``) and
    ``<target>/<kernel>.json`` in ``out``, which must not exist or be an empty directory, and stays
    as it was on failure. All targets must be those of one lowering, the shard's. ``ptxas_path`` is
    the ptxas to use, by default the one in Triton's wheel. With ``keep_going``, kernels that the
    declared device cannot run are left out, and ``<target>/refused.json`` says why, by the kernel.

    Raises ``KernelCompileError`` that tells every kernel's fault.
    """
    check_targets(targets)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise KernelCompileError(f"{out}: expected an empty directory or none")
    requests = [
        Request(ttir, launch, target, origin)
        for target in sorted(targets)
        for ttir, launch, origin in _read(shard, target)
    ]
    results = compile_kernels(requests, ptxas_path=ptxas_path, jobs=jobs, progress=progress)
    refused: dict[str, dict[str, str]] | None = None
    if keep_going:
        refused = {str(target): {} for target in targets}
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, KernelResourceError):
                refused[str(request.target)][request.launch.name] = str(result)
        results = [each for each in results if not isinstance(each, KernelResourceError)]
    errors = [str(result) for result in results if isinstance(result, KernelCompileError)]
    if errors:
        if len(errors) > _MOST_ERRORS:
            errors[_MOST_ERRORS:] = [f"and {len(errors) - _MOST_ERRORS} more kernels"]
        raise KernelCompileError("\n".join(errors))
    compiled = [result for result in results if isinstance(result, CompiledKernel)]
    _write(out, [str(target) for target in sorted(targets)], compiled, refused)


def check_targets(targets: Sequence[Target]) -> None:
    """Raises ``KernelCompileError`` unless a shard can be compiled for all of them at once."""
    names = ", ".join(str(target) for target in targets)
    if not targets:
        raise KernelCompileError("no target: expected at least one")
    if len(set(targets)) != len(targets):
        raise KernelCompileError(f"targets {names}: one is named twice")
    if len({target.lowering for target in targets}) != 1:
        raise KernelCompileError(
            f"targets {names}: a shard is lowered for one compute capability, or one of AMD's "
            "architectures; compile the shards of each by themselves"
        )


def _read(shard: Path, target: Target) -> list[tuple[bytes, Launch, str]]:
    """Returns TTIR or PTX, launch and the former's path of each kernel, sorted by name."""
    if not shard.is_dir():
        raise KernelCompileError(f"{shard}: no directory: expected a shard that lower wrote")
    names = sorted(entry.name for entry in shard.iterdir())
    stems = sorted({Path(name).stem for name in names})
    sources = {stem: f"{stem}.ptx" if _is_written(stem) else f"{stem}.ttir" for stem in stems}
    expected = {name for stem in stems for name in (f"{stem}.json", sources[stem])}
    for name in sorted(expected.symmetric_difference(names)):
        state = "is missing" if name in expected else "does not belong in a shard"
        raise KernelCompileError(f"{shard / name}: {state}: expected <kernel>.ttir and .json")
    kernels = []
    for stem in stems:
        source = shard / sources[stem]
        launch = launches.load(shard / f"{stem}.json")
        ttir = source.read_bytes()
        digest = hashlib.sha256(ttir).hexdigest()
        if digest != launch.ttir_sha256:
            raise KernelCompileError(
                f"{source}: SHA-256 is {digest}, {stem}.json says {launch.ttir_sha256}"
            )
        if launch.target is not None and launch.target != target.lowering:
            raise KernelCompileError(
                f"{source}: lowered for {launch.target}, cannot be compiled for {target}"
            )
        kernels.append((ttir, launch, str(source)))
    return kernels


def _write(
    out: Path,
    targets: Sequence[str],
    kernels: Sequence[CompiledKernel],
    refused: Mapping[str, Mapping[str, str]] | None,
) -> None:
    """Writes everything beside ``out``, then moves it there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        whole = Path(scratch) / "out"
        for target in targets:
            (whole / target).mkdir(parents=True)
        for kernel in kernels:
            metadata = kernel.metadata
            stem = whole / metadata.target / metadata.name
            stem.with_suffix(f".{metadata.format}").write_bytes(kernel.image)
            _write_json(metadata.as_json(), stem.with_suffix(".json"))
        for target, reasons in (refused or {}).items():
            _write_json(reasons, whole / target / "refused.json")
        if out.exists():  # the build system made it, and may watch it: fill it
            for target in targets:
                (whole / target).rename(out / target)
        else:
            whole.rename(out)


def _write_json(value: Any, path: Path) -> None:
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
