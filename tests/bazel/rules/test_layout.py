"""How the rules' own files are laid out."""

from __future__ import annotations

import re
from pathlib import Path

AOTI = Path("aoti")


def bzl_files() -> list[Path]:
    found = sorted(AOTI.rglob("*.bzl"))
    assert len(found) > 10
    return found


def test_only_private_actions_declare_actions() -> None:
    declares = re.compile(
        r"actions\.(run|run_shell|write|expand_template|symlink)\(|cc_common\.(compile|link|create_)"
    )
    elsewhere = [
        str(path)
        for path in bzl_files()
        if declares.search(path.read_text()) and path.parent != AOTI / "private/actions"
    ]
    assert elsewhere == []


def test_one_action_a_file() -> None:
    for path in sorted((AOTI / "private/actions").glob("*.bzl")):
        mnemonics = re.findall(r'mnemonic = "(\w+)"', path.read_text())
        without = ("benchmark", "cc", "common", "for_gpu", "launcher", "simulator", "test")
        assert len(mnemonics) == (0 if path.stem in without else 1), path
        for mnemonic in mnemonics:
            assert mnemonic == "Aoti" + path.stem.title().replace("_", "")


def test_every_file_and_attribute_is_documented() -> None:
    for path in bzl_files():
        text = path.read_text()
        assert text.startswith('"""'), f"{path}: has no docstring"
        for call in re.finditer(r'"(\w+)": attr\.\w+\((.)', text):
            assert text[call.end(2) : call.end(2) + 40].lstrip().startswith("doc ="), (
                f"{path}: attribute {call[1]} has no doc"
            )


def test_public_files_load_no_native_rules() -> None:
    """Bazel 9 has none left."""
    native = re.compile(r"native\.(cc_|py_|sh_)|^\s*(cc_|py_)(library|binary|test)\(", re.M)
    for path in bzl_files():
        text = re.sub(r'"""[\s\S]*?"""', "", path.read_text())
        assert not native.search(text), path
