"""The rules, wrapgen, constraint values, simulator and documentation list the same GPUs."""

from __future__ import annotations

import ast
import re
import runpy
from typing import Any

from tests.lint.workspace import ROOT

TARGET = runpy.run_path(str(ROOT / "wrapgen/target.py"), run_name="target")
DEVICES: dict[int, Any] = TARGET["DEVICES"]
AMD_DEVICES: dict[int, Any] = TARGET["AMD_DEVICES"]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def constants(path: str) -> dict[str, list[str]]:
    """The lists at the top of a .bzl file whose elements are literals."""
    found = {}
    for statement in ast.parse(read(path)).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.List):
            found[ast.unparse(statement.targets[0])] = ast.literal_eval(statement.value)
    return found


RULES = constants("aoti/private/targets.bzl")


def test_the_rules_build_for_what_wrapgen_lowers_for() -> None:
    assert RULES["CAPABILITIES"] == [str(number) for number in sorted(DEVICES)]
    assert RULES["ARCHITECTURES"] == [
        AMD_DEVICES[number].architecture for number in sorted(AMD_DEVICES)
    ]


def test_a_platform_may_have_every_gpu_that_is_built_for() -> None:
    text = read("aoti/private/targets.bzl")
    numbers = re.search(r"GPUS = ARCHITECTURES .* for number in (\[.*?\])\]", text)
    assert numbers is not None
    assert set(RULES["CAPABILITIES"]) <= set(ast.literal_eval(numbers[1]))
    assert 'load("//aoti/private:targets.bzl", "GPUS")' in read("aoti/gpu/BUILD.bazel")


def test_devices_are_under_their_own_numbers() -> None:
    for number, device in DEVICES.items():
        assert device.capability == (number // 10, number % 10)
    for number, device in AMD_DEVICES.items():
        assert device.architecture == f"gfx{number:x}"


def test_the_simulator_has_the_declared_devices_limits() -> None:
    text = read("simulator/limits.cc").partition("kGenerations[] = {")[2].partition("};")[0]
    rows = [[int(each) for each in row.split(", ")] for row in re.findall(r"\{([\d, ]+)\}", text)]
    found = {number: rest for number, *rest in rows if number in DEVICES}
    assert found == {
        number: [
            device.shared_memory_per_block_optin // 1024,
            device.max_threads_per_multiprocessor,
            blocks,
            device.multiprocessors,
        ]
        for number, device in DEVICES.items()
        for blocks in found[number][2:3]  # which a Device does not tell
    }


def test_the_documentation_lists_them() -> None:
    rows = re.findall(r"^\| `sm_(\d+)`, `compute_(\d+)` \| (.*?) \|", read("docs/rules.md"), re.M)
    assert [(int(a), int(b)) for a, b, _ in rows] == [(n, n) for n in sorted(DEVICES)]
    for number, _, name in rows:
        assert DEVICES[int(number)].name == f"NVIDIA {name}"
