"""Lowering with a lock: which kernels an entry changes, which entries are refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import nn

from simulator import program as simulator
from tests.bazel.small import small
from tests.lowering import support
from wrapgen.lowering import choices, lower
from wrapgen.lowering.templates import cost
from wrapgen.program import Program
from wrapgen.target import parse
from wrapgen.tuning import lock
from wrapgen.tuning.lock import Config, Entry, Lock, LockError, Measured

SM_90 = parse("sm_90")


class Lowered:
    """A model, lowered in ways that differ by the lock."""

    def __init__(self, module: nn.Module, args: tuple[Any, ...], place: Path) -> None:
        self.place = place
        self.module = module
        self.args = args
        self.weights = support.write_graph(support.export(module, args), place / "graph.json")
        self.plain = self.lower("plain", None)

    def lower(self, name: str, entries: dict[str, Entry] | None, target: str = "sm_90") -> Program:
        path = None
        if entries is not None:
            path = self.place / f"{name}.tuning.json"
            lock.write(Lock({"sm_90": entries}), path)
        return lower(self.place / "graph.json", parse(target), self.place / name, tuning=path)

    def files(self, name: str) -> dict[str, bytes]:
        """What compile sees of a lowering, by shard."""
        root = self.place / name / "shards"
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    def sites(self, name: str = "plain") -> dict[str, Any]:
        report = json.loads((self.place / name / "sites.json").read_text())
        assert report["schema_version"] == 1 and report["target"] == "sm_90"
        return {site["site"]: site for site in report["sites"]}

    def changed(self, name: str) -> set[str]:
        """The kernels' files that a lowering has and the plain one has not, and the other way."""
        plain, other = self.files("plain"), self.files(name)
        return {path for path in plain.keys() | other.keys() if plain.get(path) != other.get(path)}

    def check(self, name: str, program: Program) -> None:
        """Compares what a lowered model computes with eager PyTorch."""
        names = [spec.name for spec in program.inputs]
        given = dict(zip(names, self.args, strict=True))
        found = simulator.run(self.place / name, self.weights, given)["outputs"]
        wanted = self.module(*self.args)
        torch.testing.assert_close(
            found[program.outputs[0].name].float(), wanted.float(), rtol=2e-2, atol=2e-3
        )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    torch.manual_seed(0)
    module = small.Small().eval().half()
    return Lowered(module, (torch.randn(1, 8, 16, 16).half(),), tmp_path_factory.mktemp("lowered"))


def test_sites_of_a_model(model: Lowered) -> None:
    kinds = [key.partition(" ")[0] for key in model.sites()]
    assert kinds.count("convolution") == 1 and kinds.count("mm") == 2
    assert {"pointwise", "persistent_reduction"} <= set(kinds)
    convolution = next(key for key in model.sites() if key.startswith("convolution"))
    assert convolution == (
        "convolution float16[1,8,16,16]{2048,1,128,8} float16[16,72]{72,1} "
        "kernel 3x3 stride 1x1 padding 1x1 dilation 1x1 groups 1"
    )
    for site in model.sites().values():
        assert site["from"] == "model" and site["config"] == site["default"]


def test_an_entry_that_is_the_default_changes_nothing(model: Lowered) -> None:
    measured = Measured("a GPU", 13000, 2000, 1000)
    entries = {key: Entry(site["config"], measured) for key, site in model.sites().items()}
    assert model.lower("same", entries) == model.plain
    assert model.files("same") == model.files("plain")


def test_one_lock_is_one_result_for_every_target_of_a_capability(model: Lowered) -> None:
    key, config = other(model, "mm")
    one = model.lower("machine code", {key: Entry(config)})
    assert model.lower("ptx", {key: Entry(config)}, "compute_90") == one
    assert model.files("machine code") == model.files("ptx")


def test_entries_of_another_target_are_not_looked_at(model: Lowered) -> None:
    path = model.place / "other.tuning.json"
    lock.write(Lock({"sm_80": {key: Entry({}) for key in model.sites()}}), path)
    assert lower(model.place / "graph.json", SM_90, model.place / "other", tuning=path) == (
        model.plain
    )


def other(model: Lowered, kind: str) -> tuple[str, Config]:
    """A site of a kind, and a configuration that it may have and has not."""
    key, site = next(
        (key, site) for key, site in model.sites().items() if key.startswith(kind + " ")
    )
    if kind in ("mm", "convolution"):
        changes = {"block_m": 16, "block_n": 16, "block_k": 16, "num_stages": 3, "num_warps": 2}
    else:
        changes = {"num_warps": 1 if site["config"]["num_warps"] > 1 else 2}
    config = site["config"] | changes
    assert config != site["config"]
    return key, config


@pytest.mark.parametrize("kind", ["mm", "convolution", "pointwise", "persistent_reduction"])
def test_an_entry_changes_its_kernel_alone(model: Lowered, kind: str) -> None:
    key, config = other(model, kind)
    program = model.lower(kind, {key: Entry(config)})
    changed = model.changed(kind)
    stems = {Path(path).stem for path in changed}
    assert len(stems) == 2, "one kernel went and one came"
    (name,) = stems & {kernel.name for kernel in program.kernels}
    assert program.kernel(name).num_warps == config["num_warps"]
    assert {Path(path).parent.name for path in changed} == {
        f"{kernel.shard:02d}"
        for one in (program, model.plain)
        for kernel in one.kernels
        if kernel.name in stems
    }
    site = model.sites(kind)[key]
    assert site["from"] == "lock" and site["config"] == config
    model.check(kind, program)


def test_a_product_in_parts(model: Lowered) -> None:
    """A site may need another kernel: here, the one that adds up the parts."""
    key = next(key for key in model.sites() if key.startswith("convolution "))
    split = {"block_m": 16, "block_n": 16, "block_k": 16, "num_stages": 3, "num_warps": 2}
    program = model.lower("split", {key: Entry(split | {"split_k": 2})})
    model.check("split", program)


def test_entries_of_no_site_are_told_and_no_fault(
    model: Lowered, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = "mm float16[7,7]{7,1} float16[7,7]{7,1}"
    assert model.lower("gone", {gone: Entry({"block_m": 64})}) == model.plain
    said = capsys.readouterr().err
    assert "gone.tuning.json: the model has no such site for sm_90" in said
    assert gone in said and "--prune" in said
    report = json.loads((model.place / "gone" / "sites.json").read_text())
    assert report["unused"] == [gone]


def test_entries_that_cannot_be_used_are_told_together(model: Lowered) -> None:
    wrong = {
        "mm": ({"block_m": 65}, "it is none of the tiles in wrapgen/lowering/templates/cost.py"),
        "convolution": ({"block_k": 64, "block_m": 64, "block_n": 64}, "block_k is beyond the 8 "),
        "pointwise": ({"num_warps": 3}, "num_warps is no power of two"),
        "persistent_reduction": ({"BLOCK": 9}, "expected XBLOCK, num_stages, num_warps, got BLOCK"),
    }
    entries = {}
    for kind, (changes, _) in wrong.items():
        key = next(key for key in model.sites() if key.startswith(kind + " "))
        fixed = {"num_stages": 4, "num_warps": 4} if kind == "convolution" else {}
        entries[key] = Entry(model.sites()[key]["config"] | fixed | changes)
    with pytest.raises(LockError) as caught:
        model.lower("refused", entries)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(wrong)
    for key, (_, said) in zip(entries, wrong.values(), strict=True):
        (line,) = [line for line in lines if key in line]
        assert line.startswith(f"{model.place}/refused.tuning.json: targets.sm_90[")
        assert said in line and "without a lock it is" in line and "remove the entry" in line
    assert not (model.place / "refused").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"split_k": 5}, "it is none of the tiles"),
        ({"split_k": 16}, "16 parts leave less than two steps to one"),
        ({"block_m": 7}, "it is none of the tiles"),
    ],
)
def test_tiles_of_products(changes: dict[str, int], said: str) -> None:
    tile = dataclasses.replace(cost.Tile(64, 64, 64, 4, 4), **changes)
    found = cost.refusal(cost.Product(m=512, n=512, k=512, itemsize=2), tile, SM_90.device)
    assert said in found and bool(said) == bool(found)


def test_tiles_that_exceed_the_device() -> None:
    small = dataclasses.replace(SM_90.device, shared_memory_per_block_optin=48 << 10)
    product = cost.Product(m=512, n=512, k=512, itemsize=2)
    said = cost.refusal(product, cost.Tile(128, 128, 64, 3, 8), small)
    assert re.match(r"it needs up to \d+ bytes of shared memory, of which there are 49152", said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"XBLOCK": 4096}, ""),
        ({"XBLOCK": 8192, "num_warps": 32}, "XBLOCK is no power of two from 1 to 4096"),
        ({"XBLOCK": 384}, "XBLOCK is no power of two"),
        ({"num_warps": 64}, "num_warps is no power of two, or more than NVIDIA H100 runs"),
        ({"num_warps": 0}, "num_warps is no power of two"),
        ({"num_stages": 9}, "num_stages is not the 1"),
        ({"XBLOCK": 64}, "64 elements of a block are not 1 to 64 a thread"),
        ({"YBLOCK": 64}, "expected XBLOCK, num_stages, num_warps, got XBLOCK, YBLOCK"),
    ],
)
def test_configurations_of_generated_kernels(changes: dict[str, int], said: str) -> None:
    meta = {"heuristic": "pointwise", "size_hints": {"x": 1 << 22}}
    offered = [triton.Config({"XBLOCK": 1024}, num_warps=4, num_stages=1)]
    config = {"XBLOCK": 512, "num_warps": 4, "num_stages": 1} | changes
    found = choices.config_refusal(meta, offered, config, SM_90.device)
    assert said in found and bool(said) == bool(found)
    hinted = {**meta, "autotune_hints": {"ONE_ELEMENT_PER_THREAD"}}
    if changes:
        assert choices.config_refusal(hinted, offered, config, SM_90.device)


def test_ranked_configurations_may_all_be_used() -> None:
    meta = {"heuristic": "pointwise", "size_hints": {"x": 1 << 10, "y": 1 << 14}}
    offered = [triton.Config({"XBLOCK": 32, "YBLOCK": 32}, num_warps=4, num_stages=1)]
    ranked = choices.rank_configs(meta, offered, SM_90.device)
    configs = [choices.as_config(config) for config in ranked]
    assert configs[0] == choices.as_config(choices.select_config(meta, offered, SM_90.device))
    assert len(configs) == len({str(config) for config in configs}) > 100
    for config in configs:
        assert not choices.config_refusal(meta, offered, config, SM_90.device)


def test_eight_warps_with_a_large_kernel_are_refused(tmp_path: Path) -> None:
    """pytorch#173068: results were silently wrong."""
    module = nn.Conv2d(64, 128, 3, padding=1, bias=False).eval().half()
    one = Lowered(module, (torch.zeros(8, 64, 16, 16).half(),), tmp_path)
    (key,) = [key for key in one.sites() if key.startswith("convolution ")]
    wide = {"block_m": 128, "block_n": 128, "block_k": 64, "num_stages": 3, "num_warps": 8}
    with pytest.raises(LockError, match="8 warps or more with a kernel larger than 1x1"):
        one.lower("wide", {key: Entry(wide | {"split_k": 1})})


class Products(nn.Module):
    """Inductor's own template, attention, and a dynamic number of rows."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = torch.bmm(a, b)[None]
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)


def test_other_templates(tmp_path: Path) -> None:
    torch.manual_seed(0)
    args = (torch.randn(4, 32, 64).half(), torch.randn(4, 64, 32).half())
    one = Lowered(Products(), args, tmp_path)
    keys = {key.partition(" ")[0]: key for key in one.sites()}
    assert {"bmm", "attention"} <= keys.keys()
    entries = {
        keys["bmm"]: Entry(
            {"block_m": 32, "block_n": 32, "block_k": 16, "num_stages": 1, "num_warps": 2}
        ),
        keys["attention"]: Entry(
            one.sites()[keys["attention"]]["config"] | {"block_m": 16, "num_stages": 1}
        ),
    }
    try:
        program = one.lower("tuned", entries)
    except LockError as error:
        pytest.fail(f"{error}")
    one.check("tuned", program)
    assert len({Path(path).stem for path in one.changed("tuned")}) == 4
    wrong = {key: Entry({"block_m": 7}) for key in (keys["bmm"], keys["attention"])}
    with pytest.raises(LockError) as caught:
        one.lower("wrong", wrong)
    assert len(str(caught.value).splitlines()) == 2, "all faults are told"


def test_sizes_known_at_run_time_alone(tmp_path: Path) -> None:
    """The key says what was assumed, and that it was."""
    program = torch.export.export(
        nn.Linear(32, 16).eval().half(),
        (torch.zeros(4, 32).half(),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        strict=False,
    )
    support.write_graph(program, tmp_path / "graph.json")
    lower(tmp_path / "graph.json", SM_90, tmp_path / "lowered")
    sites = json.loads((tmp_path / "lowered" / "sites.json").read_text())["sites"]
    (key,) = [site["site"] for site in sites if site["site"].startswith("mm")]
    assert key == "mm float16[?64,32]{32,1} float16[32,16]{1,32}"
