"""What every bridge node in Python needs: calls that are tried again, and a place in the registry."""

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

CALL_SECONDS = 10.0  # The deadline of one attempt.
PATIENCE_SECONDS = 60.0  # How long one call is tried again: a restart or a failover fits in.
LONGEST_BACKOFF_SECONDS = 2.0
TTL_SECONDS = 30  # How long a node counts as alive after a heartbeat.

T = TypeVar("T")


class Refused(Exception):
    """bridgebook's answer was an error, and trying again did not or would not help."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(f"{code_pb2.Code.Name(status.code)}: {status.message}")
        self.status = status


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    """The google.rpc.Status of a failed call, with its details if the server sent any."""
    plain = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    return rpc_status.from_call(error) or plain


def retry_after(status: status_pb2.Status) -> float | None:
    """How many seconds to wait at least before the same call again; None if that is no use."""
    for detail in status.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToTimedelta().total_seconds())
    # Without RetryInfo it did not come from bridgebook but from the way there. A deadline
    # leaves open whether the write was made; as every write has an id it is sent again.
    if status.code in (code_pb2.UNAVAILABLE, code_pb2.DEADLINE_EXCEEDED):
        return 0.0
    return None


class Bearer(grpc.UnaryUnaryClientInterceptor):
    """Shows a token with every call, over TLS or not."""

    def __init__(self, credential: str) -> None:
        self._header = ("authorization", f"Bearer {credential}")

    def intercept_unary_unary(self, continuation, details, request):  # noqa: ANN001, ANN201
        """Adds the header to one call."""
        metadata = [*(details.metadata or ()), self._header]
        return continuation(details._replace(metadata=metadata), request)


def connect(address: str) -> grpc.Channel:
    """A channel to bridgebook. BRIDGEBOOK_TOKEN is the credential to show, if it asks for one;
    BRIDGEBOOK_TLS_CA names the roots to trust, if it speaks TLS (empty: those of gRPC)."""
    # A channel waits longer and longer before it connects again, 2 minutes in the end.
    options = [("grpc.max_reconnect_backoff_ms", 1000)]
    roots = os.environ.get("BRIDGEBOOK_TLS_CA")
    if roots is None:
        channel = grpc.insecure_channel(address, options=options)
    else:
        trusted = Path(roots).read_bytes() if roots else None
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(trusted), options)
    return channel


def showing_token(channel: grpc.Channel) -> grpc.Channel:
    """The same channel, but with the token of BRIDGEBOOK_TOKEN, if there is one."""
    token = os.environ.get("BRIDGEBOOK_TOKEN")
    return grpc.intercept_channel(channel, Bearer(token)) if token else channel


class Caller:
    """Makes calls, each until it is answered. Each has to be one that may be repeated."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Ends all retries: what fails from now on, fails at once."""
        self._stopped.set()

    def call(self, attempt: Callable[[], T]) -> T:
        """Makes a call until it is answered, with a backoff, for PATIENCE_SECONDS at most."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        backoff = 0.1
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                refused = Refused(status_of(error))
            except Refused as error:  # One item of a batch.
                refused = error
            least = retry_after(refused.status)
            if least is None or time.monotonic() + least > give_up:
                raise refused
            # The random part keeps many clients from coming back all at once.
            if self._stopped.wait(least + random.uniform(0, backoff)):
                raise refused
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)


class Presence:
    """Registers a node, keeps it alive from a thread of its own, and deregisters it at the end.

    with Presence(caller, channel, "demo", "orchestrator-1", "orchestrator", "1.0.0"):
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

    def __enter__(self) -> Presence:
        self._register()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._caller.stop()
        # A heartbeat that is under way comes to its end first: it might register again.
        self._ended.set()
        self._thread.join()
        request = pb.DeregisterNodeRequest(
            namespace=self._node.namespace, node_id=self._node.node_id, allow_missing=True
        )
        try:
            self._caller.call(lambda: self._stub.DeregisterNode(request, timeout=CALL_SECONDS))
        except Refused as refused:  # The registry will notice that nobody sends heartbeats.
            print(f"{self._node.node_id} could not deregister: {refused}", file=sys.stderr)

    def _register(self) -> None:
        answer = self._caller.call(lambda: self._stub.RegisterNode(self._node, timeout=CALL_SECONDS))
        self._due = answer.next_heartbeat_in.ToTimedelta().total_seconds()

    def _heartbeat(self) -> None:
        request = pb.HeartbeatRequest(
            namespace=self._node.namespace, heartbeat=pb.NodeHeartbeat(node_id=self._node.node_id)
        )
        try:
            answer = self._caller.call(lambda: self._stub.Heartbeat(request, timeout=CALL_SECONDS))
        except Refused as refused:
            if refused.status.code != code_pb2.NOT_FOUND:
                raise
            self._register()  # Somebody removed the row; the node is still here.
        else:
            self._due = answer.next_heartbeat_in.ToTimedelta().total_seconds()

    def _keep_alive(self) -> None:
        while not self._ended.wait(self._due):
            try:
                self._heartbeat()
            except Refused as refused:
                # The work goes on, and its own calls say whether it can.
                if not self._ended.is_set():
                    print(f"{self._node.node_id} could not send a heartbeat: {refused}", file=sys.stderr)
