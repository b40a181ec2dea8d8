//! Entities: where they are, to read, to list.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use super::{Machine, NewTransition};
use crate::{
    db::{journal::Transition, schema::fsm_entities},
    domain::{
        error::{Error, RefusedMove, Resource, Result},
        id::EntityId,
        namespace::Namespace,
        page::{PageRequest, PageRow, ROW_BYTES, TimePosition},
    },
};

/// Names an entity within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKey {
    /// What kind of entity it is.
    pub entity_type: String,
    /// Which.
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
    /// Makes a move from where an entity is, or from nothing, by the rules of
    /// the machine, if there is one. Answers the entity after it and the
    /// journal's row.
    ///
    /// # Errors
    /// [`Error::StateChanged`], [`Error::NoSuchMove`], and
    /// [`Error::InvalidRequest`] if nobody says where the move leads.
    pub fn after(
        entity: Option<&Entity>,
        wanted: &NewTransition,
        machine: Option<&Machine>,
        namespace: &Namespace,
        now: DateTime<Utc>,
    ) -> Result<(Entity, Transition)> {
        let current = entity.map(|entity| entity.current_state.as_str());
        let to_state = target(current, wanted, machine)?;
        // Not before the move before, whoever made it.
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
            // Whoever stores it knows.
            token_id: None,
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

/// Where a move leads, if it is allowed.
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
    let to_state = wanted.to_state.as_deref();
    let Some(machine) = machine else {
        let no_target = "is required, because the entity_type has no machine";
        return to_state
            .map(str::to_owned)
            .ok_or_else(|| Error::invalid_field("to_state", no_target));
    };
    let definition = &machine.definition;
    // What begins says where, or whoever meant to go on would begin unawares.
    let is_clear = current.is_some() || to_state.is_some();
    let found = definition
        .find(current, Some(&wanted.transition_event), to_state)
        .filter(|_| is_clear);
    found.map(|(_, to)| to.to_owned()).ok_or_else(|| {
        Error::NoSuchMove(Box::new(definition.with_allowed_moves(RefusedMove {
            entity_type: wanted.entity.entity_type.clone(),
            entity_id: wanted.entity.entity_id.to_string(),
            current: here.to_owned(),
            event: wanted.transition_event.clone(),
            to: to_state.unwrap_or_default().to_owned(),
            allowed: Vec::new(),
        })))
    })
}

/// An entity, and the machine that it moves by.
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
        ROW_BYTES
    }
}

/// Which entities to list.
#[derive(Debug)]
pub struct EntityFilter {
    /// Of this type.
    pub entity_type: String,
    /// In this state.
    pub current_state: Option<String>,
    /// There since before this time.
    pub state_since_before: Option<DateTime<Utc>>,
    /// Which page.
    pub page: PageRequest<TimePosition>,
}
