"""Intake: the only code that opens an untrusted ``.pt2`` archive.

``split`` takes the archive apart into a graph without weight values and a safetensors file of
weights. It needs no torch and opens no pickle. docs/intake.md says what is refused and why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from wrapgen import user_kernels
from wrapgen.dtype import DType
from wrapgen.intake import graph as graphs
from wrapgen.intake import schema
from wrapgen.intake.archive import Archive, Limits
from wrapgen.intake.errors import (
    ByteOrderError,
    DTypeError,
    IntakeError,
    LayoutError,
    MalformedError,
    MissingMemberError,
    NotAnArchiveError,
    PayloadError,
    VersionError,
)
from wrapgen.intake.weights import (
    Layout,
    Payload,
    check_storage,
    read_layout,
    read_payloads,
    row_major,
    view,
    write_safetensors,
)
from wrapgen.program import canonical_json

__all__ = ["GRAPH_VERSION", "IntakeError", "Limits", "split"]

GRAPH_VERSION: Final = 3
"""``schema_version`` of graph.json."""

ARCHIVE_VERSION: Final = "0"
"""The ``archive_version`` that PyTorch writes since 2.8."""

_KINDS: Final = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}


def split(model: Path, graph: Path, weights: Path, limits: Limits | None = None) -> None:
    """Takes a ``.pt2`` archive apart.

    Args:
      model: the archive, written by ``torch.export.save``.
      graph: where to write the graph: canonical JSON that does not depend on weight values, nor on
        where and by whom the model was exported.
      weights: where to write the weights: safetensors, contiguous, by qualified name.
      limits: what the archive may declare.

    Both files are written, or neither is.

    Raises:
      IntakeError: the archive is refused; its sub-classes say why.
      OSError: a file cannot be read or written.
    """
    with Archive(model, limits) as archive:
        content, tensors = _read(archive)
        _write_both(content, tensors, graph, weights)


def _read(archive: Archive) -> tuple[dict[str, Any], dict[str, tuple[DType, Any]]]:
    _check_format(archive)
    name = _model_name(archive)
    program = _read_program(archive, name)
    payloads = _read_payloads(archive, name)
    kinds = _signature(program, f"{archive.path}: models/{name}.json")
    layouts = _match(archive, program, kinds, payloads)
    _check_strides(archive, program, layouts)
    kernels = _read_kernels(archive, program)

    content: dict[str, Any] = {
        "schema_version": GRAPH_VERSION,
        "exported_program": program,
        "tensors": {
            fqn: {
                "dtype": str(layout.dtype),
                "kind": "constant" if kinds[fqn][0] == "tensor_constant" else kinds[fqn][0],
                "shape": list(layout.sizes),
                "strides": list(row_major(layout.sizes)),
            }
            for fqn, layout in layouts.items()
        },
    }
    if kernels.kernels:
        content["triton_kernels"] = user_kernels.data(kernels)
    tensors = {
        fqn: (
            layout.dtype,
            view(archive.payload(payloads[fqn].member), layout, f"{archive.path}: {fqn}"),
        )
        for fqn, layout in layouts.items()
    }
    return content, tensors


def _check_format(archive: Archive) -> None:
    names = archive.names
    if "archive_format" not in names:
        if "serialized_exported_program.json" in names:
            raise VersionError(
                f"{archive.path}: written by torch.export.save of torch 2.7 or older; export the "
                "model again with a newer torch"
            )
        if "data.pkl" in names:
            raise NotAnArchiveError(
                f"{archive.path}: a pickle written by torch.save or torch.jit.save, not an "
                "exported program; use torch.export.save"
            )
        raise NotAnArchiveError(
            f"{archive.path}: not a .pt2 archive: archive_format is missing; expected a file "
            "written by torch.export.save"
        )
    if (found := archive.json_text("archive_format").strip()) != "pt2":
        raise NotAnArchiveError(f"{archive.path}: archive_format is {found[:40]!r}, not 'pt2'")
    version = archive.json_text("archive_version").strip()
    if version != ARCHIVE_VERSION:
        raise VersionError(
            f"{archive.path}: archive_version is {version[:40]!r}; known is {ARCHIVE_VERSION!r}"
        )
    order = archive.json_text("byteorder").strip() if "byteorder" in names else "little"
    if order != "little":
        raise ByteOrderError(
            f"{archive.path}: byteorder is {order[:40]!r}; only little-endian is supported"
        )


def _model_name(archive: Archive) -> str:
    models = [
        name.removeprefix("models/").removesuffix(".json")
        for name in archive.names
        if name.startswith("models/") and name.endswith(".json") and name.count("/") == 1
    ]
    if not models:
        raise MissingMemberError(
            f"{archive.path}: holds no exported program (models/NAME.json); an AOTInductor package "
            "is compiled already and cannot be built again, export the model with "
            "torch.export.save"
        )
    if len(models) > 1:
        raise MalformedError(
            f"{archive.path}: holds {len(models)} programs ({', '.join(models[:5])}); save one in "
            "each archive"
        )
    return models[0]


def _read_program(archive: Archive, name: str) -> dict[str, Any]:
    member = f"models/{name}.json"
    where = f"{archive.path}: {member}"
    raw = schema.parse_json(archive.json_text(member), where)
    # Before anything else: a message about some field would mislead where the version differs.
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, dict):
        raise MalformedError(f"{where}: schema_version is missing")
    major, minor = version.get("major"), version.get("minor")
    if major != schema.MAJOR or type(minor) is not int or not 0 <= minor <= schema.MINOR:
        raise VersionError(
            f"{where}: schema_version is {major}.{minor}; known are {schema.MAJOR}.0 to "
            f"{schema.MAJOR}.{schema.MINOR}. Export with torch 2.13, or update rules_aoti"
        )
    program: dict[str, Any] = schema.check(raw, "ExportedProgram", where, graphs.rewrite)
    return program


def _read_payloads(archive: Archive, name: str) -> dict[str, Payload]:
    payloads: dict[str, Payload] = {}
    for folder, member in (
        ("data/weights", f"data/weights/{name}_weights_config.json"),
        ("data/constants", f"data/constants/{name}_constants_config.json"),
    ):
        where = f"{archive.path}: {member}"
        raw = schema.parse_json(archive.json_text(member), where)
        config = schema.check(raw, "PayloadConfig", where)["config"]
        for fqn, payload in read_payloads(config, folder, where).items():
            if fqn in payloads:
                raise MalformedError(f"{where}: {fqn} is among the weights as well")
            payloads[fqn] = payload
    check_storage(payloads, archive.sizes, str(archive.path))
    return payloads


def _signature(program: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
    """Returns, by name, the kind and graph input of each tensor the program gets from its file."""
    tensors: dict[str, tuple[str, str]] = {}
    for i, spec in enumerate(program["graph_module"]["signature"]["input_specs"]):
        place = f"{where}: graph_module.signature.input_specs[{i}]"
        [(kind, fields)] = spec.items()
        if kind == "token":
            raise MalformedError(
                f"{place}: programs with side effects (effect tokens) are not supported"
            )
        if kind not in _KINDS:
            continue
        fqn = fields[_KINDS[kind]]
        if fqn in tensors:
            raise MalformedError(f"{place}: {fqn} is an input already")
        tensors[fqn] = (kind, fields["arg"]["name"])
    return tensors


def _match(
    archive: Archive,
    program: dict[str, Any],
    kinds: Mapping[str, tuple[str, str]],
    payloads: Mapping[str, Payload],
) -> dict[str, Layout]:
    """Pairs the tensors that the graph names with those that the archive holds.

    The graph then describes them as they leave: contiguous, from the start of their storage.
    """
    values = program["graph_module"]["graph"]["tensor_values"]
    layouts = {}
    for fqn, (kind, value) in sorted(kinds.items()):
        if fqn not in payloads:
            raise MissingMemberError(
                f"{archive.path}: the program needs the {kind} {fqn}, the archive does not have it"
            )
        if value not in values:
            raise MalformedError(f"{archive.path}: tensor_values lacks {value}, the input of {fqn}")
        layout = payloads[fqn].layout
        declared = read_layout(values[value], f"{archive.path}: tensor_values.{value}")
        if declared.dtype != layout.dtype:
            raise DTypeError(
                f"{archive.path}: {fqn} is {declared.dtype} in the graph, {layout.dtype} in the "
                "archive"
            )
        if declared.sizes != layout.sizes:
            raise PayloadError(
                f"{archive.path}: {fqn} has sizes {list(declared.sizes)} in the graph, "
                f"{list(layout.sizes)} in the archive"
            )
        values[value] = values[value] | {
            "strides": [{"as_int": stride} for stride in row_major(layout.sizes)],
            "storage_offset": {"as_int": 0},
        }
        layouts[fqn] = layout
    return layouts


def _check_strides(
    archive: Archive, program: Mapping[str, Any], layouts: Mapping[str, Layout]
) -> None:
    """Weights leave contiguous; an operation that looks at raw strides would then see others."""
    strided = [fqn for fqn, layout in layouts.items() if not layout.contiguous]
    if strided and any("as_strided" in target for target in _targets(program)):
        raise LayoutError(
            f"{archive.path}: the program uses as_strided and the weight {strided[0]} is not "
            "contiguous; call .contiguous() on it before exporting"
        )


def _read_kernels(archive: Archive, program: Mapping[str, Any]) -> user_kernels.UserKernels:
    """The model's own Triton kernels, those that the graph calls and no others."""
    called = []
    for node in _nodes(program):
        if node["target"] == user_kernels.OPERATOR:
            first = node["inputs"][0]["arg"] if node["inputs"] else {}
            called.append(str(first.get("as_string", "")))
    member = f"extra/{user_kernels.MEMBER}"
    if member not in archive.names:
        if called:
            raise MissingMemberError(
                f"{archive.path}: the program calls Triton kernels, and {member} is missing"
            )
        return user_kernels.NONE
    where = f"{archive.path}: {member}"
    raw = schema.parse_json(archive.json_text(member), where)
    try:
        kernels = user_kernels.parse(raw, where)
    except user_kernels.KernelFormatError as error:
        raise MalformedError(str(error)) from error
    if sorted(set(called)) != sorted(kernels.kernels):
        raise MalformedError(
            f"{where}: holds the kernels {', '.join(kernels.kernels) or 'none'}; the program calls"
            f" {', '.join(sorted(set(called))) or 'none'}"
        )
    return kernels


def _targets(program: Mapping[str, Any]) -> Iterator[str]:
    for node in _nodes(program):
        yield node["target"]


def _nodes(program: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    pending: list[Any] = [program["graph_module"]["graph"]]
    while pending:
        graph = pending.pop()
        for node in graph["nodes"]:
            yield node
            arguments = [named["arg"] for named in node["inputs"]]
            pending += [each["as_graph"]["graph"] for each in arguments if "as_graph" in each]


def _write_both(
    content: Mapping[str, Any],
    tensors: Mapping[str, tuple[DType, Any]],
    graph: Path,
    weights: Path,
) -> None:
    partial = [path.with_name(path.name + ".partial") for path in (graph, weights)]
    try:
        partial[0].write_text(canonical_json(content), encoding="utf-8")
        write_safetensors(tensors, partial[1])
        partial[1].chmod(partial[0].stat().st_mode)  # the library makes files private
        os.replace(partial[0], graph)
        try:
            os.replace(partial[1], weights)
        except OSError:
            graph.unlink()
            raise
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
