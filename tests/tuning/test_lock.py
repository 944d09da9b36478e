"""The lock file: what is read, what is refused and how, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrapgen.tuning import lock
from wrapgen.tuning.lock import Entry, Lock, LockError, Measured

SITE = "mm float16[49,2048]{2048,1} float16[2048,512]{1,2048}"
MEASURED = Measured(device="NVIDIA H100", driver=13000, default_ns=7120, best_ns=6208)
CONFIG = {"block_m": 64, "num_warps": 4}


def file(**changes: Any) -> dict[str, Any]:
    entry = {"config": CONFIG, "measured": vars(MEASURED)}
    return {"schema_version": 1, "targets": {"sm_90": {SITE: entry}}} | changes


def refused(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    with pytest.raises(LockError) as caught:
        lock.loads(text, where="resnet.tuning.json")
    said = str(caught.value)
    assert all(line.startswith("resnet.tuning.json: ") for line in said.splitlines())
    return said


numbers = st.integers(0, 2**31 - 1)
entries = st.builds(
    Entry,
    config=st.dictionaries(st.text(), numbers),
    measured=st.none()
    | st.builds(Measured, device=st.text(), driver=numbers, default_ns=numbers, best_ns=numbers),
)
locks = st.builds(
    Lock,
    st.dictionaries(
        st.sampled_from(["sm_80", "sm_90", "gfx942"]),
        st.dictionaries(st.text(), entries, min_size=1),
    ),
)


@settings(deadline=None, max_examples=50)
@given(locks)
def test_what_is_written_is_read(value: Lock) -> None:
    text = lock.dumps(value)
    assert lock.loads(text, where="lock") == value
    assert lock.dumps(lock.loads(text, where="lock")) == text


@settings(deadline=None, max_examples=50)
@given(locks)
def test_the_order_of_entries_does_not_matter(value: Lock) -> None:
    backwards = Lock(
        {
            target: dict(reversed(list(value.targets[target].items())))
            for target in reversed(list(value.targets))
        }
    )
    assert lock.dumps(backwards) == lock.dumps(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None, max_examples=50)
@given(st.text() | json_values.map(json.dumps))
def test_whatever_comes_is_a_lock_or_refused(text: str) -> None:
    try:
        found = lock.loads(text, where="lock")
    except LockError as error:
        assert str(error).startswith("lock: ")
    else:
        assert found == Lock({})


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(["config", "measured"]), json_values)
def test_a_part_that_is_something_else(part: str, value: Any) -> None:
    text = json.dumps(file(targets={"sm_90": {SITE: {"config": CONFIG} | {part: value}}}))
    try:
        lock.loads(text, where="lock")
    except LockError as error:
        assert f'targets.sm_90["{SITE}"].{part}' in str(error)
        assert "tune" in str(error)
    else:
        assert part == "config" and isinstance(value, dict)
        assert all(type(number) is int for number in value.values())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object, got []"),
        ({}, "schema_version is null, this wrapgen reads 1: tune again with this version"),
        (file(schema_version=2), "schema_version is 2, this wrapgen reads 1"),
        (file(schema_version=True), "schema_version is true"),
        ({"schema_version": 1}, "top level: expected a field 'targets', which is missing"),
        (file(device="H100"), "top level: expected the fields schema_version, targets, got 'dev"),
        (file(targets=[]), "targets: expected an object, got []"),
        (
            file(targets={"sm_91": {}}),
            "targets.sm_91: expected one of sm_80, sm_86, sm_89, sm_90, sm_100, sm_120, gfx90a, "
            "gfx942, got sm_91",
        ),
        (
            file(targets={"compute_90": {}}),
            "got compute_90, which shares sm_90's entries",
        ),
        (file(targets={"sm_90": {SITE: 4}}), f'targets.sm_90["{SITE}"]: expected an object, got 4'),
        (
            file(targets={"sm_90": {SITE: {"config": {"block_m": "64"}}}}),
            f'targets.sm_90["{SITE}"].config.block_m: expected a whole number below 2**31, '
            'got "64"; run `bazel run :NAME.tune`',
        ),
        (
            file(targets={"sm_90": {SITE: {"config": {"block_m": True}}}}),
            "config.block_m: expected a whole number below 2**31, got true",
        ),
        (
            file(targets={"sm_90": {SITE: {"config": CONFIG, "measured": {"device": "H100"}}}}),
            "measured: expected a field 'best_ns', which is missing",
        ),
        ('{"schema_version": 1, "targets": {}, "targets": {}}', "key 'targets' occurs twice"),
    ],
)
def test_faults(value: Any, said: str) -> None:
    assert said in refused(value)


def test_every_fault_is_told() -> None:
    wrong = {"config": {"block_m": -1}, "measured": {**vars(MEASURED), "driver": 13.0}}
    said = refused(file(targets={"sm_90": {SITE: wrong}, "sm_1": {}}))
    assert len(said.splitlines()) == 3


def test_no_text(tmp_path: Path) -> None:
    path = tmp_path / "lock.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LockError, match=r"lock\.json: not UTF-8 text"):
        lock.load(path)


def test_the_text() -> None:
    """A golden file in small: what reviewers see."""
    text = lock.dumps(Lock({"sm_90": {SITE: Entry(CONFIG, MEASURED)}}))
    assert (
        text
        == f"""{{
  "schema_version": 1,
  "targets": {{
    "sm_90": {{
      "{SITE}": {{
        "config": {{
          "block_m": 64,
          "num_warps": 4
        }},
        "measured": {{
          "best_ns": 6208,
          "default_ns": 7120,
          "device": "NVIDIA H100",
          "driver": 13000
        }}
      }}
    }}
  }}
}}
"""
    )


def test_entries_of_other_targets_stay() -> None:
    first = Lock({"sm_80": {SITE: Entry(CONFIG)}})
    both = first.with_entries("sm_90", {"bmm": Entry(CONFIG)})
    assert both.entries("sm_80") == first.entries("sm_80")
    assert both.with_entries("sm_90", {}) == first
    assert both.entries("gfx942") == {}


def test_a_file_is_replaced_whole_and_a_link_stays_one(tmp_path: Path) -> None:
    source = tmp_path / "tree" / "lock.json"
    lock.write(Lock({}), source)
    source.chmod(0o664)
    (tmp_path / "link.json").symlink_to(source)
    before = source.stat().st_ino
    lock.write(Lock({"sm_90": {SITE: Entry(CONFIG)}}), tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert source.stat().st_ino != before and source.stat().st_mode & 0o777 == 0o664
    assert lock.load(source).entries("sm_90") == {SITE: Entry(CONFIG)}
    assert [path.name for path in source.parent.iterdir()] == ["lock.json"]
