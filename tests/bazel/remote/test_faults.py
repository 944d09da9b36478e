"""Bazel with a farm that loses blobs or has wrong ones, and what a farm is told of workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.bazel.integration import nested
from tests.bazel.remote import remote
from tools.farm import reapi
from tools.farm.reapi import protocol
from tools.farm.small import SmallFarm

PACKAGE = remote.SMALL_PACKAGE
ARCHIVE = f"{nested.SMALL}/small.tar"
MODEL = f"{nested.SMALL}/small.py"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFarm]:
    with SmallFarm(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
def client(farm: SmallFarm) -> Iterator[reapi.Client]:
    client = reapi.Client(farm.address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nested.Workspace]:
    workspace = nested.Workspace(tmp_path_factory.mktemp("faults") / "workspace", environ={})
    yield workspace
    workspace.close()


@pytest.fixture(scope="module")
def built(farm: SmallFarm, workspace: nested.Workspace) -> nested.Build:
    return workspace.build(PACKAGE, flags=remote.flags(farm.address))


def action_of(spawn: Mapping[str, Any]) -> protocol.Digest:
    digest = spawn["digest"]
    return protocol.Digest(hash=digest["hash"], size_bytes=int(digest["sizeBytes"]))


def same_as_here(workspace: nested.Workspace) -> bool:
    """Whether the package is that of the build which runs these tests."""
    there = workspace.directory / "bazel-bin" / ARCHIVE
    return there.read_bytes() == Path(ARCHIVE).read_bytes()


def test_a_farm_is_told_which_actions_one_worker_can_serve(
    built: nested.Build, client: reapi.Client
) -> None:
    """A remote worker may keep processes: the key says for which actions one will do."""
    keys: dict[str, set[str]] = {"AotiCompile": set(), "AotiLower": set()}
    for spawn in built.spawns:
        if spawn["mnemonic"] not in keys:
            continue
        action = client.message(action_of(spawn), protocol.Action)
        command = client.message(action.command_digest, protocol.Command)
        properties = {entry.name: entry.value for entry in action.platform.properties}
        assert properties == {entry.name: entry.value for entry in command.platform.properties}
        keys[spawn["mnemonic"]].add(properties["persistentWorkerKey"])
    # Shards of all targets are served by the same processes.
    assert [len(found) for found in keys.values()] == [1, 1]
    assert keys["AotiCompile"] != keys["AotiLower"]


def test_the_tool_is_marked_and_what_it_works_on_is_not(
    built: nested.Build, client: reapi.Client
) -> None:
    (spawn, *_) = [each for each in built.spawns if each["mnemonic"] == "AotiCompile"]
    action = client.message(action_of(spawn), protocol.Action)
    marked, unmarked = [], []
    for path, node in client.files(action.input_root_digest):
        names = [entry.name for entry in node.node_properties.properties]
        (marked if names == ["bazel_tool_input"] else unmarked).append(path)
    assert any(path.endswith("/wrapgen/kernels/shard.py") for path in marked)
    assert any("aoti_pip_triton" in path for path in marked)
    assert any("/shards/" in path or path.endswith(".params") for path in unmarked)
    assert not any("/shards/" in path or path.endswith(".params") for path in marked)


def test_lost_blobs_are_made_again(
    built: nested.Build, farm: SmallFarm, workspace: nested.Workspace
) -> None:
    """An edit whose action needs what only the farm had, and has no longer."""
    minimal = remote.flags(farm.address, "--remote_download_minimal")
    workspace.clean()
    workspace.build(PACKAGE, flags=minimal)
    farm.lose_blobs()
    workspace.edit(MODEL, "SEED = 0", "SEED = 1")
    patience = "--experimental_remote_cache_eviction_retries"
    refused = workspace.refuse(PACKAGE, flags=[*minimal, f"{patience}=0"])
    assert "lost" in refused.said.lower() or "missing digest" in refused.said.lower()
    build = workspace.build(PACKAGE, flags=minimal)
    assert remote.runners(build) <= {"remote", "remote cache hit"}
    workspace.edit(MODEL, "SEED = 1", "SEED = 0")
    farm.lose_blobs()
    workspace.build(PACKAGE, flags=remote.flags(farm.address))
    assert same_as_here(workspace)


def cubins(tree: protocol.Tree) -> Iterator[tuple[protocol.Directory, protocol.FileNode]]:
    """Yields each cubin of a shard, and the directory it is in: that of its target."""
    for child in tree.children:
        for node in child.files:
            if node.name.endswith(".cubin"):
                yield child, node


def truncate(image: bytes) -> bytes:
    return image[: len(image) // 2]


def flip_a_bit(image: bytes) -> bytes:
    middle = len(image) // 2
    return image[:middle] + bytes([image[middle] ^ 1]) + image[middle + 1 :]


def poison(
    client: reapi.Client, action: protocol.Digest, spoil: Callable[[bytes], bytes]
) -> tuple[protocol.Digest, protocol.Digest, str] | None:
    """Spoils one cubin of a shard where the action cache has it.

    Returns the digests of the sound and of the spoiled cubin, and its name; ``None`` if
    the shard has no cubin.
    """
    result = client.result(action)
    (output,) = result.output_directories
    tree = client.message(output.tree_digest, protocol.Tree)
    directory, node = next(cubins(tree), (None, None))
    if directory is None or node is None:
        return None
    sound, before = protocol.Digest(), reapi.digest_of(directory.SerializeToString())
    sound.CopyFrom(node.digest)
    node.digest.CopyFrom(client.write(spoil(client.read(sound))))
    after = client.write(directory.SerializeToString())
    (parent,) = [entry for entry in tree.root.directories if entry.digest == before]
    parent.digest.CopyFrom(after)
    output.tree_digest.CopyFrom(client.write(tree.SerializeToString()))
    if output.HasField("root_directory_digest"):
        output.root_directory_digest.CopyFrom(client.write(tree.root.SerializeToString()))
    client.replace_result(action, result)
    return sound, node.digest, node.name


def shards(build: nested.Build) -> list[protocol.Digest]:
    """Returns the actions that compile kernels."""
    return [action_of(spawn) for spawn in build.spawns if spawn["mnemonic"] == "AotiCompile"]


@pytest.mark.parametrize("spoil", [truncate, flip_a_bit])
def test_a_spoiled_kernel_in_the_cache_does_not_reach_a_library(
    spoil: Callable[[bytes], bytes],
    built: nested.Build,
    farm: SmallFarm,
    client: reapi.Client,
    workspace: nested.Workspace,
) -> None:
    flags = remote.flags(farm.address)
    workspace.clean()
    actions = shards(workspace.build(PACKAGE, flags=flags))
    results = {action.hash: client.result(action) for action in actions}
    action, expected, found, name = next(
        (action, *poisoned) for action in actions if (poisoned := poison(client, action, spoil))
    )

    workspace.clean()
    refused = workspace.refuse(PACKAGE, flags=flags)
    kernel = name.removesuffix(".cubin")
    assert "AotiWrap" in refused.said
    assert f"/{name}: the image of kernel {kernel} for sm_" in refused.said
    assert f"expected {expected.size_bytes} bytes with SHA-256 {expected.hash}" in refused.said
    assert f"found {found.size_bytes} bytes with SHA-256 {found.hash}" in refused.said
    assert "--noremote_accept_cached" in refused.said
    client.replace_result(action, results[action.hash])


def test_a_build_that_accepts_nothing_puts_a_spoiled_cache_right(
    built: nested.Build, farm: SmallFarm, client: reapi.Client, workspace: nested.Workspace
) -> None:
    """What the message of the test above says to do."""
    flags = remote.flags(farm.address)
    workspace.clean()
    actions = shards(workspace.build(PACKAGE, flags=flags))
    assert any(poison(client, action, truncate) for action in actions)
    workspace.clean()
    workspace.build(PACKAGE, flags=[*flags, "--noremote_accept_cached", "--disk_cache="])
    workspace.clean()
    again = workspace.build(PACKAGE, flags=flags)
    assert remote.runners(again) == {"remote cache hit"}
    assert same_as_here(workspace)
