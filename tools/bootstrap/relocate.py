"""Makes Debian's Bazel run from any directory, on a Debian with an older libc.

Its executables get the prefix's own dynamic linker and a ``DT_RPATH`` into the prefix, so that no
environment variable is needed, which would leak into build actions. ``DT_RPATH``, not
``DT_RUNPATH``: only the former serves what the JVM and JNI libraries load in their turn.
"""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

from debian import BootstrapError, run

MULTIARCH = "x86_64-linux-gnu"
INSTALL_BASE = "usr/share/bazel"


def java_home(root: Path) -> Path:
    """Returns the JRE's directory."""
    for java in sorted((root / "usr/lib/jvm").glob("*/bin/java")):
        if not java.parent.parent.is_symlink():
            return java.parent.parent
    raise BootstrapError("no Java among the packages")


def _loader(root: Path) -> Path:
    loader = root / "usr/lib64/ld-linux-x86-64.so.2"
    if not loader.exists():
        raise BootstrapError("no dynamic linker among the packages")
    return loader.resolve()


def _executables(root: Path) -> Iterator[tuple[Path, str]]:
    """Yields (executable, search path for its libraries)."""
    libraries = f"{root}/usr/lib/{MULTIARCH}"
    jre = java_home(root)
    for path in (
        root / "usr/bin/bazel",
        *sorted((root / f"usr/libexec/{MULTIARCH}/bazel").iterdir()),
    ):
        yield path, libraries
    for path in (*sorted((jre / "bin").iterdir()), jre / "lib/jspawnhelper", jre / "lib/jexec"):
        yield path, f"{jre}/lib:{jre}/lib/server:{libraries}"


def patch_executables(root: Path) -> None:
    """Sets the interpreter and the library path of everything that is executed."""
    loader = _loader(root)
    patchelf = [
        str(loader),
        "--library-path",
        f"{root}/usr/lib/{MULTIARCH}",
        f"{root}/usr/bin/patchelf",
    ]
    for path, search in _executables(root):
        if path.is_symlink() or not path.is_file():
            continue
        probe = subprocess.run(
            [*patchelf, "--print-interpreter", str(path)], capture_output=True, check=False
        )
        if probe.returncode:  # a script, or statically linked
            continue
        path.chmod(path.stat().st_mode | 0o200)
        run([*patchelf, "--set-interpreter", str(loader), str(path)])
        run([*patchelf, "--force-rpath", "--set-rpath", search, str(path)])


def check_libraries(root: Path, scratch: Path) -> None:
    """Raises ``BootstrapError`` where a library would come from outside of the prefix."""
    jre = java_home(root)
    with zipfile.ZipFile(root / INSTALL_BASE / "A-server.jar") as jar:
        native = [name for name in jar.namelist() if name.endswith("libunix_jni.so")]
        jni = [Path(jar.extract(name, scratch)) for name in native]
    libraries = [
        jre / "lib/server/libjvm.so",
        *(jre / f"lib/lib{n}.so" for n in ("java", "net", "nio", "zip")),
    ]
    search = f"{jre}/lib:{jre}/lib/server:{root}/usr/lib/{MULTIARCH}"
    faults = []
    for path in (*(path for path, _ in _executables(root)), *libraries, *jni):
        if not path.is_file() or path.read_bytes()[:4] != b"\x7fELF":
            continue
        listing = subprocess.run(
            [str(_loader(root)), "--library-path", search, "--list", str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        for line in (listing.stdout + listing.stderr).splitlines():
            ours = f"=> {root}" in line or line.strip().startswith(str(root))
            if not ours and "linux-vdso" not in line and "statically linked" not in line:
                faults.append(f"{path.name}: {line.strip()}")
    if faults:
        raise BootstrapError("shared libraries are missing from the prefix:\n" + "\n".join(faults))


def _manifest(jar: Path) -> str:
    """Returns a jar's manifest with continuation lines joined."""
    with zipfile.ZipFile(jar) as archive:
        if "META-INF/MANIFEST.MF" not in archive.namelist():
            return ""
        text = archive.read("META-INF/MANIFEST.MF").decode("utf-8", "replace")
    return re.sub(r"\r\n?", "\n", text).replace("\n ", "")


def _drop_class_path(jar: Path, manifest: str) -> None:
    lines: list[str] = []
    for line in manifest.split("\n"):
        if line.lower().startswith("class-path:"):
            continue
        while len(line.encode()) > 70:  # the format allows 72 bytes a line
            lines.append(line[:70])
            line = " " + line[70:]
        lines.append(line)
    with zipfile.ZipFile(jar) as archive:
        rest = [
            (info, archive.read(info))
            for info in archive.infolist()
            if info.filename != "META-INF/MANIFEST.MF"
        ]
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/MANIFEST.MF", "\r\n".join(lines))
        for info, data in rest:
            archive.writestr(info, data)


def flatten_class_path(root: Path) -> None:
    """Names the server's jars one by one, and deletes the others.

    Debian's jars name each other in their manifests by absolute path (``/usr/share/java/...``),
    which outside of the prefix is absent or another version. Bazel's client reads the list of jars
    from the install base before it looks at manifests (Debian's fix-launcher-classpath patch).
    """
    listing = root / INSTALL_BASE / "bazel_classpath_debian_depends.txt"
    order: dict[Path, Path] = {}  # resolved -> as named

    def visit(path: Path) -> None:
        real = path.resolve()
        if real in order or not real.exists():  # some are named and never used
            return
        order[real] = path
        manifest = _manifest(real)
        match = re.search(r"^Class-Path:(.*)$", manifest, re.M | re.I)
        if not match:
            return
        _drop_class_path(real, manifest)
        for entry in match[1].split():
            entry = entry.removeprefix("file:")
            visit(Path(f"{root}{entry}") if entry.startswith("/") else path.parent / entry)

    for line in listing.read_text().split():
        visit(Path(line if line.startswith(str(root)) else f"{root}{line}"))
    listing.write_text("".join(f"{path}\n" for path in order.values()))
    for directory, _, names in os.walk(root / "usr/share"):
        for name in names:
            path = Path(directory, name)
            if root / INSTALL_BASE in path.parents or path.suffix != ".jar":
                continue
            if path.resolve() not in order:
                path.unlink()
