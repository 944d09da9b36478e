"""Bazel in a test: a copy of this workspace, built by a server of its own."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

GROUPS = ("base", "triton", "torch")
"""Of Python packages. The outer build's are used: to install them again would take a minute."""

OPTIONAL_GROUPS = ("transformers",)
"""The same, of those tests alone that have them among their own packages."""

SMALL = "tests/bazel/small"
"""The package whose model is built."""


def mode() -> str:
    """``bzlmod`` or ``workspace``, as the outer build: each has its name for this repository."""
    return "bzlmod" if os.environ["TEST_WORKSPACE"] == "_main" else "workspace"


def _source() -> Path:
    return Path("MODULE.bazel").resolve().parent


def _overrides() -> Iterator[str]:
    for group in (*GROUPS, *OPTIONAL_GROUPS):
        suffix = f"aoti_pip_{group}/site"
        sites = [Path(entry) for entry in sys.path if entry.endswith(suffix)]
        if group in OPTIONAL_GROUPS and not sites:
            continue
        assert len(sites) == 1, f"no {suffix} in {sys.path}"
        name = f"_main~python~aoti_pip_{group}" if mode() == "bzlmod" else f"aoti_pip_{group}"
        yield f"--override_repository={name}={sites[0].resolve().parent}"


@dataclasses.dataclass(frozen=True)
class Build:
    """What a build ran: its spawns, as Bazel's execution log has them, and what it said."""

    spawns: tuple[Mapping[str, Any], ...]
    said: str

    def counts(self) -> Counter[str]:
        """Returns how often each of our mnemonics was run."""
        mnemonics = (str(spawn["mnemonic"]) for spawn in self.spawns)
        return Counter(mnemonic for mnemonic in mnemonics if mnemonic.startswith("Aoti"))

    def all_counts(self) -> Counter[str]:
        """Returns how often each mnemonic was run, those of C++ among them."""
        return Counter(str(spawn["mnemonic"]) for spawn in self.spawns)

    def runners(self, mnemonic: str) -> set[str]:
        """Returns how a mnemonic's actions were run, such as ``worker``."""
        return {str(s["runner"]) for s in self.spawns if s["mnemonic"] == mnemonic}


@dataclasses.dataclass
class Workspace:
    """A copy of the workspace in ``directory``; ``environ`` and ``umask`` are the server's.

    ``prefix`` is put before each command line of Bazel's. ``backwards``: the files of a directory
    are created in the reverse order of their names.
    """

    directory: Path
    environ: Mapping[str, str]
    umask: int = 0o022
    prefix: Sequence[str] = ()
    backwards: bool = False

    def __post_init__(self) -> None:
        ignored = shutil.ignore_patterns(
            "bazel-*", ".git", "__pycache__", ".*_cache", "user.bazelrc"
        )
        shutil.copytree(_source(), self.directory, ignore=ignored)
        if self.backwards:
            for folder, _, names in os.walk(self.directory):
                for name in sorted(names, reverse=True):
                    again = Path(folder, name + ".again")
                    shutil.copy2(Path(folder, name), again)
                    again.replace(Path(folder, name))

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        bazel = os.environ.get("RULES_AOTI_BAZEL")
        if not bazel:
            pytest.fail("this test runs Bazel: start it through ./bazelw, which says where it is")
        root = self.directory.parent / (self.directory.name + ".output")
        # Nothing of this test's own environment: it would hide what depends on a user's.
        environ = {"PATH": os.environ["PATH"], "HOME": str(self.directory.parent), **self.environ}
        return subprocess.run(
            [
                *self.prefix,
                bazel,
                "--nohome_rc",
                f"--output_user_root={root}",
                "--host_jvm_args=-Xmx1g",
                *args,
            ],
            cwd=self.directory,
            env=environ,
            umask=self.umask,
            capture_output=True,
            text=True,
            check=False,
        )

    def build(self, *targets: str, flags: Sequence[str] = ()) -> Build:
        """Builds; fails the test with what Bazel said if it does not succeed."""
        code, build = self._build(targets, flags)
        if code:
            pytest.fail(f"{' '.join(targets)} failed:\n{build.said[-6000:]}")
        return build

    def refuse(self, *targets: str, flags: Sequence[str] = ()) -> Build:
        """Builds what must not succeed; fails the test if it does."""
        code, build = self._build(targets, flags)
        if not code:
            pytest.fail(f"{' '.join(targets)} should have failed:\n{build.said[-6000:]}")
        return build

    def _build(self, targets: Sequence[str], flags: Sequence[str]) -> tuple[int, Build]:
        log = self.directory.parent / f"{self.directory.name}.json"
        log.unlink(missing_ok=True)
        command = [
            "build",
            f"--config={mode()}",
            *_overrides(),
            *flags,
            "--color=no",
            "--curses=no",
        ]
        done = self._run(*command, f"--execution_log_json_file={log}", *targets)
        spawns = tuple(_objects(log.read_text())) if log.exists() else ()
        return done.returncode, Build(spawns, done.stderr)

    def cquery(self, *targets: str, show: str, flags: Sequence[str] = ()) -> list[str]:
        """Analyses targets and evaluates ``show``, Starlark of ``target``, for each of them."""
        command = ["cquery", f"--config={mode()}", *_overrides(), *flags]
        expression = f"set({' '.join(targets)})"
        done = self._run(*command, "--output=starlark", f"--starlark:expr={show}", expression)
        if done.returncode:
            pytest.fail(f"cquery {expression} failed:\n{done.stderr[-6000:]}")
        return done.stdout.splitlines()

    def refusal(self, command: str, *args: str) -> str:
        """Runs a command that is to fail, and returns what Bazel says."""
        done = self._run(command, f"--config={mode()}", "--color=no", "--curses=no", *args)
        assert done.returncode, f"{command} {' '.join(args)} succeeded"
        return done.stderr

    def outputs(self) -> dict[str, str]:
        """Returns {path: SHA-256} of everything that the builds wrote in ``SMALL``."""
        return digests(self.directory / "bazel-bin" / SMALL)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replaces the one occurrence of ``old`` in a source file."""
        file = self.directory / path
        text = file.read_text()
        assert text.count(old) == 1, f"{path} has {text.count(old)} of {old!r}"
        file.write_text(text.replace(old, new))

    def clean(self) -> None:
        """Forgets what was built here."""
        self._run("clean")

    def close(self) -> None:
        """Ends the server."""
        self._run("shutdown")


def digests(root: Path) -> dict[str, str]:
    """Returns {path relative to ``root``: SHA-256} of the files below it that rules declared."""
    internal = (".params", ".d")
    tree = os.walk(root, followlinks=True)  # among runfiles a directory is a link
    paths = [Path(folder, name) for folder, _, names in tree for name in names]
    found = {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if path.suffix not in internal and path.is_file()
    }
    assert found, f"{root} is empty"
    return found


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Yields the JSON objects of a text that is nothing but them."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        yield value
        at = end
        while at < len(text) and text[at].isspace():
            at += 1
