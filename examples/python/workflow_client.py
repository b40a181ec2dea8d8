"""The RPCs that orchestrator.py uses to record workflows, stamps and file states."""

from __future__ import annotations

from uuid import UUID, uuid5

import grpc
from bridgebook.v1 import fsm_service_pb2 as fsm
from bridgebook.v1 import workflow_service_pb2 as pb
from bridgebook.v1.fsm_service_pb2_grpc import FsmServiceStub
from bridgebook.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2

from bridge_node import CALL_SECONDS, CallFailed, Caller

WORKFLOW_TYPE = "metadata_stamping"
FILE = "file"  # The entity type of files.


def derive(space: str, *parts: str) -> str:
    """Returns a UUIDv5 of the parts: the same id in every run."""
    return str(uuid5(UUID(space), "\n".join(parts)))


class WorkflowClient:
    """The RPCs that stamping uses. Each is idempotent."""

    def __init__(self, caller: Caller, channel: grpc.Channel, namespace: str) -> None:
        self.namespace = namespace
        self._caller = caller
        self._stub = WorkflowServiceStub(channel)
        self._fsm = FsmServiceStub(channel)

    def stop(self) -> None:
        """Stops all retries. A call that fails from now on raises at once."""
        self._caller.stop()

    def put_machine(self) -> None:
        """Defines the state machine of files. Changes nothing if it exists already."""
        move = fsm.FsmMove
        request = fsm.PutMachineRequest(
            namespace=self.namespace,
            entity_type=FILE,
            initial_state="DISCOVERED",
            moves=[
                move(from_state=state, transition_event=event, to_state=to_state)
                # A changed file is stamped again, and a failed one may have become readable.
                for state in ("DISCOVERED", "STAMPED", "FAILED")
                for event, to_state in (("stamp", "STAMPED"), ("fail", "FAILED"))
            ],
        )
        self._caller.call(lambda: self._fsm.PutMachine(request, timeout=CALL_SECONDS))

    def move(self, moves: list[fsm.NewTransition]) -> None:
        """Records moves in the given order."""
        request = fsm.BatchRecordTransitionsRequest(namespace=self.namespace, transitions=moves)

        def attempt() -> None:
            for result in self._fsm.BatchRecordTransitions(request, timeout=CALL_SECONDS).results:
                if result.HasField("error"):
                    raise CallFailed(result.error)

        self._caller.call(attempt)

    def find(self, correlation_id: str) -> pb.Workflow | None:
        """Returns the workflow with this correlation id, or None."""
        request = pb.GetWorkflowRequest(namespace=self.namespace, correlation_id=correlation_id)
        try:
            return self._caller.call(lambda: self._stub.GetWorkflow(request, timeout=CALL_SECONDS)).workflow
        except CallFailed as failure:
            if failure.status.code == code_pb2.NOT_FOUND:
                return None
            raise

    def start(self, correlation_id: str, started_at: Timestamp, metadata: dict[str, str]) -> pb.Workflow:
        """Starts a workflow in state PROCESSING."""
        request = pb.StartWorkflowRequest(
            namespace=self.namespace,
            correlation_id=correlation_id,
            workflow_type=WORKFLOW_TYPE,
            current_state=pb.WORKFLOW_STATE_PROCESSING,
            started_at=started_at,
            metadata=metadata,
        )
        try:
            return self._caller.call(lambda: self._stub.StartWorkflow(request, timeout=CALL_SECONDS)).workflow
        except CallFailed as failure:
            # Another orchestrator started it after the lookup, with its own started_at.
            if failure.status.code == code_pb2.ALREADY_EXISTS and (found := self.find(correlation_id)):
                return found
            raise

    def record_stamp(self, stamp: pb.NewStamp) -> None:
        """Records a stamp."""
        request = pb.RecordStampRequest(namespace=self.namespace, stamp=stamp)
        self._caller.call(lambda: self._stub.RecordStamp(request, timeout=CALL_SECONDS))

    def record_steps(self, steps: list[pb.NewStep]) -> None:
        """Records steps. A step of an interrupted run keeps the timings of that run."""
        request = pb.BatchRecordStepsRequest(namespace=self.namespace, steps=steps)

        def attempt() -> None:
            # The call succeeds even if items fail: each item has its own status.
            for result in self._stub.BatchRecordSteps(request, timeout=CALL_SECONDS).results:
                # The ids are derived, so ALREADY_EXISTS means the same step with other timings.
                if result.HasField("error") and result.error.code != code_pb2.ALREADY_EXISTS:
                    raise CallFailed(result.error)

        self._caller.call(attempt)

    def end(self, workflow: pb.Workflow, state: pb.WorkflowState, error_message: str | None = None) -> None:
        """Moves a workflow to its final state."""
        request = pb.TransitionWorkflowRequest(
            namespace=self.namespace,
            workflow_id=workflow.id,
            to_state=state,
            transition_id=derive(workflow.id, "end"),
            error_message=error_message,
        )
        self._caller.call(lambda: self._stub.TransitionWorkflow(request, timeout=CALL_SECONDS))
