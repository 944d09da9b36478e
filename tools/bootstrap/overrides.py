"""The rc file that puts Debian's packages in the place of the archives WORKSPACE names."""

from __future__ import annotations

import shutil
from pathlib import Path

from relocate import INSTALL_BASE, java_home

MODULES = {
    "platforms": "tools/platforms",
    "rules_java": "rules/java",
    "rules_cc": "rules/cc",
    "bazel_features": "tools/features",
    "bazel_skylib": "tools/skylib",
    "rules_license": "rules/license",
    "rules_python": "rules/python",
    "rules_proto": "rules/proto",
}
"""Rule sets, and where Debian's packages have them, relative to the install base."""

STUBS = ("apple_support", "protobuf", "buildozer", "zlib")
"""Modules that bazel_tools names and that C++ and Python builds do not use."""

ARCHIVES = ("dlpack", "googletest", "nlohmann_json", "stb")
"""C++ libraries, each with a ``third_party/NAME.BUILD`` here."""

# Where upstream's archive has what a Debian package has.
_LAYOUT = {
    "dlpack": [("usr/include/dlpack", "include/dlpack")],
    "googletest": [
        ("usr/src/googletest/googletest", "googletest"),
        ("usr/src/googletest/googlemock", "googlemock"),
    ],
    "nlohmann_json": [("usr/include/nlohmann", "include/nlohmann")],
    "stb": [("usr/include/stb", ".")],
}

EXTENSION = "cpp_archives"
"""The module extension of //aoti:extensions.bzl that declares ``ARCHIVES``."""


def lay_out_archives(unpacked: Path, archives: Path, third_party: Path) -> None:
    """Arranges Debian's C++ libraries as their upstream archives are, with our BUILD files."""
    for name in ARCHIVES:
        target = archives / name
        for source, destination in _LAYOUT[name]:
            shutil.copytree(unpacked / source, target / destination, dirs_exist_ok=True)
        for stray in [
            *target.rglob("BUILD"),
            *target.rglob("BUILD.bazel"),
            *target.rglob("WORKSPACE*"),
        ]:
            stray.unlink()
        (target / "WORKSPACE").write_text(f'workspace(name = "{name}")\n')
        shutil.copyfile(third_party / f"{name}.BUILD", target / "BUILD.bazel")


def write_stubs(stubs: Path) -> None:
    """Writes empty modules."""
    for name in STUBS:
        (stubs / name).mkdir(parents=True)
        (stubs / name / "MODULE.bazel").write_text(f'module(name = "{name}")\n')
        (stubs / name / "WORKSPACE").write_text(f'workspace(name = "{name}")\n')
        (stubs / name / "BUILD.bazel").touch()


def write_rc(prefix: Path, root: Path) -> None:
    """Writes ``offline.bazelrc``, and an empty registry so that nothing is looked for elsewhere."""
    base = root / INSTALL_BASE
    registry = prefix / "registry"
    (registry / "modules").mkdir(parents=True)
    (registry / "bazel_registry.json").write_text("{}\n")
    lines = [
        "# Written by tools/bootstrap. To override a repository that a workspace does not use does",
        "# nothing. To override such a module is an error, so only those of bazel_tools are named.",
        f"common --registry=file://{registry}",
        "common --lockfile_mode=off",  # Debian's Bazel writes an empty one
    ]
    modules = {name: base / path for name, path in MODULES.items()}
    for name, path in modules.items():
        lines.append(f"common --override_module={name}={path}")
        lines.append(f"common --override_repository={name}={path}")
    lines += [f"common --override_module={name}={prefix}/stubs/{name}" for name in STUBS]
    for name in ARCHIVES:
        # As named in a WORKSPACE; with bzlmod here; with bzlmod where rules_aoti is a dependency.
        for repository in (name, f"_main~{EXTENSION}~{name}", f"rules_aoti~~{EXTENSION}~{name}"):
            lines.append(f"common --override_repository={repository}={prefix}/archives/{name}")
    (prefix / "offline.bazelrc").write_text("\n".join(lines) + "\n")


def write_launcher(prefix: Path, root: Path) -> None:
    """Writes ``bin/bazel``."""
    launcher = prefix / "bin/bazel"
    launcher.parent.mkdir(exist_ok=True)
    launcher.write_text(
        "#!/bin/sh\n"
        "# Written by tools/bootstrap.\n"
        f'exec "{root}/usr/bin/bazel" --nosystem_rc --install_base="{root}/{INSTALL_BASE}" \\\n'
        f'  --trust_install_base --server_javabase="{java_home(root)}" \\\n'
        f'  --bazelrc="{prefix}/offline.bazelrc" "$@"\n'
    )
    launcher.chmod(0o755)
