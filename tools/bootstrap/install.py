"""Installs Bazel privately: ``install.py PREFIX``.

Bazel and its rule sets come from Debian's packages (bazel-bootstrap, of the development suite, as
no released Debian has Bazel 7), the C++ libraries from its stable suite in fixed versions. Nothing
outside of PREFIX is written, root is not needed, and PREFIX must not be moved afterwards. A second
run finds the first one's result; two at once wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import sys
import time
from pathlib import Path

from debian import AptRoot, BootstrapError, run, unpack
from overrides import lay_out_archives, write_launcher, write_rc, write_stubs
from relocate import check_libraries, flatten_class_path, patch_executables

SUITE = "sid"
ARCHIVE_SUITE = "bookworm"

PACKAGES = (
    "bazel-bootstrap",
    "bazel-rules-cc",
    "bazel-rules-python",
    "bazel-skylib",
    "openjdk-21-jre-headless",
    # A-server.jar's JNI library needs it, and no package of Bazel's depends on it.
    "libblake3-0",
)

ARCHIVE_PACKAGES = {
    "googletest": "1.12.1-0.2",
    "libdlpack-dev": "0.6-1+b1",
    "libstb-dev": "0.0~git20220908.8b5f1f3+ds-1",
    "nlohmann-json3-dev": "3.11.2-2",
}

# Of the closure: jars, rule sets, the JRE and shared libraries. No compiler, perl, python or JDK.
WANTED = re.compile(
    r"bazel-(?!bootstrap-source).*|.*-java|proguard.*|velocity|openjdk-21-jre-headless"
    r"|libc6|libgcc-s1|libstdc\+\+6|zlib1g|libgrpc.*|libabsl.*|libprotobuf[0-9].*|libprotoc[0-9].*"
    r"|libcares2|libre2-[0-9].*|libssl3.*|libzstd1|libzstd-jni.*|libblake3-0|libtbb[0-9].*"
    r"|libhwloc[0-9].*|libudev1|libcap2|libjpeg.*|liblcms2-2|libfreetype6|libharfbuzz0b|libpng16.*"
    r"|libbrotli1|libgraphite2-3|libexpat1|libfontconfig1|libglib2\.0-0.*|libpcre2-8-0"
)
UNWANTED = {"ca-certificates-java", "bazel-bootstrap-data-source"}


def say(text: str) -> None:
    """Prints progress."""
    print(f"bazelw: {text}", file=sys.stderr, flush=True)


def check_host(prefix: Path) -> None:
    """Raises ``BootstrapError`` where this way of installing cannot work."""
    other_way = "install Bazel 7.7 or bazelisk yourself and put it on PATH"
    if (
        platform.machine() != "x86_64"
        or not shutil.which("apt-get")
        or not shutil.which("dpkg-deb")
    ):
        raise BootstrapError(f"no Bazel found, and this is not an x86-64 Debian; {other_way}")
    if re.search(r"[\s:]", str(prefix)):
        raise BootstrapError(
            f"{prefix}: blanks and colons cannot be in the path; set XDG_CACHE_HOME"
        )
    if prefix.is_relative_to("/tmp"):
        # Bazel's sandbox has a /tmp of its own, which would hide Bazel's embedded tools.
        raise BootstrapError(f"{prefix}: must not be below /tmp; set XDG_CACHE_HOME")


def install(prefix: Path, third_party: Path) -> None:
    """Installs into ``prefix``, which holds nothing of worth."""
    for name in ("root", "archives", "stubs", "registry", "apt"):
        shutil.rmtree(prefix / name, ignore_errors=True)
    apt_dir, root = prefix / "apt", prefix / "root"
    apt = AptRoot(apt_dir, (SUITE, ARCHIVE_SUITE))
    say("reading Debian's package lists")
    apt.update()
    closure = apt.closure(PACKAGES)
    if "bazel-bootstrap" not in closure:
        raise BootstrapError(f"Debian's suite {SUITE} has no bazel-bootstrap for this machine")
    wanted = {n: v for n, v in closure.items() if WANTED.fullmatch(n) and n not in UNWANTED}
    wanted["patchelf"] = apt.closure(["patchelf"])["patchelf"]
    say(f"fetching Bazel {closure['bazel-bootstrap']} ({len(wanted)} packages)")
    bazel_debs = apt.download(wanted)
    archive_debs = apt.download(ARCHIVE_PACKAGES)
    say("unpacking")
    unpack(bazel_debs, root)
    unpack(archive_debs, apt_dir / "archives")
    patch_executables(root)
    flatten_class_path(root)
    check_libraries(root, apt_dir)
    write_stubs(prefix / "stubs")
    lay_out_archives(apt_dir / "archives", prefix / "archives", third_party)
    write_rc(prefix, root)
    write_launcher(prefix, root)
    shutil.rmtree(apt_dir)


def main() -> int:
    """Installs once; prints nothing where there is nothing to do."""
    prefix = Path.cwd() / sys.argv[1]
    third_party = Path(__file__).resolve().parent.parent.parent / "third_party"
    os.umask(0o022)
    try:
        check_host(prefix)
        prefix.mkdir(parents=True, exist_ok=True)
        with (prefix / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (prefix / "complete").exists():
                return 0
            begin = time.monotonic()
            install(prefix, third_party)
            version = run([str(prefix / "bin/bazel"), "--version"]).strip()
            (prefix / "complete").write_text(version + "\n")
            say(f"{version} installed in {time.monotonic() - begin:.0f} s")
    except (BootstrapError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
