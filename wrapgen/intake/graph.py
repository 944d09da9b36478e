"""Takes out of an exported program what depends on the machine that exported it.

What stays says what is computed. What goes: absolute paths, all frames of a stack trace but the
innermost one in the user's code, object ids, the local part of PyTorch's version, devices, and
metadata that nothing downstream reads. Two machines that export the same model give the same graph.
"""

from __future__ import annotations

import re
from typing import Any, Final

STRUCT = dict[str, Any]

_FRAME: Final = re.compile(
    r'File "([^"\n]*)"(?:, line [0-9]+)?(?:, in ([^\n]*))?(?:\n[ \t]+([^\n]*))?'
)
_TORCH: Final = re.compile(
    r"/(site|dist)-packages/torch/"
    r"|(^|/)torch/(nn|fx|utils|export|_[a-z_]+)/"
    r"|(^|/)torch/(functional|_tensor|_ops|_jit_internal|overrides)\.py\Z"
)
_STATEMENT: Final = re.compile(r"""(?:[^"'#]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*+(?=#)""")
"""A line of Python up to its comment. A string that begins or ends on another line hides it."""

_CODE_LENGTH: Final = 200
"""Characters of a source line that are kept."""


def rewrite(name: str, fields: STRUCT) -> STRUCT:
    """Rewrites one struct of the schema; given to ``schema.check``."""
    if name == "Node":
        return fields | {"metadata": _metadata(fields["metadata"])}
    if name == "Device":
        # One device, chosen by the target and not by the export: cuda:1 and cpu are the same model.
        return {"type": "cpu", "index": None}
    if name == "TensorMeta":
        return fields | {"requires_grad": False}  # nothing is trained here
    if name == "GraphModule":
        # The first entry is the model's own signature; the others are those of modules inside it.
        return fields | {
            "metadata": {},
            "module_call_graph": fields["module_call_graph"][:1],
            "treespec_namedtuple_fields": {},
        }
    if name == "ExportedProgram":
        return fields | {"verifiers": sorted(fields.get("verifiers", []))}
    return fields


def _metadata(metadata: dict[str, str]) -> dict[str, str]:
    kept = {}
    if frame := user_frame(metadata.get("stack_trace", "")):
        kept["stack_trace"] = frame
    if modules := _module_stack(metadata.get("nn_module_stack", "")):
        kept["nn_module_stack"] = modules
    return kept


def user_frame(trace: str) -> str:
    """Returns the innermost frame outside PyTorch: ``File "net.py", in forward`` and its line.

    The line is what it says, less a comment; its number is left out, as a comment anywhere above
    would change it. Returns an empty string where the trace has no such frame. ``trace`` is
    PyTorch's, outermost frame first, or already in the form that this function gives.
    """
    for match in reversed(list(_FRAME.finditer(trace))):
        path, function, code = (group or "" for group in match.groups())
        if path.startswith("<") or _TORCH.search(path.replace("\\", "/")):
            continue
        name = _one_line(function)
        place = f'File "{relative(path)}"' + (f", in {name}" if name else "")
        return "\n  ".join(part for part in (place, _uncommented(_one_line(code))) if part)
    return ""


def _uncommented(code: str) -> str:
    """Drops the comment that ends a line of Python."""
    found = _STATEMENT.match(code)
    return found[0].rstrip() if found else code


def relative(path: str) -> str:
    """Shortens a source file's path to the part that is the same on every machine.

    That is the part below the directory it was imported from, where the path shows which that was:
    site-packages, Bazel's execution root, output tree or runfiles. A relative path stays as it is.
    Of any other absolute path only the file's name is kept.
    """
    path = path.replace("\\", "/")
    for marker in (
        r"/(?:site|dist)-packages/",
        r"\.runfiles/[^/]+/",
        r"/execroot/[^/]+/bazel-out/[^/]+/bin/",
        r"^bazel-out/[^/]+/bin/",
        r"/execroot/[^/]+/",
    ):
        if found := list(re.finditer(marker, path)):
            path = path[found[-1].end() :]
            break
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or re.match(r"[A-Za-z]:", path) or ".." in parts:
        parts = parts[-1:]
    return _one_line("/".join(parts))


def _one_line(text: str) -> str:
    """Drops what could end a comment's line or hide text in generated sources."""
    return "".join(c for c in text.strip() if c.isprintable())[:_CODE_LENGTH].rstrip()


def _module_stack(stack: str) -> str:
    """Keeps ``key,qualified name,class`` of each module called; a key may be an object's id."""
    entries = []
    for entry in stack.split(";") if stack else []:
        parts = _split(entry)
        if len(parts) != 3:
            return ""
        key, path, kind = parts
        if key.isdigit():
            key = "L__self__" + re.sub(r"\W", "_", path)
        entries.append(",".join(_one_line(part) for part in (key, path, kind)))
    return ";".join(entries)


def _split(text: str) -> list[str]:
    """Splits at the commas that no bracket encloses."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts
