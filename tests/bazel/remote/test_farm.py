"""The farms by themselves: what an action sees, what stays behind, and the client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tools.farm import processes, reapi, sandbox
from tools.farm.reapi import protocol, services
from tools.farm.small import SmallFarm


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallFarm]:
    with SmallFarm(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
def client(farm: SmallFarm) -> Iterator[reapi.Client]:
    client = reapi.Client(farm.address)
    yield client
    client.close()


def execute(farm: SmallFarm, client: reapi.Client, script: str) -> protocol.ActionResult:
    """Runs a shell's script as an action."""
    command = protocol.Command(arguments=["/bin/sh", "-c", script], output_paths=["out"])
    action = protocol.Action(
        command_digest=client.write(command.SerializeToString()),
        input_root_digest=client.write(protocol.Directory().SerializeToString()),
    )
    digest = client.write(action.SerializeToString())
    with grpc.insecure_channel(farm.address) as channel:
        stub = services.ExecutionStub(channel)
        *_, last = stub.Execute(protocol.ExecuteRequest(action_digest=digest))
    response = protocol.ExecuteResponse()
    last.response.Unpack(response)
    assert response.status.code == 0, response.status
    return response.result


def mounted() -> str:
    return Path("/proc/self/mounts").read_text()


def test_an_action_has_the_image_and_its_inputs_alone(
    farm: SmallFarm, client: reapi.Client
) -> None:
    result = execute(farm, client, "ls / > out")
    (out,) = result.output_files
    expected = {"bin", "dev", "lib", "lib64", "out", "proc", "tmp", "usr"}
    assert set(client.read(out.digest).decode().split()) == expected


def test_an_action_has_no_network(farm: SmallFarm, client: reapi.Client) -> None:
    result = execute(farm, client, "cut -d: -f1 /proc/net/dev | tail -n +3")
    assert client.printed(result)[0].split() == [b"lo"]


def test_what_failed_is_not_remembered(farm: SmallFarm, client: reapi.Client) -> None:
    assert execute(farm, client, "exit 3").exit_code == 3
    action = protocol.Action(
        command_digest=reapi.digest_of(
            protocol.Command(
                arguments=["/bin/sh", "-c", "exit 3"], output_paths=["out"]
            ).SerializeToString()
        ),
        input_root_digest=reapi.digest_of(b""),
    )
    with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
        client.result(reapi.digest_of(action.SerializeToString()))


def test_lost_blobs_are_gone_and_results_are_not(tmp_path: Path) -> None:
    with SmallFarm(tmp_path) as farm:
        client = reapi.Client(farm.address)
        digest = client.write(b"blob")
        assert client.read(digest) == b"blob"
        farm.lose_blobs()
        with pytest.raises(KeyError):
            client.read(digest)
        client.close()


def test_nothing_stays_behind(tmp_path: Path) -> None:
    before = mounted()
    with SmallFarm(tmp_path) as farm:
        client = reapi.Client(farm.address)
        execute(farm, client, "true")
        client.close()
    lines = (tmp_path / "pids").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["casd"]
    assert not any(processes.Process(*map(int, line.split()[1:])).alive() for line in lines)
    assert mounted() == before


def test_nothing_stays_behind_a_test_that_is_killed(tmp_path: Path) -> None:
    before = mounted()
    program = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from tools.farm.small import SmallFarm\n"
        "SmallFarm(Path(sys.argv[1])).__enter__()\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=environ
    ) as test:
        assert test.stdout is not None
        assert test.stdout.readline() == b"ready\n"
        name, pid, began = (tmp_path / "pids").read_text().split()
        casd = processes.Process(int(pid), int(began))
        assert casd.alive(), name
        test.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while casd.alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not casd.alive()
    assert mounted() == before


def test_a_process_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    namespace = processes.Namespace(tmp_path)
    try:
        with pytest.raises(processes.FarmError, match="sulky has ended:\nno\\."):
            namespace.start(
                "sulky", ["sh", "-c", "echo no.; exit 1"], environ={"PATH": "/bin"}, port=1
            )
    finally:
        namespace.close()


def test_a_number_that_was_given_out_again_is_another_process() -> None:
    ours = processes.Process.of(os.getpid())
    assert ours.alive()
    assert not processes.Process(ours.pid, ours.began - 1).alive()


def test_the_image_has_no_configuration_and_no_home() -> None:
    inside = {str(path) for _, path in sandbox.mounts()}
    assert {"/usr", "/bin", "/lib", "/lib64"} <= inside
    assert not inside & {"/", "/etc", "/home", "/root", "/tmp", "/var"}
