//! Converts domain types to responses, which cannot fail.

use crate::{
    db::journal::Transition,
    domain::{namespace::Namespace, time},
    proto::v1,
    services::{
        convert::{responses, same_fields},
        fsm::model::{
            Entity, EntityDetails, FsmMove, Machine, MachineVersion, Moved, PresentState,
            TransitionStats,
        },
    },
};

impl From<PresentState> for v1::WatchedState {
    fn from(state: PresentState) -> Self {
        v1::WatchedState {
            entity_type: state.entity_type,
            entity_id: state.entity_id.to_string(),
            current_state: state.current_state,
        }
    }
}

impl From<Transition> for v1::FsmTransition {
    fn from(row: Transition) -> Self {
        // All tenants read the registry's journal, and a token belongs to one of them.
        let is_shared = Namespace::is_registry(&row.namespace);
        let token_id = row.token_id.filter(|_| !is_shared);
        let position = row.journal_position().to_text(&row.namespace);
        v1::FsmTransition {
            id: row.id.to_string(),
            namespace: row.namespace,
            entity_id: row.entity_id.to_string(),
            entity_type: row.entity_type,
            from_state: row.from_state,
            to_state: row.to_state,
            transition_event: row.transition_event,
            transition_data: Some(row.transition_data.into()),
            created_at: Some(time::to_proto(row.created_at)),
            token_id: token_id.map(|id| id.to_string()),
            // The codec leaves out what does not fit.
            omitted_fields: Vec::new(),
            position,
        }
    }
}

impl From<MachineVersion> for v1::FsmMachine {
    fn from(machine: MachineVersion) -> Self {
        let definition = machine.definition;
        v1::FsmMachine {
            namespace: machine.namespace,
            entity_type: machine.entity_type,
            version: machine.version,
            initial_state: definition.initial_state,
            terminal_states: definition.terminal_states,
            moves: definition.moves.into_iter().map(Into::into).collect(),
            created_at: machine.created_at.map(time::to_proto),
        }
    }
}

impl From<Machine> for v1::FsmMachine {
    fn from(row: Machine) -> Self {
        MachineVersion::from(row).into()
    }
}

impl From<MachineVersion> for v1::GetMachineResponse {
    fn from(machine: MachineVersion) -> Self {
        v1::GetMachineResponse {
            mermaid: machine.definition.mermaid(),
            machine: Some(machine.into()),
        }
    }
}

impl From<Entity> for v1::FsmEntity {
    fn from(row: Entity) -> Self {
        v1::FsmEntity {
            namespace: row.namespace,
            entity_type: row.entity_type,
            entity_id: row.entity_id.to_string(),
            current_state: row.current_state,
            revision: row.revision,
            state_since: Some(time::to_proto(row.state_since)),
            created_at: Some(time::to_proto(row.created_at)),
        }
    }
}

impl From<Moved> for v1::RecordTransitionResponse {
    fn from(moved: Moved) -> Self {
        v1::RecordTransitionResponse {
            entity: Some(moved.entity.into()),
            transition: Some(moved.transition.into()),
            applied: moved.applied,
        }
    }
}

impl From<EntityDetails> for v1::GetEntityResponse {
    fn from(details: EntityDetails) -> Self {
        let machine = details.machine.as_ref();
        let moves = machine.into_iter().flat_map(|machine| {
            let moves = machine.definition.moves_from(&details.entity.current_state);
            moves.map(|it| v1::AllowedMove {
                transition_event: it.transition_event.clone(),
                to_state: it.to_state.clone(),
            })
        });
        v1::GetEntityResponse {
            allowed_moves: moves.collect(),
            machine_version: machine.map_or(0, |machine| machine.version),
            entity: Some(details.entity.into()),
        }
    }
}

responses! {
    PutMachineResponse { machine: WriteOutcome<Machine> }
    ListMachinesResponse { machines: Page<Machine> }
    DeleteMachineResponse { deleted: bool }
    BatchRecordTransitionsResponse {
        results: RecordTransitionResult(record_transition_result) from Moved
    }
    ListEntitiesResponse { entities: Page<Entity> }
    ListTransitionsResponse { transitions: Page<Transition> }
    GetTransitionStatsResponse { stats: Vec<TransitionStats> }
}

same_fields! {
    FsmMove { from_state, transition_event, to_state }
    TransitionStats { from_state, to_state, transition_count, mean_time_in_state_ms }
}
