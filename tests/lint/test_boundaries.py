"""Who may import what. The steps are kept apart by these rules, not by habit."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lint.workspace import ROOT, files

WRAPGEN = ROOT / "wrapgen"


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(*modules: str) -> set[str]:
    """The files of wrapgen that import one of these modules, relative to it."""
    return {
        path.relative_to(WRAPGEN).as_posix()
        for path in WRAPGEN.rglob("*.py")
        for name in imports(path)
        if any(name == module or name.startswith(module + ".") for module in modules)
    }


def inside(found: set[str], *allowed: str) -> set[str]:
    return {path for path in found if not path.startswith(allowed)}


def test_archives_are_opened_by_intake_alone() -> None:
    """Export opens what PyTorch has just written in its own memory, and nothing else; one is
    written for PyTorch."""
    assert importers("zipfile") == {"intake/archive.py", "export.py", "torch_package.py"}


def test_torch_is_for_export_and_lowering() -> None:
    shared = ("sizes.py", "user_kernel_op.py")
    assert not inside(importers("torch"), "export.py", "capture.py", *shared, "lowering/")
    assert not inside(importers("torch._inductor", "torch._dynamo"), "lowering/")


def test_triton_is_for_lowering_and_kernels() -> None:
    """And for export, which reads the user's own kernels."""
    assert not inside(importers("triton"), "lowering/", "kernels/", "capture.py")


def test_steps_do_not_import_one_another() -> None:
    """Only the command line and ``build`` know them all. Lowering asks the compiler for a
    candidate's resources."""
    steps = {"export", "capture", "intake", "lowering", "kernels", "codegen"}
    steps |= {"package", "torch_package"}
    permitted = {("lowering", "kernels"), ("codegen", "kernels"), ("export", "capture")}
    found = {
        (path.partition("/")[0].removesuffix(".py"), step)
        for step in steps
        for path in importers(f"wrapgen.{step}")
    }
    crossings = {
        (user, step)
        for user, step in found
        if user in steps and user != step and (user, step) not in permitted
    }
    assert not crossings


def test_what_workers_load_is_there() -> None:
    """Bazel runs each step as a worker, whose modules are named in a table."""
    tree = ast.parse((WRAPGEN / "__main__.py").read_text(encoding="utf-8"))
    (table,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "WORKERS" and node.value
    )
    for step, modules in table.items():
        for module in modules:
            path = WRAPGEN.parent / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").is_file(), f"{step}: {module}"


def test_intake_needs_little() -> None:
    """What reads untrusted files is small: the standard library, numpy and safetensors."""
    for path in (WRAPGEN / "intake").rglob("*.py"):
        for name in imports(path):
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names | {"numpy", "safetensors", "wrapgen"}, path


def test_tuning_needs_nothing() -> None:
    """The tuner runs on a machine with a GPU and Python, and no package."""
    for path in (WRAPGEN / "tuning").rglob("*.py"):
        for name in imports(path):
            own = name.startswith(("wrapgen.tuning", "wrapgen.target"))
            assert own or name.partition(".")[0] in sys.stdlib_module_names, f"{path}: {name}"


@pytest.mark.parametrize("module", ["pickle", "marshal", "shelve", "dill", "cloudpickle"])
def test_nothing_unpickles(module: str) -> None:
    assert not importers(module)


def test_nothing_evaluates() -> None:
    """``torch.load`` unpickles. ``eval`` and ``exec`` are ruff's to find (S102, S307)."""
    for path in WRAPGEN.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "torch.load",
                "torch.export.load",
                "torch.jit.load",
            ):
                raise AssertionError(f"{path}:{node.lineno}: {ast.unparse(node.func)}")


def test_runtime_has_no_other_libraries() -> None:
    """The runtime includes itself, the standard library, DLPack and the JSON reader; nothing of
    CUDA's, whose headers are not there and whose libraries a model does not need."""
    for path in files(".cc", ".h"):
        if path.parent not in (ROOT / "runtime", ROOT / "runtime/aotinductor"):
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("#include"):
                name = line.split()[1].strip('<>"')
                known = name.startswith(("runtime/", "dlpack/", "nlohmann/")) or "/" not in name
                assert known or name.startswith("sys/"), f"{path}: {name}"
                assert not name.startswith(("cuda", "nvrtc", "nvml", "torch")), f"{path}: {name}"
