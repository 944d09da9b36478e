"""Every way in which the rules refuse something has a test that quotes what is said."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lint.workspace import ROOT, files

_QUOTED = 24
"""So many characters of a message's longest literal part must stand in a test, or all of it."""

_ELSEWHERE = {
    "host_python.bzl": 1,
    "library.bzl": 2,
    "pip_group.bzl": 1,
    "providers.bzl": 1,
    "test.bzl": 1,
}
"""How many messages of each file are not written where they are said."""

_PLACEHOLDER = re.compile(r"%[sdr]")

_WORDS = re.compile(r"\w")

_FUNCTIONS = {"fail", "_require"}
"""What refuses; the last argument is the message."""

_SAID_BY = re.compile(r"(check_\w+|simulated_capabilities|_pip_error)\Z")
"""Functions that return messages for others to refuse with."""


def literals(node: ast.AST) -> str:
    """The literal text of a message: strings that are added up, with ``%s`` for what is not one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return literals(node.left) + literals(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return literals(node.left)
    return "%s"


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each message of a .bzl file, which Python's parser reads as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in _FUNCTIONS:
                yield node.lineno, literals(node.args[-1])
        elif isinstance(node, ast.FunctionDef) and _SAID_BY.match(node.name):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return | ast.Assign | ast.AugAssign) and inner.value:
                    for value in getattr(inner.value, "elts", [inner.value]):
                        if _WORDS.search(longest(literals(value))):
                            yield inner.lineno, literals(value)


def longest(message: str) -> str:
    """The longest literal part of a message."""
    return max((part.strip() for part in _PLACEHOLDER.split(message)), key=len)


def quoted() -> str:
    """All strings of the tests of the rules."""
    paths = [path for path in files(".bzl", ".py") if "tests/bazel" in path.as_posix()]
    assert len(paths) > 10
    return "\n".join(
        literals(node)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.BinOp)
    )


def is_quoted(message: str) -> bool:
    part = longest(message)
    starts = range(max(1, len(part) - _QUOTED + 1))
    return any(part[start : start + _QUOTED] in QUOTED for start in starts)


QUOTED = quoted()


def rules() -> list[Path]:
    return [path for path in files(".bzl") if path.is_relative_to(ROOT / "aoti")]


@pytest.mark.parametrize("path", rules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_refusal_is_tested(path: Path) -> None:
    untested = [
        f"{path.relative_to(ROOT)}:{line}: {message}"
        for line, message in messages(path)
        if not is_quoted(message)
    ]
    assert not untested, f"no test quotes {_QUOTED} characters of:\n" + "\n".join(untested)


def test_messages_from_elsewhere_are_known() -> None:
    """Where the text comes from another function, that is one of ``_SAID_BY``, or ``_require``; or
    from the interpreter's copying, whose failure ``test_refusals.py`` has."""
    elsewhere = {
        path.name: sum(not _WORDS.search(longest(message)) for _, message in messages(path))
        for path in rules()
    }
    assert {name: count for name, count in elsewhere.items() if count} == _ELSEWHERE


def test_refusals_are_found() -> None:
    found = {path.name: len(list(messages(path))) for path in rules()}
    assert found["providers.bzl"] > 10 and found["library.bzl"] > 3 and found["targets.bzl"] > 3
    assert longest("%s: the packages hold no %s") == ": the packages hold no"
