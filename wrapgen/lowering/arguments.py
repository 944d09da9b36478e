"""The arguments of an exported program: flat with their places, or nested as in ``forward``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from wrapgen.lowering.symbols import Input


def inputs_of(program: ExportedProgram) -> list[Input]:
    """Every argument of an exported program, flat and in order, constants included."""
    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    in_spec = program.call_spec.in_spec
    assert in_spec is not None
    specs = [
        spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT
    ]
    found = []
    for spec, path in zip(specs, paths(in_spec, ("args", "kwargs")), strict=True):
        if isinstance(spec.arg, ConstantArgument):
            value: Any = spec.arg.value
        else:
            value = placeholders[spec.arg.name].meta.get("val")
        found.append(Input(name=spec.arg.name, path=path, value=value))
    return found


def arguments_of(program: ExportedProgram, inputs: Iterable[Input]) -> dict[str, Any]:
    """The arguments of ``forward`` by name, nested as there; guards speak of these."""
    in_spec = program.call_spec.in_spec
    assert in_spec is not None
    args, kwargs = pytree.tree_unflatten([each.value for each in inputs], in_spec)
    signature = program.module_call_graph[0].signature
    names = (signature.forward_arg_names if signature else None) or []
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def paths(spec: pytree.TreeSpec, roots: tuple[str, ...]) -> list[str]:
    """Spells where each leaf stands: ``args[0]``, ``kwargs["mask"]``, ``outputs[0].logits``."""
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    found = []
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
                text += f"[{_quoted(key.key)}]" if isinstance(key.key, str) else f"[{key.key}]"
            else:
                text += str(key)
        found.append(text)
    return found


def _quoted(key: str) -> str:
    """A dictionary's key in double quotes, on one line."""
    plain = (c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04x}" for c in key)
    return f'"{"".join(plain)}"'
