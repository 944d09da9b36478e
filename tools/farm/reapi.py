"""A client of the Remote Execution API, version 2: looks into a server, and changes what it has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TypeVar

import grpc
from buildgrid._protos.build.bazel.remote.execution.v2 import (
    remote_execution_pb2 as protocol,
)
from buildgrid._protos.build.bazel.remote.execution.v2 import (
    remote_execution_pb2_grpc as services,
)
from google.protobuf.message import Message

_M = TypeVar("_M", bound=Message)


class Client:
    """A connection to a server."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._blobs = services.ContentAddressableStorageStub(self._channel)
        self._results = services.ActionCacheStub(self._channel)

    def close(self) -> None:
        """Ends it."""
        self._channel.close()

    def read(self, digest: protocol.Digest) -> bytes:
        """Returns a blob; raises ``KeyError`` if the server has it not."""
        request = protocol.BatchReadBlobsRequest(digests=[digest])
        (response,) = self._blobs.BatchReadBlobs(request).responses
        if response.status.code:
            raise KeyError(f"{digest.hash}/{digest.size_bytes}: {response.status.message}")
        return bytes(response.data)

    def message(self, digest: protocol.Digest, kind: type[_M]) -> _M:
        """Returns a blob that is a message of this kind."""
        message = kind()
        message.ParseFromString(self.read(digest))
        return message

    def write(self, data: bytes) -> protocol.Digest:
        """Stores a blob; returns its digest."""
        digest = digest_of(data)
        entry = protocol.BatchUpdateBlobsRequest.Request(digest=digest, data=data)
        request = protocol.BatchUpdateBlobsRequest(requests=[entry])
        (response,) = self._blobs.BatchUpdateBlobs(request).responses
        assert response.status.code == 0, response.status
        return digest

    def result(self, action: protocol.Digest) -> protocol.ActionResult:
        """Returns what the action cache holds for an action."""
        return self._results.GetActionResult(protocol.GetActionResultRequest(action_digest=action))

    def printed(self, result: protocol.ActionResult) -> tuple[bytes, bytes]:
        """Returns what an action wrote to standard output and standard error."""
        out, err = result.stdout_raw, result.stderr_raw
        if not out and result.stdout_digest.size_bytes:
            out = self.read(result.stdout_digest)
        if not err and result.stderr_digest.size_bytes:
            err = self.read(result.stderr_digest)
        return out, err

    def replace_result(self, action: protocol.Digest, result: protocol.ActionResult) -> None:
        """Makes the action cache hold another result for an action."""
        request = protocol.UpdateActionResultRequest(action_digest=action, action_result=result)
        self._results.UpdateActionResult(request)

    def files(self, root: protocol.Digest) -> Iterator[tuple[str, protocol.FileNode]]:
        """Yields (path, node) of each file in a directory and below it."""
        directory = self.message(root, protocol.Directory)
        for node in directory.files:
            yield node.name, node
        for below in directory.directories:
            for path, node in self.files(below.digest):
                yield f"{below.name}/{path}", node


def digest_of(data: bytes) -> protocol.Digest:
    """Returns the digest under which a server keeps ``data``."""
    return protocol.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
