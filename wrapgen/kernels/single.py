"""Compiles one kernel that somebody edited, for a library that is built already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wrapgen.kernels import launch as launches
from wrapgen.kernels.errors import KernelCompileError
from wrapgen.kernels.shard import CompiledKernel, Request, check_targets, compile_kernels
from wrapgen.target import Target


def compile_kernel(
    shard: Path,
    name: str,
    targets: Sequence[Target],
    out: Path,
    *,
    ttir: Path | None = None,
    num_warps: int | None = None,
    num_stages: int | None = None,
    ptxas_path: Path | None = None,
) -> None:
    """Compiles a shard's kernel ``name`` from TTIR that need not be what lowering wrote.

    Its parameters must be those that lowering declared: launch code passes them. ``ttir`` is the
    edited file, by default the shard's own, edited in place; ``num_warps`` and ``num_stages``
    replace what the shard says.

    Writes ``<target>/<kernel>.cubin`` (or ``.ptx``) and ``.json`` in ``out``, as ``compile_shard``
    does, and ``<target>/shard/<kernel>.ttir`` and ``.json``, from which they can be compiled again.
    Other kernels there stay; what is there of this one is replaced when all is compiled.

    Raises ``KernelCompileError``.
    """
    check_targets(targets)
    declared = shard / f"{name}.json"
    if not declared.is_file():
        known = ", ".join(sorted(path.stem for path in shard.glob("*.json"))) or "no kernel"
        raise KernelCompileError(f"{shard}: has no kernel {name}; it has {known}")
    launches.load(declared)
    source = ttir or shard / f"{name}.ttir"
    code = source.read_bytes()
    changes = {"num_warps": num_warps, "num_stages": num_stages}
    edited: Mapping[str, Any] = {
        **json.loads(declared.read_text(encoding="utf-8")),
        **{field: value for field, value in changes.items() if value is not None},
        "ttir_sha256": hashlib.sha256(code).hexdigest(),
    }
    launch = launches.parse(edited, where=str(declared))
    for target in targets:
        if launch.target is not None and launch.target != target.lowering:
            raise KernelCompileError(
                f"{shard}: lowered for {launch.target}, cannot be compiled for {target}"
            )
    requests = [Request(code, launch, target, str(source)) for target in sorted(targets)]
    results = compile_kernels(requests, ptxas_path=ptxas_path)
    errors = [str(result) for result in results if isinstance(result, KernelCompileError)]
    if errors:
        raise KernelCompileError("\n".join(errors))
    for target, result in zip(sorted(targets), results, strict=True):
        assert isinstance(result, CompiledKernel)
        _write(out / str(target), result, code, edited)


def _write(directory: Path, kernel: CompiledKernel, ttir: bytes, launch: Mapping[str, Any]) -> None:
    metadata = kernel.metadata
    files = {
        f"shard/{metadata.name}.ttir": ttir,
        f"shard/{metadata.name}.json": _json(launch),
        f"{metadata.name}.{metadata.format}": kernel.image,
        f"{metadata.name}.json": _json(metadata.as_json()),
    }
    (directory / "shard").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        # Beside it first: a program may be reading the one before.
        scratch = directory / f".{metadata.name}.new"
        scratch.write_bytes(data)
        scratch.replace(directory / name)


def _json(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False)
    return f"{text}\n".encode()
