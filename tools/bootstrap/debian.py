"""A private apt root: packages of other Debian suites, without touching the system's own state.

The mirror, its keyring and the ``Acquire`` settings (proxies, certificates) come from the system's
apt configuration. Signatures are checked by apt as always.
"""

from __future__ import annotations

import concurrent.futures
import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

EXCLUDED = ("doc", "man", "locale", "maven-repo", "lintian", "bash-completion")
"""Directories of ``/usr/share`` that are not unpacked."""


class BootstrapError(Exception):
    """Bazel cannot be installed; the message says why and what else would do."""


def run(command: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Runs a command and returns what it prints; raises ``BootstrapError`` with its last words."""
    merged = {**os.environ, "LC_ALL": "C", **(env or {})}
    done = subprocess.run(command, env=merged, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise BootstrapError(f"{' '.join(command[:3])} failed ({done.returncode}):\n{tail}")
    return done.stdout


def system_mirror(etc: Path = Path("/etc/apt")) -> tuple[str, str]:
    """Returns (URI, keyring) of the first Debian archive in the system's sources."""
    default_key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            lines = [line for line in stanza.splitlines() if not line.startswith("#")]
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", "\n".join(lines), re.M))
            fields = {key.lower(): value.strip() for key, value in fields.items()}
            if _is_debian(fields.get("suites", "")) and fields.get("enabled") != "no":
                uris = fields.get("uris", "").split()
                if uris:
                    return uris[0], fields.get("signed-by") or default_key
    legacy = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    for path in legacy:
        if not path.exists():
            continue
        for line in path.read_text().splitlines():
            match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s", line)
            if match and _is_debian(match[3]):
                key = re.search(r"signed-by=(\S+)", match[1] or "")
                return match[2], key[1] if key else default_key
    raise BootstrapError("the system's apt configuration names no Debian archive")


def _is_debian(suites: str) -> bool:
    known = ("bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable")
    return any(suite in known for suite in suites.split())


class AptRoot:
    """An apt configuration, package lists and an empty dpkg status under ``root``."""

    def __init__(self, root: Path, suites: Iterable[str]) -> None:
        self.debs = root / "debs"
        shutil.rmtree(root, ignore_errors=True)
        for name in (
            *(f"etc/apt/{part}.d" for part in ("apt.conf", "preferences", "sources.list")),
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/lib/dpkg",
            "var/cache/apt/archives/partial",
            "var/log/apt",
            "debs",
        ):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        uri, key = system_mirror()
        sources = root / "etc/apt/sources.list.d/private.sources"
        sources.write_text(
            f"Types: deb\nURIs: {uri}\nSuites: {' '.join(suites)}\nComponents: main\n"
            f"Signed-By: {key}\n"
        )
        for path in sorted(Path("/etc/apt/apt.conf.d").glob("*")):
            if path.is_file() and os.access(path, os.R_OK):
                shutil.copyfile(path, root / "etc/apt/apt.conf.d" / path.name)
        config = root / "apt.conf"
        config.write_text(
            f'Dir "{root}";\n'
            f'Dir::State::status "{root}/var/lib/dpkg/status";\n'
            'Acquire::Languages "none";\n'
            'Acquire::Retries "3";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'APT::Install-Recommends "false";\n'
            'APT::Install-Suggests "false";\n'
            f'APT::Sandbox::User "{getpass.getuser()}";\n'
            'Debug::NoLocking "true";\n'
        )
        self._env = {"APT_CONFIG": str(config)}

    def update(self) -> None:
        """Fetches the package lists."""
        run(["apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update"], env=self._env)

    def closure(self, packages: Iterable[str]) -> dict[str, str]:
        """Returns ``{package: version}`` of what installing ``packages`` on nothing would take."""
        plan = run(["apt-get", "-s", "-y", "install", *packages], env=self._env)
        return dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", plan, re.M))

    def download(self, packages: dict[str, str]) -> list[Path]:
        """Fetches the packages named, in these versions."""
        names = [f"{name}={version}" for name, version in sorted(packages.items())]
        self.debs.mkdir(exist_ok=True)
        before = set(self.debs.glob("*.deb"))
        run(["apt-get", "-qq", "download", *names], env=self._env, cwd=self.debs)
        return sorted(set(self.debs.glob("*.deb")) - before)


def unpack(debs: Iterable[Path], root: Path) -> None:
    """Unpacks packages over one another, two at a time, without running their scripts."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("bin", "lib", "lib64", "sbin"):  # as on every system with a merged /usr
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    excluded = [f"--exclude=./usr/share/{name}" for name in EXCLUDED]

    def unpack_one(deb: Path) -> None:
        tar = ["tar", "-x", "-C", str(root), "--no-same-owner", "--keep-directory-symlink"]
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE
        ) as p:
            done = subprocess.run([*tar, *excluded], stdin=p.stdout, check=False)
        if p.returncode or done.returncode:
            raise BootstrapError(f"cannot unpack {deb.name}")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(unpack_one, debs))
    for link in [path for path in root.rglob("*") if path.is_symlink()]:
        target = str(link.readlink())
        if target.startswith("/") and os.path.lexists(f"{root}{target}"):
            link.unlink()
            link.symlink_to(f"{root}{target}")
