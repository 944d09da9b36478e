"""Packages of a model that computes nothing, made of parts as the build's are."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wrapgen import program
from wrapgen.dtype import DType
from wrapgen.package import Build, Contents
from wrapgen.program import Kernel, Procedure, Program, Weight
from wrapgen.provenance import archive
from wrapgen.target import Target, parse

KERNEL = Kernel(
    name="add_0123456789ab",
    shard=0,
    ttir_sha256="0" * 64,
    params=(),
    num_warps=4,
    num_stages=1,
    num_ctas=1,
    template="",
    config={},
)

WEIGHTS = (
    Weight(name="z", dtype=DType.BFLOAT16, shape=()),
    Weight(name="a.weight", dtype=DType.FLOAT16, shape=(2, 3)),
)

TARGETS = tuple(parse(text) for text in ("sm_80", "sm_90", "compute_90"))

LOCK = """\
# Written by lock.py.
torch==2.13.0 \\
    --hash=sha256:{0}
numpy==2.4.6 \\
    --hash=sha256:{1} \\
    --hash=sha256:{2}
nvidia_nvtx==13.1.0+a --hash=sha256:{0}
""".format("1" * 64, "2" * 64, "3" * 64)


def small_program(target: Target, *, shape: tuple[int, ...] = (2, 3)) -> Program:
    nothing = Procedure(buffers=(), steps=())
    return Program(
        schema_version=program.SCHEMA_VERSION,
        target=str(target),
        num_shards=1,
        symbols=(),
        inputs=(),
        outputs=(),
        weights=(WEIGHTS[0], dataclasses.replace(WEIGHTS[1], shape=shape)),
        constants=(),
        kernels=(KERNEL,),
        folding=nothing,
        main=nothing,
    )


def image(target: Target) -> tuple[str, bytes]:
    """Format and bytes of the kernel for a target."""
    if target.kind == "compute":
        return "ptx", f"// {KERNEL.name} for {target}\n".encode()
    header = b"\x7fELF" + bytes(14) + (190).to_bytes(2, "little")  # EM_CUDA
    return "cubin", header + f"{KERNEL.name} for {target}".encode()


@functools.cache
def library() -> bytes:
    """A library that bears what a model's does: targets, kernels, the weights' digest."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.fail("these tests compile C++: install g++")
    texts = [program.weights_digest(WEIGHTS), *map(str, TARGETS)]
    source = [f'extern "C" const char kText{i}[] = "{text}";' for i, text in enumerate(texts)]
    source.append('extern "C" const char* net_description() { return kText0; }')
    assembly = ['.section .note.GNU-stack,"",%progbits', '.section .rodata,"a",%progbits']
    with tempfile.TemporaryDirectory() as scratch:
        for target in TARGETS:
            _, data = image(target)
            Path(scratch, str(target)).write_bytes(data)
            assembly += [".balign 64", f'.incbin "{target}"', ".byte 0"]
        Path(scratch, "net.cc").write_text("\n".join(source) + "\n")
        Path(scratch, "kernels.s").write_text("\n".join(assembly) + "\n")
        command = [compiler, "-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libnet.so"]
        subprocess.run(
            [*command, "net.cc", "kernels.s", "-o", "libnet.so"], cwd=scratch, check=True
        )
        return Path(scratch, "libnet.so").read_bytes()


def safetensors(*, fill: int = 0) -> bytes:
    """The file with ``WEIGHTS``, and one that the library does not take."""
    tensors = {
        "z": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]},
        "a.weight": {"dtype": "F16", "shape": [2, 3], "data_offsets": [2, 14]},
        "unused": {"dtype": "U8", "shape": [2], "data_offsets": [14, 16]},
    }
    header = json.dumps(tensors).encode()
    return struct.pack("<Q", len(header)) + header + bytes([fill]) * 16


def contents(directory: Path, **changes: Any) -> Contents:
    """Parts of a package, written with times and permissions of their own. ``build`` changes some
    of what the statement tells."""
    directory.mkdir(exist_ok=True)
    build = _build(directory)
    (directory / "library.so").write_bytes(library())
    (directory / "weights.safetensors").write_bytes(safetensors())
    for name in ("model.h", "aoti.h"):
        (directory / name).write_bytes(name.encode() * 100)
        (directory / name).chmod(0o600)
    for target, driver in zip(TARGETS, (11000, 12080, 12040), strict=True):
        folder = directory / "kernels" / str(target)
        folder.mkdir(parents=True, exist_ok=True)
        kind, data = image(target)
        metadata = {"driver": driver, "format": kind}
        (folder / f"{KERNEL.name}.json").write_text(json.dumps(metadata))
        (folder / f"{KERNEL.name}.{kind}").write_bytes(data)
    programs = {}
    for target in sorted({target.lowering for target in TARGETS}):
        programs[target] = directory / f"{target}.json"
        programs[target].write_text(program.dumps(small_program(target)))
    made = Contents(
        name="net",
        library=directory / "library.so",
        weights=directory / "weights.safetensors",
        header=directory / "model.h",
        runtime_headers=(directory / "aoti.h",),
        targets=TARGETS,
        programs=programs,
        kernels=(directory / "kernels",),
        build=dataclasses.replace(build, **changes.pop("build", {})),
    )
    return dataclasses.replace(made, **changes)


def _build(directory: Path) -> Build:
    texts = {
        "graph.json": "{}\n",
        "model.cc": "// C++\n",
        "kernels.S": "// assembly\n",
        "requirements.txt": LOCK,
        "tuned.json": "{}\n",
        "ptxas": "Cuda compilation tools, release 12.8, V12.8.93\n",
        "include/dlpack/dlpack.h": "#define DLPACK_VERSION 80\n",
        "include/nlohmann/json.hpp": "#define JSON\n",
        "include/nlohmann/detail/abi_macros.hpp": (
            "#define NLOHMANN_JSON_VERSION_MAJOR 3   // NOLINT\n"
            "#define NLOHMANN_JSON_VERSION_MINOR 11  // NOLINT\n"
            "#define NLOHMANN_JSON_VERSION_PATCH 2   // NOLINT\n"
        ),
        "runtime/aoti.cc": "// C++\n",
        "runtime/aotinductor/torch.cc": "// more C++\n",
    }
    paths = {name: directory / name for name in texts}
    for name, text in texts.items():
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_text(text)
    return Build(
        graph=paths["graph.json"],
        generated=(paths["model.cc"], paths["kernels.S"]),
        components={
            "dlpack": (paths["include/dlpack/dlpack.h"],),
            "nlohmann_json": (
                paths["include/nlohmann/json.hpp"],
                paths["include/nlohmann/detail/abi_macros.hpp"],
            ),
            "runtime": (paths["runtime/aoti.cc"], paths["runtime/aotinductor/torch.cc"]),
        },
        locks=(paths["requirements.txt"],),
        ptxas=paths["ptxas"],
        tuning=(paths["tuned.json"],),
        options=("cooperative_reductions",),
        debug=("nvtx",),
        aotinductor=True,
        march="x86-64-v2",
        shards=1,
    )


Members = list[tuple[str, bytes]]


def members(path: Path) -> Members:
    """Name and content of each member of an archive, in order."""
    found = []
    with tarfile.open(path) as opened:
        for member in opened:
            stream = opened.extractfile(member)
            assert stream is not None
            found.append((member.name, stream.read()))
    return found


def repack(path: Path, change: Callable[[Members], Members]) -> None:
    """Writes an archive again with other members, in the form that a package has."""
    made = io.BytesIO()
    for name, data in change(members(path)):
        made.write(archive.header(name, len(data)))
        made.write(data)
        made.write(bytes(-len(data) % archive.BLOCK))
    made.write(archive.end(made.tell()))
    path.write_bytes(made.getvalue())
