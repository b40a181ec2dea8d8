#!/usr/bin/env python3
"""Stamps every file under a directory, and keeps book of it in bridgebook.

A bridge node in small. For each file it runs one workflow of three steps: read
the file, hash it with BLAKE3, stamp it. The order of things is what makes the
program safe to kill and to run again:

1. The file is read first, because the workflow's correlation_id is derived from
   the file's content: an unchanged file is the same workflow in every run, and
   a changed file is a new one.
2. GetWorkflow says whether an earlier run has been here. If that run finished,
   nothing is left to do; if it was interrupted, its workflow is taken up again.
3. What belongs to the workflow is stored under ids derived from the workflow's
   own id, so a call that is repeated, by a retry or by a later run, adds nothing.
4. The file itself is an entity with a state machine of its own, DISCOVERED, STAMPED or
   FAILED, and its moves have derived ids too.
5. The workflow's move to COMPLETED comes last: a COMPLETED workflow has all its parts.

The calls are in book.py. While it works it is a node in the registry (bridge_node.py).
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

    from book import FILE, Book, derive
    from bridge_node import Caller, Presence, Refused, connect, showing_token
except ImportError as error:
    sys.exit(f"{error}. Run examples/python/setup.sh, then this with examples/python/.venv/bin/python.")

VERSION = "1.0.0"  # Of this node, for the registry.

# The root of all derived ids. Another program picks another root, so that their ids never meet.
ID_ROOT = "e1605639-2eaf-420e-a15e-9413b417fd00"

CHUNK_BYTES = 1 << 20  # Read at once: large enough to be fast, and no file is too large.
CONNECT_SECONDS = 5.0  # How long the first contact may take; later the server may be away for longer.


# --- Stamping --------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A regular file, as it was when the directory was listed."""

    path: Path
    size: int
    mtime_ns: int

    @property
    def uri(self) -> str:
        """Its name as an ASCII string, whatever bytes the name is made of."""
        return self.path.as_uri()


@dataclass
class Content:
    """What reading a file found out."""

    file_hash: str = ""
    size: int = 0
    read_seconds: float = 0.0
    hash_seconds: float = 0.0


class Outcome(Enum):
    """What became of a file."""

    STAMPED = "stamped"
    ALREADY_KNOWN = "already_known"
    FAILED = "failed"


def read(file: File) -> Content:
    """Reads and hashes a file. Raises OSError if it can't be read."""
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


def stamp_file(book: Book, file: File) -> tuple[Outcome, int]:
    """Runs the workflow of one file. Answers what became of it and how many bytes were read."""
    started_at, started = Timestamp(), time.perf_counter()
    started_at.GetCurrentTime()
    try:
        content = read(file)
    except OSError as error:
        seconds = time.perf_counter() - started
        record_failure(book, file, started_at, seconds, error.strerror or repr(error))
        return Outcome.FAILED, 0
    return record_success(book, file, started_at, content), content.size


def record_success(book: Book, file: File, started_at: Timestamp, content: Content) -> Outcome:
    """Records the workflow of a file that could be read."""
    correlation_id = derive(ID_ROOT, book.namespace, file.uri, content.file_hash)
    workflow = book.find(correlation_id)
    if workflow and has_ended(workflow):
        return Outcome.ALREADY_KNOWN
    workflow = workflow or book.start(correlation_id, started_at, {"uri": file.uri})

    # Nothing in the stamp may differ between two runs over the same content: its id is the same.
    stamping = time.perf_counter()
    stamp = pb.NewStamp(
        id=derive(workflow.id, "stamp"),
        workflow_id=workflow.id,
        file_hash=content.file_hash,
        stamp_data={"uri": file.uri, "size_bytes": content.size, "hash_algorithm": "blake3"},
    )
    book.record_stamp(stamp)
    stamp_seconds = time.perf_counter() - stamping

    book.record_steps(
        [
            step(workflow, 1, "read", pb.STEP_STATUS_COMPLETED, content.read_seconds),
            step(workflow, 2, "hash", pb.STEP_STATUS_COMPLETED, content.hash_seconds),
            step(workflow, 3, "stamp", pb.STEP_STATUS_COMPLETED, stamp_seconds),
        ]
    )
    book.move(file_moves(book, file, workflow, "stamp"))
    book.end(workflow, pb.WORKFLOW_STATE_COMPLETED)
    return Outcome.STAMPED


def record_failure(book: Book, file: File, started_at: Timestamp, seconds: float, why: str) -> None:
    """Records the workflow of a file that could not be read.

    Its content is not known, so size and time of change stand in for it. The day it
    becomes readable it is a new workflow, and this one stays what it is: a failure.
    """
    correlation_id = derive(ID_ROOT, book.namespace, file.uri, f"unreadable {file.size} {file.mtime_ns}")
    workflow = book.find(correlation_id)
    if workflow and has_ended(workflow):
        return
    workflow = workflow or book.start(correlation_id, started_at, {"uri": file.uri})
    book.record_steps(
        [
            step(workflow, 1, "read", pb.STEP_STATUS_FAILED, seconds, why),
            step(workflow, 2, "hash", pb.STEP_STATUS_SKIPPED),
            step(workflow, 3, "stamp", pb.STEP_STATUS_SKIPPED),
        ]
    )
    book.move(file_moves(book, file, workflow, "fail"))
    book.end(workflow, pb.WORKFLOW_STATE_FAILED, f"can't read the file: {why}")


def file_moves(book: Book, file: File, workflow: pb.Workflow, event: str) -> list[fsm.NewTransition]:
    """The moves of a file: it is discovered once, and stamped or failed once by each workflow."""
    entity_id = derive(ID_ROOT, book.namespace, FILE, file.uri)
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
            transition_event=event,  # The machine knows where it leads.
            transition_data={"workflow_id": workflow.id},
        ),
    ]


def has_ended(workflow: pb.Workflow) -> bool:
    """Whether there is nothing left to do for a workflow."""
    return bool(workflow.HasField("completed_at"))


def step(
    workflow: pb.Workflow,
    order: int,
    name: str,
    status: pb.StepStatus,
    seconds: float | None = None,
    error_message: str | None = None,
) -> pb.NewStep:
    """A step of a workflow, under an id derived from both."""
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
    """What a run did. files = stamped + already_known + failed."""

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
    """The regular files under a directory, and what could not be listed and why.

    Symbolic links are not followed; they, sockets, pipes and devices are left out.
    """
    files: list[File] = []
    unlisted: list[str] = []

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # Gone since: it is not there any more.
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


def stamp_directory(book: Book, directory: Path, jobs: int) -> Summary:
    """Stamps every file under a directory, so many at a time."""
    started = time.perf_counter()
    files, unlisted = list_files(directory)
    summary = Summary(unlisted=unlisted)
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(stamp_file, book, file) for file in files]
        try:
            # disable=None: no progress bar where nobody looks at it.
            for future in tqdm(as_completed(futures), total=len(files), unit="file", disable=None):
                summary.add(*future.result())
        except BaseException:  # Ctrl-C too: files not begun are left for the next run.
            book.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    summary.seconds = round(time.perf_counter() - started, 3)
    return summary


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Stamps every file under a directory, and keeps book of it in bridgebook.",
        epilog="Exit status: 0 if every file's outcome was recorded, unreadable files included; "
        "1 if the server is away or refuses, or a part of the directory could not be listed; "
        "2 if the command line is wrong.",
    )
    parser.add_argument("directory", metavar="DIR", type=Path)
    parser.add_argument(
        "--address",
        default=os.environ.get("BRIDGEBOOK_ADDRESS", "localhost:50051"),
        help="host:port of bridgebook (env: BRIDGEBOOK_ADDRESS, now: %(default)s)",
    )
    parser.add_argument("--namespace", default="demo", help="the tenant (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=8, help="files at a time (default: %(default)s)")
    parser.add_argument("--node-id", help="its name in the registry (default: orchestrator/NAMESPACE/HOST)")
    parser.add_argument(
        "--every", type=float, metavar="SECONDS", help="stamp again so long after each run, until SIGTERM or Ctrl-C"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one line of JSON")
    args = parser.parse_args()
    if not args.directory.is_dir():
        parser.error(f"not a directory: {str(args.directory)!a}")
    if not args.namespace.isascii():
        parser.error("--namespace has to be ASCII")
    if args.jobs < 1:
        parser.error("--jobs has to be 1 or more")
    if args.every is not None and not 0 < args.every <= threading.TIMEOUT_MAX:
        parser.error("--every has to be more than 0")
    args.node_id = args.node_id or f"orchestrator/{args.namespace}/{socket.gethostname()}"
    return args


def run(book: Book, args: argparse.Namespace) -> int:
    """Stamps the directory, again and again if so told. Answers the exit status of the last time."""
    book.put_machine()
    while True:
        summary = stamp_directory(book, args.directory.resolve(), args.jobs)
        print(json.dumps(asdict(summary)) if args.json else summary, flush=True)
        for what in summary.unlisted:
            complain(f"can't list {what}")
        if args.every is None:
            return 1 if summary.unlisted else 0
        time.sleep(args.every)  # A signal ends it.


def main() -> int:
    """Runs the program and answers its exit status."""
    args = arguments()
    # SIGTERM is taken as Ctrl-C is: calls under way end, and the node deregisters.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with connect(args.address) as connection:
            grpc.channel_ready_future(connection).result(timeout=CONNECT_SECONDS)
            caller, channel = Caller(), showing_token(connection)
            with Presence(caller, channel, args.namespace, args.node_id, "orchestrator", VERSION):
                return run(Book(caller, channel, args.namespace), args)
    except grpc.FutureTimeoutError:
        return complain(f"no bridgebook answers at {args.address}")
    except Refused as refused:
        return complain(f"a call to bridgebook at {args.address} failed: {refused}")
    except KeyboardInterrupt:
        if args.every is not None:
            return 0
        return complain("interrupted. Run again to go on from here.", status=130)


def complain(message: str, status: int = 1) -> int:
    """Says what went wrong and answers the exit status."""
    print(f"orchestrator: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
