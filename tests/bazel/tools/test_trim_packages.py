"""What is taken out of installed packages, and that nothing of the machine stays."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, "aoti/private/repositories")

import trim_packages

FILES = {
    "bin/tool": "#!/home/somebody/bin/python3.11\nimport package\n",
    "bin/native": "\x7fELF",
    "package-1.0.dist-info/RECORD": (
        "../../bin/native,sha256=a,4\n"
        "../../bin/tool,sha256=b,50\n"
        "package-1.0.dist-info/RECORD,,\n"
        "package/__init__.py,sha256=c,0\n"
        '"package/a, b.py",sha256=d,0\n'
        "package/include/deep/header.h,sha256=e,0\n"
    ),
    "package/__init__.py": "",
    "package/a, b.py": "",
    "package/include/deep/header.h": "",
    "package/tests.py": "",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_trim(site: Path) -> None:
    trim_packages.trim(site, ["package/include/*"])
    left = {path.relative_to(site).as_posix() for path in site.rglob("*")}
    assert left == {
        "bin",
        "bin/native",
        "package",
        "package-1.0.dist-info",
        "package-1.0.dist-info/RECORD",
        "package/__init__.py",
        "package/a, b.py",
        "package/tests.py",
    }
    assert (site / "package-1.0.dist-info/RECORD").read_text() == (
        "../../bin/native,sha256=a,4\n"
        "package-1.0.dist-info/RECORD,,\n"
        "package/__init__.py,sha256=c,0\n"
        '"package/a, b.py",sha256=d,0\n'
    )


def test_what_a_later_pattern_keeps(site: Path) -> None:
    trim_packages.trim(site, ["package/*", "!package/include/*"])
    left = {path.relative_to(site).as_posix() for path in site.glob("package/**/*.*")}
    assert left == {"package/include/deep/header.h"}


def test_a_pattern_without_matches_is_an_error(site: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no package/tests/\* among the packages"):
        trim_packages.trim(site, ["package/tests/*"])
    assert (site / "bin/tool").exists(), "nothing is deleted then"
