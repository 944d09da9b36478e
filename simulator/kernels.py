"""Finds the TTIR that a compiled kernel was made of.

The directories are what ``lower`` and ``compile`` wrote, or anything that holds them: shards with
``NAME.ttir`` and the launch ``NAME.json`` beside it, and compiled kernels with the metadata
``NAME.json``. The metadata names the image and the TTIR by their SHA-256, so that no kernel is
taken for another of its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wrapgen.kernels.launch import Launch, parse


class KernelNotFoundError(Exception):
    """There is no TTIR for an image; the message says what was looked for, and where."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A kernel's TTIR. ``launch`` is what lowering declared; ``registers`` those of a thread and
    ``scratch`` the bytes of global scratch memory of a block where the metadata says so, else 0."""

    ttir: str
    path: Path
    launch: Launch | None
    registers: int
    scratch: int = 0


class KernelDirectories:
    """The kernels below some directories, read as they are asked for."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = list(directories)
        self._files: dict[str, list[Path]] | None = None

    def find(self, name: str, image_sha256: str) -> Source:
        """Returns the TTIR of kernel ``name``. Raises ``KernelNotFoundError``."""
        try:
            return self._find(name, image_sha256)
        except KernelNotFoundError:
            # It may have been compiled since the directories were listed.
            self._files = None
            return self._find(name, image_sha256)

    def _find(self, name: str, image_sha256: str) -> Source:
        facts = [(path, self._json(path)) for path in self._named(f"{name}.json")]
        metadata = [(path, fact) for path, fact in facts if "sha256" in fact]
        launches = [fact for _, fact in facts if "num_stages" in fact]
        ours = [fact for _, fact in metadata if fact["sha256"] == image_sha256]
        if metadata and not ours:
            seen = "\n".join(f"  {path}: {fact['sha256']}" for path, fact in metadata)
            raise KernelNotFoundError(
                f"kernel {name}: the image's SHA-256 is {image_sha256}, which no metadata has; is "
                f"SIMULATOR_KERNELS that of another build?\n{seen}"
            )
        wanted = {str(fact["ttir_sha256"]) for fact in ours}
        sources: dict[str, tuple[Path, bytes]] = {}
        for path in self._named(f"{name}.ttir"):
            data = path.read_bytes()
            sources.setdefault(hashlib.sha256(data).hexdigest(), (path, data))
        fitting = sources
        if wanted:
            fitting = {digest: sources[digest] for digest in sources if digest in wanted}
        # Several that were compiled to one image are one kernel.
        if not fitting or (len(fitting) > 1 and not wanted):
            raise KernelNotFoundError(self._explain(name, wanted, sources))
        digest, (path, data) = min(fitting.items())
        launch = next((fact for fact in launches if fact["ttir_sha256"] == digest), None)
        return Source(
            ttir=data.decode("utf-8"),
            path=path,
            launch=None if launch is None else parse(launch, where=str(path)),
            registers=int(ours[0]["registers"]) if ours else 0,
            scratch=int(ours[0].get("global_scratch", 0)) if ours else 0,
        )

    def _explain(self, name: str, wanted: set[str], sources: dict[str, tuple[Path, bytes]]) -> str:
        searched = os.pathsep.join(str(directory) for directory in self._directories)
        if not sources:
            return (
                f"kernel {name}: there is no {name}.ttir below SIMULATOR_KERNELS={searched}: name "
                "the directories that lower and compile wrote"
            )
        found = "\n".join(f"  {path}: {digest}" for digest, (path, _) in sources.items())
        if wanted:
            return (
                f"kernel {name}: its metadata says that it was compiled from TTIR with SHA-256 "
                f"{', '.join(sorted(wanted))}, which no {name}.ttir has:\n{found}"
            )
        return (
            f"kernel {name}: there are several {name}.ttir, and no metadata that says which it was "
            f"compiled from; name the directories that compile wrote, too\n{found}"
        )

    def _named(self, name: str) -> list[Path]:
        if self._files is None:
            self._files = {}
            for directory in self._directories:
                if not directory.is_dir():
                    raise KernelNotFoundError(f"SIMULATOR_KERNELS: {directory} is no directory")
                # Bazel's runfiles are links, of directories too.
                for folder, folders, files in os.walk(directory, followlinks=True):
                    folders.sort()
                    for file in sorted(files):
                        if file.endswith((".ttir", ".json")):
                            self._files.setdefault(file, []).append(Path(folder, file))
        return self._files.get(name, [])

    @staticmethod
    def _json(path: Path) -> dict[str, Any]:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise KernelNotFoundError(f"{path}: not JSON: {error}") from error
        return data if isinstance(data, dict) else {}
