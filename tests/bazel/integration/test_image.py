"""examples/image: an image that holds a server, its model and what C++ needs, and nothing else.

The layout is what the OCI's image specification 1.1 says. The server runs with its layers as all of
its file system, and answers what PyTorch would.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from tests.bazel.integration import nested

MEGABYTE = 1 << 20

PACKAGES = ("libc6", "libgcc-s1", "libstdc++6")

_OTHER_MODE = {"bzlmod": "workspace", "workspace": "bzlmod"}

_BRIDGE = """\
#include <unistd.h>
// Stands for /bin/sh in the simulator's layer. The process that evaluates kernels is a Python
// program with PyTorch, which is no part of an image: it runs outside, in the root at /outside.
int main(int, char** argv) {
  if (chroot("/outside") != 0 || chdir("/") != 0) return 126;
  execv("/bin/sh", argv);
  return 127;
}
"""


@dataclasses.dataclass(frozen=True)
class Example:
    """The workspace of the example, with a server of Bazel's own."""

    directory: Path
    base: Path

    def bazel(self, mode: str, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        python = "rules_aoti~~python~" if mode == "bzlmod" else ""
        base = "_main~base~" if mode == "bzlmod" else ""
        overrides = {f"{base}base_debs": self.base}
        for group in nested.GROUPS:
            site = next(each for each in sys.path if each.endswith(f"aoti_pip_{group}/site"))
            overrides[f"{python}aoti_pip_{group}"] = Path(site).resolve().parent
        flags = [f"--override_repository={name}={path}" for name, path in overrides.items()]
        if command == "shutdown":
            flags = []
        else:
            flags += [f"--config={mode}", "--color=no", "--curses=no"]
        root = self.directory.parents[2] / "output"
        return subprocess.run(
            [
                os.environ["RULES_AOTI_BAZEL"],
                "--nohome_rc",
                f"--output_user_root={root}",
                "--host_jvm_args=-Xmx1g",
                command,
                *flags,
                *args,
            ],
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "HOME": str(root.parent)},
            capture_output=True,
            text=True,
            check=False,
        )


def _source() -> Path:
    return Path("MODULE.bazel").resolve().parent


def _debian_packages(directory: Path) -> Path:
    """What ``debian_packages`` of the example provides, in its place. Debian's archive keeps the
    latest version of a package alone, which is not always the one that the example pins: here the
    archive's signature is what says that a package is Debian's."""
    if not shutil.which("apt-get"):
        pytest.skip("the base of the image comes through apt-get, which is not installed")
    sys.path.append(str(_source() / "tools/bootstrap"))
    from debian import AptRoot  # type: ignore[import-not-found]

    apt = AptRoot(directory / "apt", ["bookworm"])
    apt.update()
    closure = apt.closure(PACKAGES)
    base = directory / "base_debs"
    base.mkdir()
    for deb in apt.download({name: closure[name] for name in PACKAGES}):
        shutil.copyfile(deb, base / deb.name)
    (base / "WORKSPACE").touch()
    (base / "BUILD.bazel").write_text(
        'filegroup(name = "debs", srcs = glob(["*.deb"]), visibility = ["//visibility:public"])\n'
    )
    return base


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    if not os.environ.get("RULES_AOTI_BAZEL"):
        pytest.fail("this test runs Bazel: start it through ./bazelw, which says where it is")
    root = tmp_path_factory.mktemp("image")
    ignored = shutil.ignore_patterns(
        "bazel-*", ".git", "__pycache__", ".*_cache", "user.bazelrc", "tests"
    )
    shutil.copytree(_source(), root / "workspace", ignore=ignored)
    made = Example(root / "workspace/examples/image", _debian_packages(root))
    done = made.bazel(nested.mode(), "build", "//:image", "//:base", "//:app", "//:weights_layer")
    assert done.returncode == 0, done.stderr[-6000:]
    yield made
    made.bazel(nested.mode(), "shutdown")


@pytest.fixture(scope="module")
def layout(example: Example) -> Path:
    return example.directory / "bazel-bin/image"


def blob(layout: Path, descriptor: dict[str, Any]) -> bytes:
    """The blob that a descriptor names, checked against it."""
    algorithm, _, digest = descriptor["digest"].partition(":")
    data = (layout / "blobs" / algorithm / digest).read_bytes()
    assert (algorithm, hashlib.sha256(data).hexdigest()) == ("sha256", digest)
    assert len(data) == descriptor["size"]
    return data


def parts(layout: Path) -> tuple[dict[str, Any], dict[str, Any], list[bytes]]:
    """Manifest, configuration and compressed layers."""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    manifest = json.loads(blob(layout, entry))
    config = json.loads(blob(layout, manifest["config"]))
    return manifest, config, [blob(layout, each) for each in manifest["layers"]]


def test_layout(layout: Path) -> None:
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_text())
    assert (index["schemaVersion"], index["mediaType"]) == (
        2,
        "application/vnd.oci.image.index.v1+json",
    )
    (entry,) = index["manifests"]
    assert entry["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}
    manifest, config, layers = parts(layout)
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, entry["mediaType"])
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert {each["mediaType"] for each in manifest["layers"]} == {
        "application/vnd.oci.image.layer.v1.tar+gzip"
    }
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    diff_ids = [f"sha256:{hashlib.sha256(gzip.decompress(each)).hexdigest()}" for each in layers]
    assert config["rootfs"] == {"type": "layers", "diff_ids": diff_ids}
    named = [entry, manifest["config"], *manifest["layers"]]
    blobs = {path.name for path in (layout / "blobs/sha256").iterdir()}
    assert blobs == {each["digest"].removeprefix("sha256:") for each in named}


def test_layers_know_no_time_and_no_user(layout: Path) -> None:
    _, config, layers = parts(layout)
    assert "created" not in config
    for data in layers:
        assert data[4:8] == bytes(4), "gzip's time"
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = archive.getmembers()
        names = [member.name for member in members]
        assert names == sorted(set(names))
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_size(layout: Path) -> None:
    """README.md has the figures."""
    _, _, layers = parts(layout)
    assert sum(map(len, layers)) < 4 * MEGABYTE
    assert sum(len(gzip.decompress(each)) for each in layers) < 10 * MEGABYTE


def test_with_the_other_dependency_system(example: Example) -> None:
    """It is analysed; what it builds are the same actions."""
    other = _OTHER_MODE[nested.mode()]
    done = example.bazel(other, "build", "--nobuild", "//:image")
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.fixture
def root(layout: Path, tmp_path: Path) -> Path:
    """The file system that a container has: the layers, over one another, and nothing else."""
    made = tmp_path / "root"
    made.mkdir()
    for data in parts(layout)[2]:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(made, filter="tar")
    return made


def _start(root: Path, environ: dict[str, str], *args: str) -> subprocess.Popen[str]:
    """Starts a program in a root of its own, with /outside as the only way out."""
    (root / "outside").mkdir(exist_ok=True)
    script = 'mount --rbind / "$1/outside" && exec chroot "$@"'
    return subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", root, *args],
        env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", **environ},  # chroot's
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _add_simulator(root: Path) -> None:
    """A layer that only this test has: a libcuda.so.1, as a container's runtime mounts NVIDIA's."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    shutil.copyfile("simulator/libcuda.so.1", libraries / "libcuda.so.1")
    source = root.parent / "bridge.cc"
    source.write_text(_BRIDGE)
    (root / "bin").mkdir()
    subprocess.run(["g++", "-O1", "-static", source, "-o", root / "bin/sh"], check=True)


def test_the_server_answers_from_its_layers_alone(example: Example, root: Path) -> None:
    entrypoint = parts(example.directory / "bazel-bin/image")[1]["config"]["Entrypoint"]
    _add_simulator(root)
    (root / "dev").mkdir()
    (root / "dev/null").touch()
    built = (example.directory / "bazel-bin").resolve()
    environ = {
        "SIMULATOR_EXECUTOR": str(Path("simulator/executor").absolute()),
        "SIMULATOR_KERNELS": f"{built}/scorer.programs:{built}/scorer.kernels",
        "SIMULATOR_QUIET": "1",
        "RUNFILES_DIR": os.environ["TEST_SRCDIR"],
    }
    weights = safetensors.numpy.load_file(root / "app/scorer.safetensors")
    asked = np.linspace(-2, 2, 32, dtype=np.float32).reshape(2, 16)
    expected = np.maximum(asked @ weights["layer.weight"].T + weights["layer.bias"], 0)
    with _start(root, environ, *entrypoint, "0") as server:
        assert server.stdout is not None and server.stderr is not None
        line = server.stdout.readline()
        if not line.startswith("listening on port "):
            server.kill()
            pytest.fail(f"{line}{server.stderr.read()}")
        with socket.create_connection(("127.0.0.1", int(line.split()[-1])), timeout=120) as client:
            for question, right in zip(asked, expected, strict=True):
                client.sendall(question.tobytes())
                answer = np.frombuffer(client.recv(32, socket.MSG_WAITALL), np.float32)
                np.testing.assert_allclose(answer, right, rtol=1e-5, atol=1e-6)
        server.terminate()


def test_without_a_driver_it_says_so(root: Path) -> None:
    with _start(root, {}, "/app/server", "/app/scorer.safetensors", "0") as server:
        _, said = server.communicate(timeout=60)
    assert server.returncode == 1
    assert said.startswith("server: no driver: libcuda.so.1: cannot open shared object file")


def test_without_the_base_it_does_not_start(root: Path) -> None:
    """So the libraries that it runs with are the base's."""
    (root / "usr/lib/x86_64-linux-gnu/libstdc++.so.6").unlink()
    with _start(root, {}, "/app/server", "/app/scorer.safetensors", "0") as server:
        _, said = server.communicate(timeout=60)
    assert "libstdc++.so.6: cannot open shared object file" in said
