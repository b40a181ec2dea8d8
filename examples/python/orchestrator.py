#!/usr/bin/env python3
"""Stamps every file under a directory and records the work in bridgebook.

A minimal bridge node. For each file it runs one workflow with three steps: read the file, hash
it with BLAKE3, stamp it. The order of the calls makes it safe to kill the program and to run
it again:

1. The file is read first, because the workflow's correlation_id is derived from the content.
   An unchanged file is the same workflow in every run, and a changed file is a new one.
2. GetWorkflow finds the workflow of an earlier run. If it has ended, nothing is left to do. If
   that run was interrupted, this run resumes the workflow.
3. Stamps and steps have ids derived from the workflow's id, so repeated calls are idempotent,
   whether they come from a retry or from a later run.
4. The file is an entity with its own state machine: DISCOVERED, STAMPED or FAILED. The ids of
   its moves are derived, too.
5. The move to COMPLETED comes last, so a COMPLETED workflow has all its steps and stamps.

workflow_client.py has the calls. While it runs, the program is registered as a node
(bridge_node.py).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

try:
    import grpc
    from blake3 import blake3
    from bridgebook.v1 import fsm_service_pb2 as fsm
    from bridgebook.v1 import workflow_service_pb2 as pb
    from google.protobuf.timestamp_pb2 import Timestamp
    from tqdm import tqdm

    from bridge_node import CallFailed, Caller, Registration, connect, with_token
    from workflow_client import FILE, WorkflowClient, derive
except ImportError as error:
    sys.exit(f"{error}. Run examples/python/setup.sh, then use examples/python/.venv/bin/python.")

VERSION = "1.0.0"  # The version of this node in the registry.

# The root of all derived ids. Every program has its own root, so that ids never collide.
ID_ROOT = "e1605639-2eaf-420e-a15e-9413b417fd00"

CHUNK_BYTES = 1 << 20  # Files are read in chunks, so that memory does not limit their size.
CONNECT_SECONDS = 5.0  # Timeout of the first connection. Later outages may last longer.


# --- Stamping --------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A regular file with its metadata at the time of the listing."""

    path: Path
    size: int
    mtime_ns: int

    @property
    def uri(self) -> str:
        """Returns the path as a file:// URI, which is ASCII for any bytes in the name."""
        return self.path.as_uri()


@dataclass
class Content:
    """The result of reading a file."""

    file_hash: str = ""
    size: int = 0
    read_seconds: float = 0.0
    hash_seconds: float = 0.0


class Outcome(Enum):
    """The outcome of a file."""

    STAMPED = "stamped"
    ALREADY_KNOWN = "already_known"
    FAILED = "failed"


def read(file: File) -> Content:
    """Reads and hashes a file. Raises OSError if the file cannot be read."""
    content, hasher = Content(), blake3()
    started = time.perf_counter()
    with open(file.path, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            was_read = time.perf_counter()
            hasher.update(chunk)
            was_hashed = time.perf_counter()
            content.size += len(chunk)
            content.read_seconds += was_read - started
            content.hash_seconds += was_hashed - was_read
            started = was_hashed
    content.read_seconds += time.perf_counter() - started
    content.file_hash = hasher.hexdigest()
    return content


def stamp_file(client: WorkflowClient, file: File) -> tuple[Outcome, int]:
    """Runs the workflow of one file. Returns the outcome and the number of bytes read."""
    started_at, started = Timestamp(), time.perf_counter()
    started_at.GetCurrentTime()
    try:
        content = read(file)
    except OSError as error:
        seconds = time.perf_counter() - started
        record_failure(client, file, started_at, seconds, error.strerror or repr(error))
        return Outcome.FAILED, 0
    return record_success(client, file, started_at, content), content.size


def record_success(client: WorkflowClient, file: File, started_at: Timestamp, content: Content) -> Outcome:
    """Records the workflow of a readable file."""
    correlation_id = derive(ID_ROOT, client.namespace, file.uri, content.file_hash)
    workflow = client.find(correlation_id)
    if workflow and has_ended(workflow):
        return Outcome.ALREADY_KNOWN
    workflow = workflow or client.start(correlation_id, started_at, {"uri": file.uri})

    # The stamp must be identical in every run over the same content, because its id is.
    stamping = time.perf_counter()
    stamp = pb.NewStamp(
        id=derive(workflow.id, "stamp"),
        workflow_id=workflow.id,
        file_hash=content.file_hash,
        stamp_data={"uri": file.uri, "size_bytes": content.size, "hash_algorithm": "blake3"},
    )
    client.record_stamp(stamp)
    stamp_seconds = time.perf_counter() - stamping

    client.record_steps(
        [
            step(workflow, 1, "read", pb.STEP_STATUS_COMPLETED, content.read_seconds),
            step(workflow, 2, "hash", pb.STEP_STATUS_COMPLETED, content.hash_seconds),
            step(workflow, 3, "stamp", pb.STEP_STATUS_COMPLETED, stamp_seconds),
        ]
    )
    client.move(file_moves(client, file, workflow, "stamp"))
    client.end(workflow, pb.WORKFLOW_STATE_COMPLETED)
    return Outcome.STAMPED


def record_failure(client: WorkflowClient, file: File, started_at: Timestamp, seconds: float, reason: str) -> None:
    """Records the workflow of an unreadable file.

    Size and modification time replace the unknown content. Once the file is readable it is a
    new workflow, and the failed one stays.
    """
    correlation_id = derive(ID_ROOT, client.namespace, file.uri, f"unreadable {file.size} {file.mtime_ns}")
    workflow = client.find(correlation_id)
    if workflow and has_ended(workflow):
        return
    workflow = workflow or client.start(correlation_id, started_at, {"uri": file.uri})
    client.record_steps(
        [
            step(workflow, 1, "read", pb.STEP_STATUS_FAILED, seconds, reason),
            step(workflow, 2, "hash", pb.STEP_STATUS_SKIPPED),
            step(workflow, 3, "stamp", pb.STEP_STATUS_SKIPPED),
        ]
    )
    client.move(file_moves(client, file, workflow, "fail"))
    client.end(workflow, pb.WORKFLOW_STATE_FAILED, f"cannot read the file: {reason}")


def file_moves(client: WorkflowClient, file: File, workflow: pb.Workflow, event: str) -> list[fsm.NewTransition]:
    """Returns the moves of a file: discovered once, then stamped or failed once per workflow."""
    entity_id = derive(ID_ROOT, client.namespace, FILE, file.uri)
    return [
        fsm.NewTransition(
            transition_id=derive(entity_id, "discover"),
            entity_type=FILE,
            entity_id=entity_id,
            transition_event="discover",
            to_state="DISCOVERED",
            transition_data={"uri": file.uri},
        ),
        fsm.NewTransition(
            transition_id=derive(workflow.id, "file"),
            entity_type=FILE,
            entity_id=entity_id,
            transition_event=event,  # The machine determines the state.
            transition_data={"workflow_id": workflow.id},
        ),
    ]


def has_ended(workflow: pb.Workflow) -> bool:
    """Returns whether a workflow is in a final state."""
    return bool(workflow.HasField("completed_at"))


def step(
    workflow: pb.Workflow,
    order: int,
    name: str,
    status: pb.StepStatus,
    seconds: float | None = None,
    error_message: str | None = None,
) -> pb.NewStep:
    """Returns a step with an id derived from the workflow and the name."""
    return pb.NewStep(
        id=derive(workflow.id, "step", name),
        workflow_id=workflow.id,
        step_name=name,
        step_order=order,
        status=status,
        execution_time_ms=None if seconds is None else round(seconds * 1000),
        error_message=error_message,
    )


# --- The command line ------------------------------------------------------------------------


@dataclass
class Summary:
    """The counts of a run: files = stamped + already_known + failed."""

    files: int = 0
    stamped: int = 0
    already_known: int = 0
    failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    unlisted: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome, size: int) -> None:
        """Counts one file."""
        self.files += 1
        self.bytes += size
        setattr(self, outcome.value, getattr(self, outcome.value) + 1)

    def __str__(self) -> str:
        return (
            f"{self.files} files: {self.stamped} stamped, {self.already_known} already known, "
            f"{self.failed} failed; {self.bytes} bytes in {self.seconds:.1f} s"
        )


def list_files(directory: Path) -> tuple[list[File], list[str]]:
    """Returns the regular files under a directory, and the listing errors.

    Symbolic links are not followed. Links, sockets, pipes and devices are skipped.
    """
    files: list[File] = []
    unlisted: list[str] = []

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # Removed during the listing.
            unlisted.append(f"{Path(error.filename).as_uri()}: {error.strerror}")

    for parent, _, names in os.walk(directory, onerror=note):
        for path in (Path(parent, name) for name in names):
            try:
                found = path.lstat()
            except OSError as error:
                note(error)
                continue
            if stat.S_ISREG(found.st_mode):
                files.append(File(path, found.st_size, found.st_mtime_ns))
    return files, unlisted


def stamp_directory(client: WorkflowClient, directory: Path, jobs: int) -> Summary:
    """Stamps every file under a directory with `jobs` threads."""
    started = time.perf_counter()
    files, unlisted = list_files(directory)
    summary = Summary(unlisted=unlisted)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(stamp_file, client, file) for file in files]
        try:
            # disable=None: no progress bar unless stderr is a terminal.
            for future in tqdm(as_completed(futures), total=len(files), unit="file", disable=None):
                summary.add(*future.result())
        except BaseException:  # Also Ctrl-C: the next run stamps the files not yet begun.
            client.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    summary.seconds = round(time.perf_counter() - started, 3)
    return summary


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description="Stamps every file under a directory and records the work in bridgebook.",
        epilog="Exit status: 0 if every file's outcome was recorded, unreadable files included; "
        "1 if the service is unavailable or rejects a call, or a directory could not be listed; "
        "2 if the command line is invalid.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument(
        "--address",
        default=os.environ.get("BRIDGEBOOK_ADDRESS", "localhost:50051"),
        help="host:port of bridgebook (env: BRIDGEBOOK_ADDRESS, default: %(default)s)",
    )
    parser.add_argument("--namespace", default="demo", help="tenant (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=8, help="files at a time (default: %(default)s)")
    parser.add_argument("--node-id", help="name of the node in the registry (default: orchestrator/NAMESPACE/HOST)")
    parser.add_argument(
        "--every", type=float, metavar="SECONDS", help="run again after this time, until SIGTERM or Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one line of JSON")
    args = parser.parse_args()
    if not args.directory.is_dir():
        parser.error(f"not a directory: {str(args.directory)!a}")
    if not args.namespace.isascii():
        parser.error(f"--namespace: expected ASCII characters, got {args.namespace!a}")
    if args.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, got {args.jobs}")
    if args.every is not None and not 0 < args.every <= threading.TIMEOUT_MAX:
        parser.error(f"--every: expected more than 0 seconds, got {args.every}")
    args.node_id = args.node_id or f"orchestrator/{args.namespace}/{socket.gethostname()}"
    return args


def run(client: WorkflowClient, args: argparse.Namespace) -> int:
    """Stamps the directory once, or repeatedly with --every. Returns the exit status."""
    client.put_machine()
    while True:
        summary = stamp_directory(client, args.directory.resolve(), args.jobs)
        print(json.dumps(asdict(summary)) if args.json else summary, flush=True)
        for error in summary.unlisted:
            complain(f"cannot list {error}")
        if args.every is None:
            return 1 if summary.unlisted else 0
        time.sleep(args.every)  # Interrupted by a signal.


def main() -> int:
    """Runs the program and returns its exit status."""
    args = arguments()
    # SIGTERM acts like Ctrl-C: calls in progress complete, and the node deregisters.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with connect(args.address) as connection:
            grpc.channel_ready_future(connection).result(timeout=CONNECT_SECONDS)
            caller, channel = Caller(), with_token(connection)
            with Registration(caller, channel, args.namespace, args.node_id, "orchestrator", VERSION):
                return run(WorkflowClient(caller, channel, args.namespace), args)
    except grpc.FutureTimeoutError:
        return complain(f"cannot connect to bridgebook at {args.address} within {CONNECT_SECONDS:.0f} s")
    except CallFailed as failure:
        return complain(f"a call to bridgebook at {args.address} failed: {failure}")
    except KeyboardInterrupt:
        if args.every is not None:
            return 0
        return complain("interrupted; run it again to continue", status=130)


def complain(message: str, status: int = 1) -> int:
    """Prints an error and returns the exit status."""
    print(f"orchestrator: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
