"""Who may import what: torch is for export and lowering, Inductor for lowering alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import wrapgen

ROOT = Path(wrapgen.__file__).parent
TORCH = ("lowering/", "capture.py", "export.py", "sizes.py", "user_kernel_op.py")
LAZILY = ("cli.py", "worker.py", "build.py", "check.py")
"""Name the steps, and import each only when it is run."""


def imports(path: Path, *, top_level: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_only_lowering_and_export_import_torch() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(TORCH):
            continue
        for module in imports(path, top_level=False):
            assert module.split(".")[0] != "torch", f"{name} imports {module}"
            assert not module.startswith("wrapgen.lowering") or name in LAZILY, name
        for module in imports(path, top_level=True):
            assert not module.startswith("wrapgen.lowering"), f"{name} imports {module} at once"


def test_only_lowering_touches_inductor() -> None:
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("lowering/"):
            continue
        assert not any("_inductor" in module for module in imports(path, top_level=False)), name
        tree = ast.parse(path.read_text(encoding="utf-8"))
        attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert "_inductor" not in attributes, name


def test_other_steps_load_no_torch() -> None:
    code = (
        "import sys; import wrapgen.codegen, wrapgen.intake, wrapgen.program;"
        "assert not {'torch', 'triton'} & set(sys.modules);"
        "import wrapgen.kernels; assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], check=True
    )
