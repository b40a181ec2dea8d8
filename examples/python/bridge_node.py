"""Shared code of bridge nodes in Python: calls with retries, and registration with heartbeats."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import grpc
from bridgebook.v1 import registry_service_pb2 as pb
from bridgebook.v1.registry_service_pb2_grpc import RegistryServiceStub
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

CALL_SECONDS = 10.0  # Deadline of one attempt.
RETRY_SECONDS = 60.0  # Retry limit of a call: longer than a restart or a failover.
LONGEST_BACKOFF_SECONDS = 2.0
TTL_SECONDS = 30  # How long a node counts as alive after a heartbeat.

T = TypeVar("T")


class CallFailed(Exception):
    """A call failed, and retries did not help or would not help."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(f"{code_pb2.Code.Name(status.code)}: {status.message}")
        self.status = status


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    """Returns the google.rpc.Status of a failed call, with its details if there are any."""
    plain = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    return rpc_status.from_call(error) or plain


def retry_after(status: status_pb2.Status) -> float | None:
    """Returns the minimum delay before a retry in seconds, or None if a retry cannot help."""
    retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToTimedelta().total_seconds())
        if detail.Unpack(info) and (info.domain, info.reason) == ("bridgebook", "STATEMENT_TIMEOUT"):
            return None  # Nothing was written, and the same call would take as long again.
    # Otherwise the error comes from the network or a proxy, or a deadline passed, so that the
    # outcome is unknown. A retry is safe because every write has an id.
    if status.code in (code_pb2.UNAVAILABLE, code_pb2.DEADLINE_EXCEEDED):
        return 0.0
    return None


class Bearer(grpc.UnaryUnaryClientInterceptor):
    """Adds a token to every call, with and without TLS."""

    def __init__(self, credential: str) -> None:
        self._header = ("authorization", f"Bearer {credential}")

    def intercept_unary_unary(self, continuation, details, request):  # noqa: ANN001, ANN201
        """Adds the header to a call."""
        metadata = [*(details.metadata or ()), self._header]
        return continuation(details._replace(metadata=metadata), request)


def connect(address: str) -> grpc.Channel:
    """Returns a channel to bridgebook. Uses TLS if BRIDGEBOOK_TLS_CA is set: the file with the
    trusted root certificates, or empty for those of gRPC."""
    # Without this option, the reconnect backoff of a channel grows to 2 minutes.
    options = [("grpc.max_reconnect_backoff_ms", 1000)]
    roots = os.environ.get("BRIDGEBOOK_TLS_CA")
    if roots is None:
        channel = grpc.insecure_channel(address, options=options)
    else:
        trusted = Path(roots).read_bytes() if roots else None
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(trusted), options)
    return channel


def with_token(channel: grpc.Channel) -> grpc.Channel:
    """Returns a channel that adds the token in BRIDGEBOOK_TOKEN, if that is set."""
    token = os.environ.get("BRIDGEBOOK_TOKEN")
    return grpc.intercept_channel(channel, Bearer(token)) if token else channel


class Caller:
    """Makes calls with retries. Every call must be idempotent."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Stops all retries. A call that fails from now on raises at once."""
        self._stopped.set()

    def call(self, attempt: Callable[[], T]) -> T:
        """Retries a call with exponential backoff, for at most RETRY_SECONDS."""
        give_up = time.monotonic() + RETRY_SECONDS
        backoff = 0.1
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                failure = CallFailed(status_of(error))
            except CallFailed as error:  # An item of a batch failed.
                failure = error
            least = retry_after(failure.status)
            if least is None or time.monotonic() + least > give_up:
                raise failure
            # Jitter keeps many clients from retrying at the same time.
            if self._stopped.wait(least + random.uniform(0, backoff)):
                raise failure
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)


class Registration:
    """Registers a node, sends its heartbeats from a separate thread, and deregisters it at the end.

    with Registration(caller, channel, "demo", "orchestrator-1", "orchestrator", "1.0.0"):
        work()
    """

    def __init__(
        self, caller: Caller, channel: grpc.Channel, namespace: str, node_id: str, node_type: str, node_version: str
    ) -> None:
        self._caller = caller
        self._stub = RegistryServiceStub(channel)
        self._node = pb.RegisterNodeRequest(
            namespace=namespace,
            node_id=node_id,
            node_type=node_type,
            node_version=node_version,
            heartbeat_ttl=Duration(seconds=TTL_SECONDS),
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, daemon=True)
        self._due = 0.0

    def __enter__(self) -> Registration:
        self._register()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller.stop()
        # Waits for a heartbeat in progress, because it might register the node again.
        self._ended.set()
        self._thread.join()
        request = pb.DeregisterNodeRequest(
            namespace=self._node.namespace, node_id=self._node.node_id, allow_missing=True
        )
        try:
            self._caller.call(lambda: self._stub.DeregisterNode(request, timeout=CALL_SECONDS))
        except CallFailed as failure:  # The registry marks the node stale after its TTL.
            print(f"cannot deregister {self._node.node_id}: {failure}", file=sys.stderr)

    def _register(self) -> None:
        response = self._caller.call(lambda: self._stub.RegisterNode(self._node, timeout=CALL_SECONDS))
        self._due = response.next_heartbeat_in.ToTimedelta().total_seconds()

    def _heartbeat(self) -> None:
        request = pb.HeartbeatRequest(
            namespace=self._node.namespace, heartbeat=pb.NodeHeartbeat(node_id=self._node.node_id)
        )
        try:
            response = self._caller.call(lambda: self._stub.Heartbeat(request, timeout=CALL_SECONDS))
        except CallFailed as failure:
            if failure.status.code != code_pb2.NOT_FOUND:
                raise
            self._register()  # The node was removed from the registry, but it is still running.
        else:
            self._due = response.next_heartbeat_in.ToTimedelta().total_seconds()

    def _keep_alive(self) -> None:
        while not self._ended.wait(self._due):
            try:
                self._heartbeat()
            except CallFailed as failure:
                # The node keeps working. Its own calls fail if the service is unavailable.
                if not self._ended.is_set():
                    print(f"cannot send a heartbeat for {self._node.node_id}: {failure}", file=sys.stderr)
