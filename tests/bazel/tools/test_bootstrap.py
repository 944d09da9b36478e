"""How the private installation reads the system's apt configuration, and where it refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, "tools/bootstrap")

import debian
import install

DEB822 = """\
# Comment
Types: deb
URIs: https://vendor.example/apt
Suites: nodistro
Components: main

Types: deb
# Comment
URIs: https://mirror.example/debian https://other.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /keys/debian.gpg
"""


def test_mirror_of_deb822_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/a.sources").write_text(DEB822)
    assert debian.system_mirror(tmp_path) == (
        "https://mirror.example/debian",
        "/keys/debian.gpg",
    )


def test_disabled_sources_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/a.sources").write_text(DEB822 + "Enabled: no\n")
    with pytest.raises(debian.BootstrapError, match="names no Debian archive"):
        debian.system_mirror(tmp_path)


def test_mirror_of_one_line_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "deb https://vendor.example/apt nodistro main\n"
        "deb [arch=amd64 signed-by=/keys/k.gpg] https://mirror.example/debian trixie main\n"
    )
    assert debian.system_mirror(tmp_path) == ("https://mirror.example/debian", "/keys/k.gpg")


@pytest.mark.parametrize("path", ["/home/a b/x", "/home/a:b/x", "/tmp/x"])
def test_places_where_bazel_would_not_work(path: str) -> None:
    with pytest.raises(debian.BootstrapError, match="set XDG_CACHE_HOME"):
        install.check_host(Path(path))


def test_an_error_says_what_else_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(debian.BootstrapError, match="or bazelisk yourself"):
        install.check_host(Path("/home/x"))


def test_the_wanted_packages() -> None:
    for name in ("bazel-bootstrap", "libguava-java", "libabsl20240722", "openjdk-21-jre-headless"):
        assert install.WANTED.fullmatch(name), name
    for name in ("gcc-14", "perl", "python3", "openjdk-21-jdk-headless", "bazel-bootstrap-source"):
        assert not install.WANTED.fullmatch(name), name


def test_a_failing_command_is_told_with_its_last_words() -> None:
    with pytest.raises(debian.BootstrapError, match=r"sh -c .* failed \(3\):\nsorry"):
        debian.run(["sh", "-c", "echo sorry >&2; exit 3"])
