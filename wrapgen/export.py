"""Runs a model file's entry point and writes what it returns, the same bytes everywhere.

``torch.export.save`` records the file's own name, a random id, absolute paths in stack traces and,
in the sample inputs, uninitialised or random numbers. Here each of them is made a function of the
model: two machines that export the same model write the same file.

Triton kernels of the user's own go into the archive as data (``wrapgen/capture.py``).
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import re
import sys
import traceback
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from wrapgen import capture, sizes, user_kernels
from wrapgen.program import canonical_json

_ROOT: Final = "model"
"""The folder in the archive. PyTorch takes the file's name, and so would differ by output path."""

_ID: Final = ".data/serialization_id"
_SAMPLES: Final = "data/sample_inputs/model.pt"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_ALIGNMENT: Final = 64
_LOCAL_HEADER: Final = 30  # bytes before the name; APPNOTE.TXT 4.3.7


class ExportError(ValueError):
    """The model cannot be exported. The message says what in the user's file is at fault."""


def export(
    src: Path,
    entry_point: str,
    args: Mapping[str, Any],
    weights: Path | None,
    out: Path,
    *,
    imports: Sequence[Path] = (),
) -> None:
    """Exports a model.

    Args:
      src: a Python file. It can import its neighbours, as if it were run.
      entry_point: a function in it that returns a ``torch.export.ExportedProgram``.
      args: keyword arguments for it.
      weights: a file whose path is passed as the keyword argument ``weights``, or ``None``.
      out: the ``.pt2`` to write, whole or not at all.
      imports: directories in which the file's imports are looked for last.

    Raises:
      ExportError: the file or the entry point is missing, it raised an exception, or it returned
        something else.
      OSError: the output cannot be written.
    """
    keywords = dict(args)
    if weights is not None:
        if "weights" in keywords:
            raise ExportError("weights are given twice: as --weights and as --arg weights=...")
        if not weights.is_file():
            raise ExportError(f"{weights}: the weights file does not exist")
        keywords["weights"] = str(weights)
    sys.path += [str(directory.absolute()) for directory in imports]
    program = _run(src, entry_point, keywords)
    roots = _roots(src)
    try:
        kernels = capture.capture(program, lambda path: _relative(path, roots))
    except capture.CaptureError as error:
        raise ExportError(f"{src}: {error}") from error
    _strip_paths(program, roots)
    content = _normalise(_save(program, kernels))
    partial = out.with_name(out.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _run(src: Path, entry_point: str, keywords: Mapping[str, Any]) -> ExportedProgram:
    if not src.is_file():
        raise ExportError(f"{src}: the model file does not exist")
    # Whatever the user's code draws without a generator of its own is the same every time.
    torch.manual_seed(0)
    module = _import(src)
    function = getattr(module, entry_point, None)
    if not callable(function):
        names = sorted(
            name
            for name, value in vars(module).items()
            if callable(value) and getattr(value, "__module__", None) == module.__name__
        )
        raise ExportError(
            f"{src}: there is no function called {entry_point!r}; the file defines "
            f"{', '.join(names) or 'none'}"
        )
    try:
        # Sizes of 0 and 1 that are in the range of a dynamic dimension are served like all others,
        # or the export fails: by default PyTorch takes for granted that there are none.
        with sizes.general(), capture.tracing():
            program = function(**keywords)
    except Exception as error:
        call = ", ".join(f"{name}={value!r}" for name, value in sorted(keywords.items()))
        raise ExportError(_user_error(f"{entry_point}({call}) failed", src, error)) from error
    if not isinstance(program, ExportedProgram):
        raise ExportError(
            f"{src}: {entry_point}() returned {type(program).__name__}, expected a "
            "torch.export.ExportedProgram, as torch.export.export gives"
        )
    return program


def _import(src: Path) -> ModuleType:
    """Imports a file under its own name, its directory first on the search path."""
    name = src.stem
    if not name.isidentifier():
        raise ExportError(f"{src}: {name!r} is no module name; rename the file")
    spec = importlib.util.spec_from_file_location(name, src.absolute())
    if spec is None or spec.loader is None:
        raise ExportError(f"{src}: not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(src.absolute().parent))
    if name not in sys.modules:  # a file called like a module of PyTorch's must not replace it
        sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ExportError(_user_error("importing it failed", src, error)) from error
    return module


def _user_error(what: str, src: Path, error: Exception) -> str:
    """The user's own traceback, from their file on; a fault that is not in it has none."""
    frames = error.__traceback__
    own = str(src.absolute())
    while frames is not None and frames.tb_frame.f_code.co_filename != own:
        frames = frames.tb_next
    if frames is None:
        lines = traceback.format_exception_only(error)
    else:
        lines = traceback.format_exception(type(error), error, frames)
    return f"{src}: {what}\n{''.join(lines).rstrip()}"


def _roots(src: Path) -> list[str]:
    """Directories that imports are found in, longest first: paths below them are the same
    everywhere."""
    roots = {str(src.absolute().parent), str(src.resolve().parent)}
    for entry in sys.path:
        directory = Path(entry or ".")
        if directory.is_dir():
            roots |= {str(directory.absolute()), str(directory.resolve())}
    return sorted(roots, key=lambda root: (-len(root), root))


def _strip_paths(program: ExportedProgram, roots: list[str]) -> None:
    """Makes the file names in stack traces relative to what they were imported from."""

    def relative(match: re.Match[str]) -> str:
        return f'File "{_relative(match[1], roots)}"'

    for graph in _graphs(program.graph_module):
        for node in graph.nodes:
            # These are traces of the exporter's own passes, with addresses in them.
            node.meta.pop("from_node", None)
            if trace := node.meta.get("stack_trace"):
                node.meta["stack_trace"] = re.sub(r'File "([^"\n]*)"', relative, trace)


def _relative(path: str, roots: list[str]) -> str:
    """A source file's path below the directory that it was imported from."""
    for root in roots:
        if path.startswith(root.rstrip("/") + "/"):
            return path[len(root.rstrip("/")) + 1 :]
    return path.rpartition("/")[2] if path.startswith("/") else path


def _graphs(module: torch.nn.Module) -> Iterator[torch.fx.Graph]:
    for child in module.modules():
        if isinstance(child, torch.fx.GraphModule):
            yield child.graph


def _save(program: ExportedProgram, kernels: user_kernels.UserKernels) -> bytes:
    """Saves with sample inputs of zeros: the values are no part of the model."""
    if program.example_inputs is not None:
        program.example_inputs = torch.utils._pytree.tree_map(_blank, program.example_inputs)
    buffer = io.BytesIO()
    extra: dict[str, Any] = {}
    if kernels.kernels:
        extra[user_kernels.MEMBER] = canonical_json(user_kernels.data(kernels))
    torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


def _blank(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else value


def _normalise(archive: bytes) -> bytes:
    """Rewrites PyTorch's archive: members sorted, under one fixed folder, with fixed metadata.

    The serialization id, which PyTorch makes from names and checksums, becomes a digest of the
    members.
    """
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        for name in source.namelist():
            members[name.partition("/")[2]] = source.read(name)
    if _SAMPLES in members:  # itself an archive, with a name and an id of its own
        members[_SAMPLES] = _normalise_inner(members[_SAMPLES])
    members[_ID] = _digest(members)
    return _write(_ROOT, members)


def _normalise_inner(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        # PyTorch's reader expects the order in which it wrote.
        members = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
    if _ID in members:
        members[_ID] = _digest(members)
    return _write("archive", members, ordered=False)


def _digest(members: Mapping[str, bytes]) -> bytes:
    digest = hashlib.sha256()
    for name in sorted(members):
        if name != _ID:
            digest.update(f"{name}\0{len(members[name])}\0".encode())
            digest.update(members[name])
    # PyTorch's are 40 decimal digits.
    return b"%040d" % (int(digest.hexdigest(), 16) % 10**40)


def _write(root: str, members: Mapping[str, bytes], *, ordered: bool = True) -> bytes:
    """Writes an uncompressed archive whose payloads start at multiples of 64 bytes, as PyTorch's
    do, so that they can be mapped into memory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members) if ordered else members:
            info = zipfile.ZipInfo(f"{root}/{name}", date_time=_EPOCH)
            info.create_system = 3  # Unix, whatever wrote it
            info.external_attr = 0o100644 << 16
            start = buffer.tell() + _LOCAL_HEADER + len(info.filename.encode()) + 4
            padding = -start % _ALIGNMENT
            # An extra field that means nothing to anyone ("FB", PyTorch's too), then its length.
            info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
            archive.writestr(info, members[name])
    return buffer.getvalue()
