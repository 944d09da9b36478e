"""All steps in one process: a ``.pt2`` file in; kernels, C++ and, with a compiler, a library out.

The files are those that the steps give one by one. The output directory::

    graph.json  weights.safetensors         split
    TARGET/program.json, shards/, sources/  lower, once a compute capability
    kernels/TARGET/NN/                      compile, once a shard
    generated/model.h, model.cc, ...        wrap
    libNAME.so                              link
    NAME.aotinductor.pt2                    with AOTInductor's interface: torch-package
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from wrapgen import sources
from wrapgen.target import Platform, Target, platform_of

Say = Callable[[str], None]

_EXPORTS: Final = "exports.lds"
_COMPILE_FLAGS: Final = (
    "-std=c++17",
    "-O2",
    "-DNDEBUG",  # assertions would carry the paths of headers
    "-fPIC",
    "-fvisibility=hidden",
    "-ffunction-sections",
)
_LINK_FLAGS: Final = (
    "-shared",
    "-Wl,--no-undefined",
    "-Wl,--as-needed",
    "-Wl,--gc-sections",
    "-Wl,--build-id=sha1",  # of the content
)
_HEADERS: Final = {
    "dlpack/dlpack.h": "DLPack's headers",
    "nlohmann/json.hpp": "nlohmann json's headers",
}
_NVTX: Final = {"nvtx3/nvToolsExt.h": "NVTX's headers"}


class BuildError(ValueError):
    """The build cannot go on. Faults of a step have that step's own error."""


def default_name(model: Path) -> str:
    """What C++ calls a model that was given no name: its file's."""
    return re.sub(r"\W", "_", model.stem, flags=re.ASCII)


def build(
    model: Path,
    name: str,
    targets: Sequence[Target],
    out: Path,
    *,
    num_shards: int = 8,
    jobs: int = 1,
    options: Sequence[str] = (),
    tuning: Path | None = None,
    link: bool = True,
    debug_modes: Sequence[str] = (),
    aotinductor: bool = False,
) -> None:
    """Builds a model.

    Args:
      model: the ``.pt2`` file.
      name: what C++ calls the model.
      targets: what to build for.
      out: the directory to write, whole or not at all. One that an earlier build wrote is replaced.
      num_shards: in how many shards kernels are compiled.
      jobs: how many kernels are compiled at a time. No output depends on it.
      options: of lowering (wrapgen/options.py).
      tuning: the tuning lock, if there is one (docs/tuning.md).
      link: whether to compile and link the C++ as well. Where there is no compiler, or its headers
        are missing, that is said and the sources are the result.
      debug_modes: what the model does besides, for debugging: some of ``options.DEBUG_MODES``.
      aotinductor: whether the library has AOTInductor's interface too, and is packed for PyTorch.

    Raises:
      BuildError: ``out`` is something else, or the C++ compiler fails.
      ValueError, Exception: the errors of the steps; see theirs.
    """
    platform = platform_of(targets)
    if out.exists() and not _is_build(out):
        raise BuildError(f"{out}: exists and is no output of an earlier build; choose another")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, so that it can be renamed.
    with tempfile.TemporaryDirectory(prefix=".wrapgen-", dir=out.absolute().parent) as scratch:
        made = Path(scratch) / "out"
        made.mkdir(mode=0o777)
        with _progress(2 + 2 * len({target.lowering for target in targets}) + link) as stage:
            _steps(
                model,
                name,
                targets,
                made,
                num_shards,
                jobs,
                options,
                tuning,
                debug_modes,
                stage,
                aotinductor,
            )
            if link:
                stage("linking")
                linked = _link(name, platform, made, Path(scratch), debug_modes, stage, aotinductor)
                if linked and aotinductor:
                    _pack(name, targets, made)
        if out.exists():
            shutil.rmtree(out)
        os.replace(made, out)


def _is_build(out: Path) -> bool:
    return out.is_dir() and (not any(out.iterdir()) or (out / "graph.json").is_file())


class _Stage:
    """Tells what is going on: ``stage(text)`` begins a step, ``detail`` adds to it."""

    def __init__(self, total: int, begin: Say, detail: Say) -> None:
        self._numbers = itertools.count(1)
        self._total = total
        self._begin = begin
        self.detail = detail

    def __call__(self, text: str) -> None:
        self._begin(f"[{next(self._numbers)}/{self._total}] {text}")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[_Stage]:
    """Progress on standard error: a live line on a terminal that rich is there for, else lines."""
    started = time.monotonic()
    if sys.stderr.isatty():
        try:
            from rich.console import Console
        except ImportError:
            pass
        else:
            console = Console(stderr=True, highlight=False)
            with console.status("") as status:
                current = ""

                def begin(text: str) -> None:
                    nonlocal current
                    current = text
                    console.print(text, markup=False)
                    status.update("")

                yield _Stage(total, begin, lambda text: status.update(text.replace("[", "\\[")))
            console.print(f"done in {time.monotonic() - started:.1f} s", markup=False)
            return

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    yield _Stage(total, say, lambda text: say(f"    {text}"))
    say(f"done in {time.monotonic() - started:.1f} s")


def _steps(
    model: Path,
    name: str,
    targets: Sequence[Target],
    out: Path,
    num_shards: int,
    jobs: int,
    options: Sequence[str],
    tuning: Path | None,
    debug_modes: Sequence[str],
    stage: _Stage,
    aotinductor: bool,
) -> None:
    from wrapgen.codegen import wrap_files
    from wrapgen.intake import split
    from wrapgen.kernels import compile_shard

    stage(f"splitting {model.name}")
    graph = out / "graph.json"
    split(model, graph, out / "weights.safetensors")

    from wrapgen.lowering import (
        lower,
    )  # PyTorch: late, so that a refused archive is refused at once

    programs: dict[Target, Path] = {}
    kernels: list[Path] = []
    for lowering in sorted({target.lowering for target in targets}):
        stage(f"lowering for {lowering}")
        lower(
            graph,
            lowering,
            out / str(lowering),
            num_shards=num_shards,
            options=options,
            tuning=tuning,
            progress=stage.detail,
        )
        programs[lowering] = out / str(lowering) / "program.json"
        ours = [target for target in targets if target.lowering == lowering]
        stage(f"compiling kernels for {', '.join(map(str, sorted(ours)))}")
        (out / "kernels" / str(lowering)).mkdir(parents=True)
        for shard in sorted((out / str(lowering) / "shards").iterdir()):
            kernels.append(out / "kernels" / str(lowering) / shard.name)
            compile_shard(shard, ours, kernels[-1], jobs=jobs, progress=stage.detail)
    stage("generating C++")
    wrap_files(
        name,
        programs,
        kernels,
        targets,
        out / "generated",
        debug_modes=debug_modes,
        aotinductor=aotinductor,
    )


def _pack(name: str, targets: Sequence[Target], out: Path) -> None:
    from wrapgen.torch_package import Contents, write

    contents = Contents(
        name=name,
        library=out / f"lib{name}.so",
        weights=out / "weights.safetensors",
        source=out / "generated" / "model.cc",
        targets=tuple(targets),
    )
    write(contents, out / f"{name}.aotinductor.pt2")


def _link(
    name: str,
    platform: Platform,
    out: Path,
    scratch: Path,
    debug_modes: Sequence[str],
    stage: _Stage,
    aotinductor: bool,
) -> bool:
    """Compiles and links lib``name``.so, or says why not; returns whether it did."""
    runtime = _runtime()
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if runtime is None:
        stage.detail("not linked: the runtime's sources are not part of this installation")
        return False
    if compiler is None:
        stage.detail("not linked: there is no C++ compiler (c++, g++ or $CXX)")
        return False
    headers = {**_HEADERS, **(_NVTX if "nvtx" in debug_modes else {})}
    missing = [header for header in headers if not _has_header(compiler, header)]
    if missing:
        packages = " and ".join(headers[header] for header in missing)
        stage.detail(
            f"not linked: {compiler} does not find {' and '.join(missing)}; install {packages}, or "
            "name their directory in CPLUS_INCLUDE_PATH"
        )
        return False
    generated = out / "generated"
    # A short and constant name for whatever directory this is, for __FILE__ and the assembler.
    tree = scratch / "tree"
    tree.mkdir()
    (tree / "runtime").symlink_to(runtime.absolute())
    (tree / "generated").symlink_to(generated.absolute())
    others = {file for key, file in sources.PLATFORMS.items() if key != platform}
    files = [
        f"runtime/{path.name}" for path in sorted(runtime.glob("*.cc")) if path.name not in others
    ]
    if debug_modes:
        files.append("runtime/debug/debug.cc")
    if "nvtx" in debug_modes:
        files.append("runtime/debug/nvtx.cc")
    files += [f"generated/{each}" for each in ("model.cc", "entry.cc", "kernels.S")]
    exports = _EXPORTS
    if aotinductor:
        interface = runtime / "aotinductor"
        files += [f"runtime/aotinductor/{path.name}" for path in sorted(interface.glob("*.cc"))]
        files.append("generated/aotinductor.cc")
        exports = f"aotinductor/{_EXPORTS}"
    objects = []
    for source in files:
        target = f"{source.replace('/', '_')}.o"
        _run([compiler, *_COMPILE_FLAGS, "-I.", "-Igenerated", "-c", source, "-o", target], tree)
        objects.append(target)
        stage.detail(source)
    library = f"lib{name}.so"
    script = f"-Wl,--version-script=runtime/{exports},-soname={library}"
    _run([compiler, *_LINK_FLAGS, script, *objects, "-ldl", "-pthread", "-o", library], tree)
    shutil.move(tree / library, out / library)
    return True


def _runtime() -> Path | None:
    return sources.runtime()


def _has_header(compiler: str, header: str) -> bool:
    command = [compiler, "-x", "c++", "-std=c++17", "-fsyntax-only", "-include", header, os.devnull]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str], directory: Path) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
