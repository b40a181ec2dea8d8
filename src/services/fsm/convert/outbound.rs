//! Answers. Nothing here can fail.

use crate::domain::namespace::Namespace;
use crate::{
    db::journal::Transition,
    domain::{
        error::{Error, Result},
        page::Page,
        time,
        write_outcome::WriteOutcome,
    },
    proto::v1::{self, record_transition_result},
    services::fsm::model::{
        Entity, EntityDetails, FsmMove, Machine, MachineVersion, Moved, TransitionStats,
    },
};

impl From<Transition> for v1::FsmTransition {
    fn from(row: Transition) -> Self {
        // Everybody reads that one, and tokens are their own tenants' affair.
        let is_shared = Namespace::is_registry(&row.namespace);
        let token_id = row.token_id.filter(|_| !is_shared);
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
        }
    }
}

impl From<FsmMove> for v1::FsmMove {
    fn from(it: FsmMove) -> Self {
        v1::FsmMove {
            from_state: it.from_state,
            transition_event: it.transition_event,
            to_state: it.to_state,
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

impl From<WriteOutcome<Machine>> for v1::PutMachineResponse {
    fn from(recorded: WriteOutcome<Machine>) -> Self {
        v1::PutMachineResponse {
            machine: Some(MachineVersion::from(recorded.row).into()),
            created: recorded.created,
        }
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

impl From<Page<Machine>> for v1::ListMachinesResponse {
    fn from(page: Page<Machine>) -> Self {
        let machines = page.rows.into_iter().map(MachineVersion::from);
        v1::ListMachinesResponse {
            machines: machines.map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<bool> for v1::DeleteMachineResponse {
    fn from(deleted: bool) -> Self {
        v1::DeleteMachineResponse { deleted }
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

impl From<Vec<Result<Moved, Error>>> for v1::BatchRecordTransitionsResponse {
    fn from(results: Vec<Result<Moved, Error>>) -> Self {
        use record_transition_result::Result;
        let results = results
            .into_iter()
            .map(|result| v1::RecordTransitionResult {
                result: Some(match result {
                    Ok(moved) => Result::Response(moved.into()),
                    Err(error) => Result::Error(error.into()),
                }),
            });
        v1::BatchRecordTransitionsResponse {
            results: results.collect(),
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

impl From<Page<Entity>> for v1::ListEntitiesResponse {
    fn from(page: Page<Entity>) -> Self {
        v1::ListEntitiesResponse {
            entities: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<Page<Transition>> for v1::ListTransitionsResponse {
    fn from(page: Page<Transition>) -> Self {
        v1::ListTransitionsResponse {
            transitions: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<Vec<TransitionStats>> for v1::GetTransitionStatsResponse {
    fn from(stats: Vec<TransitionStats>) -> Self {
        let stats = stats.into_iter().map(|row| v1::TransitionStats {
            from_state: row.from_state,
            to_state: row.to_state,
            transition_count: row.transition_count,
            mean_time_in_state_ms: row.mean_time_in_state_ms,
        });
        v1::GetTransitionStatsResponse {
            stats: stats.collect(),
        }
    }
}
