//! Requests of FsmService.

use bridgebook::proto::v1;

use super::{super::calls::TYPES, Asked};

impl Asked<'_> {
    /// Round and round; the second machine of two has one state less.
    pub(super) fn put_machine(&self) -> v1::PutMachineRequest {
        let count = if self.has(1) { 2 } else { 3 };
        let moves = (0..count).map(|from| v1::FsmMove {
            from_state: self.by.state(from),
            transition_event: self.by.name("go"),
            to_state: self.by.state((from + 1) % count),
        });
        v1::PutMachineRequest {
            namespace: self.namespace(),
            entity_type: self.entity_type(),
            initial_state: self.by.state(1),
            moves: moves.collect(),
            allow_stranded: self.has(2),
            ..Default::default()
        }
    }

    pub(super) fn get_machine(&self) -> v1::GetMachineRequest {
        v1::GetMachineRequest {
            namespace: self.namespace(),
            entity_type: self.entity_type(),
            version: self.has(0).into(),
        }
    }

    pub(super) fn list_machines(&self) -> v1::ListMachinesRequest {
        v1::ListMachinesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
        }
    }

    pub(super) fn delete_machine(&self) -> v1::DeleteMachineRequest {
        v1::DeleteMachineRequest {
            namespace: self.namespace(),
            entity_type: self.entity_type(),
            allow_missing: self.has(0),
        }
    }

    pub(super) fn transition(&self, entity_id: String) -> v1::NewTransition {
        let to_state = self.by.state(self.call.state);
        v1::NewTransition {
            transition_id: self.maybe_move_id(2),
            // Bridges are not moved here.
            entity_type: TYPES[self.call.thing % 2].into(),
            entity_id,
            to_state: if self.has(1) { String::new() } else { to_state },
            transition_event: self.by.name("go"),
            transition_data: self.by.document(3),
            ..Default::default()
        }
    }

    pub(super) fn record_move(&self) -> v1::RecordTransitionRequest {
        v1::RecordTransitionRequest {
            namespace: self.namespace(),
            transition: Some(self.transition(self.other_id())),
        }
    }

    pub(super) fn record_moves(&self) -> v1::BatchRecordTransitionsRequest {
        let ids = self.pools.ids.iter();
        v1::BatchRecordTransitionsRequest {
            namespace: self.namespace(),
            transitions: ids.map(|id| self.transition(id.clone())).collect(),
        }
    }

    pub(super) fn get_entity(&self) -> v1::GetEntityRequest {
        v1::GetEntityRequest {
            namespace: self.namespace(),
            entity_type: TYPES[self.call.thing % 2].into(),
            entity_id: self.other_id(),
        }
    }

    pub(super) fn list_entities(&self) -> v1::ListEntitiesRequest {
        v1::ListEntitiesRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            entity_type: TYPES[self.call.thing % 2].into(),
            ..Default::default()
        }
    }

    /// The type of a row of the journal.
    pub(super) fn journaled(&self) -> String {
        let types = ["workflow", "order", "parcel", "bridge"];
        types[usize::from(self.call.variant) % types.len()].into()
    }

    pub(super) fn list_moves(&self) -> v1::ListTransitionsRequest {
        v1::ListTransitionsRequest {
            namespace: self.namespace(),
            page_size: self.call.page_size,
            page_token: self.token(),
            entity_type: self.journaled(),
            entity_id: if self.has(2) {
                self.id()
            } else {
                String::new()
            },
            ..Default::default()
        }
    }

    pub(super) fn count_moves(&self) -> v1::GetTransitionStatsRequest {
        v1::GetTransitionStatsRequest {
            namespace: self.namespace(),
            entity_type: self.journaled(),
            ..Default::default()
        }
    }
}
