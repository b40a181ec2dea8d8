//! Entities: their current state, the rules of a move, and the filter of a list.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use super::{Machine, NewTransition, WantedMove};
use crate::{
    db::{
        journal::{Transition, Xid},
        schema::fsm_entities,
    },
    domain::{
        error::{Error, Resource, Result},
        id::EntityId,
        namespace::Namespace,
        page::{PageRequest, PageRow, ROW_BYTES, TimePosition},
    },
};

/// The key of an entity within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKey {
    /// The type of the entity.
    pub entity_type: String,
    /// The caller's id of the entity.
    pub entity_id: EntityId,
}

/// A row of fsm_entities.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = fsm_entities)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Entity {
    pub namespace: String,
    pub entity_type: String,
    pub entity_id: EntityId,
    pub current_state: String,
    pub revision: i64,
    pub state_since: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
}

impl Entity {
    /// Makes a move of an entity, `None` for a new one, by the rules of its machine, if it has
    /// one. Returns the entity after the move, and the row for the journal.
    ///
    /// # Errors
    /// [`Error::StateChanged`], [`Error::EntityMoveNotAllowed`], and [`Error::InvalidRequest`] if
    /// neither the request nor a machine names the target state.
    pub fn after(
        entity: Option<&Entity>,
        wanted: &NewTransition,
        machine: Option<&Machine>,
        namespace: &Namespace,
        now: DateTime<Utc>,
    ) -> Result<(Entity, Transition)> {
        let current = entity.map(|entity| entity.current_state.as_str());
        let to_state = target(current, wanted, machine)?;
        // now() is the start of the transaction, which may be before the previous move.
        let now = entity.map_or(now, |entity| now.max(entity.state_since));
        let transition = Transition {
            id: wanted.id,
            entity_id: wanted.entity.entity_id.0,
            entity_type: wanted.entity.entity_type.clone(),
            from_state: current.map(str::to_owned),
            to_state: to_state.clone(),
            transition_event: wanted.transition_event.clone(),
            transition_data: wanted.transition_data.clone(),
            created_at: now,
            namespace: namespace.to_string(),
            request_digest: Some(wanted.request_digest),
            // The store sets these.
            token_id: None,
            xid: Xid::default(),
            seq: 0,
        };
        let entity = Entity {
            namespace: namespace.to_string(),
            entity_type: wanted.entity.entity_type.clone(),
            entity_id: wanted.entity.entity_id,
            current_state: to_state,
            revision: entity.map_or(0, |entity| entity.revision) + 1,
            state_since: now,
            created_at: entity.map_or(now, |entity| entity.created_at),
        };
        Ok((entity, transition))
    }
}

/// Returns the target state of a move, if the move is allowed.
fn target(
    current: Option<&str>,
    wanted: &NewTransition,
    machine: Option<&Machine>,
) -> Result<String> {
    let here = current.unwrap_or_default();
    if let Some(expected) = wanted.from_state.as_ref().filter(|it| *it != here) {
        return Err(Error::StateChanged {
            resource: Resource::Entity,
            id: wanted.entity.entity_id.to_string(),
            expected: expected.clone(),
            current: here.to_owned(),
        });
    }
    let wanted = WantedMove {
        entity_type: &wanted.entity.entity_type,
        entity_id: wanted.entity.entity_id.0,
        current,
        event: Some(&wanted.transition_event),
        to: wanted.to_state.as_deref(),
        to_field: "to_state",
    };
    wanted.find(machine).map(|(_, to)| to)
}

/// An entity, and the machine that rules its moves.
#[derive(Debug, Clone)]
pub struct EntityDetails {
    /// The entity.
    pub entity: Entity,
    /// The machine, if its type has one.
    pub machine: Option<std::sync::Arc<Machine>>,
}

impl PageRow for Entity {
    type Position = TimePosition;

    fn position(&self) -> TimePosition {
        (self.state_since, self.entity_id.0)
    }

    fn size(&self) -> usize {
        ROW_BYTES + self.namespace.len()
    }
}

/// The filter of a list of entities.
#[derive(Debug)]
pub struct EntityFilter {
    /// Selects entities of this type.
    pub entity_type: String,
    /// Selects entities in this state.
    pub current_state: Option<String>,
    /// Selects entities that entered their state before this time.
    pub state_since_before: Option<DateTime<Utc>>,
    /// The requested page.
    pub page: PageRequest<TimePosition>,
}
