//! What changes a bridge, and what becomes of it.

use chrono::{DateTime, Utc};

use super::{Bridge, ENTITY_TYPE, MOVE_EVENT};
use crate::{
    db::journal::Transition,
    domain::{
        digest::RequestDigest,
        error::{Error, RefusedMove, Resource, Result},
        id::{BatchId, BridgeId, TransitionId},
        journal::START_EVENT,
        json::JsonObject,
        namespace::Namespace,
    },
    services::fsm::model::Machine,
};

/// What a request does to the totals.
#[derive(Debug)]
pub enum Totals {
    /// Sets them, and when they were last added to.
    Absolute {
        /// The total of workflows, if it is given.
        workflows: Option<i64>,
        /// The total of items, if it is given.
        items: Option<i64>,
        /// When the bridge last aggregated, if it is given.
        last_aggregation: Option<DateTime<Utc>>,
        /// The revision that it is to replace, if that matters; 0 for none.
        expected_revision: Option<i64>,
    },
    /// Adds a batch to them.
    Batch {
        /// Names the batch within the bridge.
        batch_id: BatchId,
        /// How many workflows it has.
        workflows: i64,
        /// How many items it has.
        items: i64,
    },
}

/// What a document of a request does to the stored one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetadataUpdate {
    /// It is merged into it, as RFC 7396 says.
    #[default]
    Merge,
    /// It takes its place.
    Replace,
}

/// A change that a caller asks for.
#[derive(Debug)]
pub struct BridgeChange {
    /// Which bridge.
    pub bridge_id: BridgeId,
    /// What becomes of its totals.
    pub totals: Totals,
    /// What becomes of its document.
    pub metadata: Option<(MetadataUpdate, JsonObject)>,
    /// Where it moves, if it does.
    pub to_state: Option<String>,
    /// Why.
    pub transition_event: Option<String>,
    /// The id of the move in the journal.
    pub transition_id: TransitionId,
    /// Tells a retry.
    pub request_digest: RequestDigest,
}

/// A bridge after a change, and the journal's row if it moved.
pub type ChangedRow = (Bridge, Option<Transition>);

/// What a change answers.
#[derive(Debug)]
pub struct Changed {
    /// The bridge after it, or as it is now if nothing was changed.
    pub bridge: Bridge,
    /// The journal's row, if it moved.
    pub transition: Option<Transition>,
    /// Whether this call changed it.
    pub applied: bool,
}

impl Bridge {
    /// Changes a bridge, or makes a new one, at time `now`, by the rules of the
    /// namespace's machine, if there is one. Answers `None` where the bridge is
    /// so already.
    ///
    /// # Errors
    /// [`Error::RevisionChanged`], [`Error::NoSuchMove`], and
    /// [`Error::InvalidRequest`] if a total or the document would grow too
    /// large, or if nobody says where a new bridge begins.
    pub fn after(
        current: Option<&Bridge>,
        change: &BridgeChange,
        machine: Option<&Machine>,
        namespace: &Namespace,
        now: DateTime<Utc>,
    ) -> Result<Option<ChangedRow>> {
        if let (Totals::Absolute { .. }, Some(current)) = (&change.totals, current)
            && current.request_digest == Some(change.request_digest)
        {
            return Ok(None);
        }
        check_revision(current, change)?;
        // Not before the change before, whoever made it.
        let now = current.map_or(now, |bridge| now.max(bridge.updated_at));
        let found = find_move(current, change, machine)?;
        let mut next = match current {
            Some(bridge) => bridge.clone(),
            None => Bridge::blank(change.bridge_id, namespace, now),
        };
        next.change_totals(&change.totals, now)?;
        next.change_metadata(change)?;
        let moved = found.map(|(event, to_state)| {
            next.current_fsm_state.clone_from(&to_state);
            Transition {
                id: change.transition_id,
                entity_id: change.bridge_id.0,
                entity_type: ENTITY_TYPE.to_owned(),
                from_state: current.map(|bridge| bridge.current_fsm_state.clone()),
                to_state,
                transition_event: event,
                transition_data: JsonObject::default(),
                created_at: now,
                namespace: namespace.to_string(),
                request_digest: Some(change.request_digest),
                // Whoever stores it knows.
                token_id: None,
            }
        });
        let is_batch = matches!(change.totals, Totals::Batch { .. });
        if !is_batch && current.is_some_and(|current| current.has_content_of(&next)) {
            return Ok(None);
        }
        next.revision += 1;
        next.updated_at = now;
        next.request_digest = Some(change.request_digest);
        Ok(Some((next, moved)))
    }

    fn blank(bridge_id: BridgeId, namespace: &Namespace, now: DateTime<Utc>) -> Self {
        Bridge {
            bridge_id,
            namespace: namespace.to_string(),
            total_workflows_processed: 0,
            total_items_aggregated: 0,
            aggregation_metadata: JsonObject::default(),
            current_fsm_state: String::new(),
            last_aggregation_timestamp: None,
            created_at: now,
            updated_at: now,
            revision: 0,
            request_digest: None,
        }
    }

    fn change_totals(&mut self, totals: &Totals, now: DateTime<Utc>) -> Result<()> {
        let before = (self.total_workflows_processed, self.total_items_aggregated);
        let given = match totals {
            Totals::Absolute {
                workflows,
                items,
                last_aggregation,
                ..
            } => {
                self.total_workflows_processed = workflows.unwrap_or(before.0);
                self.total_items_aggregated = items.unwrap_or(before.1);
                *last_aggregation
            }
            Totals::Batch {
                workflows, items, ..
            } => {
                self.total_workflows_processed = add("workflows_processed", before.0, *workflows)?;
                self.total_items_aggregated = add("items_aggregated", before.1, *items)?;
                Some(now)
            }
        };
        let after = (self.total_workflows_processed, self.total_items_aggregated);
        let now = (after != before).then_some(now);
        self.last_aggregation_timestamp = given.or(now).or(self.last_aggregation_timestamp);
        Ok(())
    }

    fn change_metadata(&mut self, change: &BridgeChange) -> Result<()> {
        match &change.metadata {
            None => {}
            Some((MetadataUpdate::Replace, document)) => {
                self.aggregation_metadata = document.clone();
            }
            Some((MetadataUpdate::Merge, patch)) => {
                let merged = self.aggregation_metadata.merge(patch);
                merged.map_err(|fault| Error::invalid_field("aggregation_metadata", fault))?;
            }
        }
        Ok(())
    }

    fn has_content_of(&self, other: &Bridge) -> bool {
        let content = |it: &Bridge| {
            (
                it.total_workflows_processed,
                it.total_items_aggregated,
                it.last_aggregation_timestamp,
            )
        };
        content(self) == content(other)
            && self.current_fsm_state == other.current_fsm_state
            && self.aggregation_metadata == other.aggregation_metadata
    }
}

fn check_revision(current: Option<&Bridge>, change: &BridgeChange) -> Result<()> {
    let Totals::Absolute {
        expected_revision: Some(expected),
        ..
    } = change.totals
    else {
        return Ok(());
    };
    let revision = current.map_or(0, |bridge| bridge.revision);
    if expected == revision {
        return Ok(());
    }
    Err(Error::RevisionChanged {
        resource: Resource::Bridge,
        id: change.bridge_id.to_string(),
        expected,
        current: revision,
    })
}

/// By which event and to which state the bridge moves, if it does.
fn find_move(
    current: Option<&Bridge>,
    change: &BridgeChange,
    machine: Option<&Machine>,
) -> Result<Option<(String, String)>> {
    let here = current.map(|bridge| bridge.current_fsm_state.as_str());
    let to = change.to_state.as_deref();
    let event = change.transition_event.as_deref();
    let stays = to == here || (to.is_none() && event.is_none());
    if here.is_some() && stays {
        return Ok(None);
    }
    let Some(machine) = machine else {
        let unknown = "is required: the namespace has no machine for bridges that knows it";
        let to = to.ok_or_else(|| Error::invalid_field("current_fsm_state", unknown))?;
        let default = if here.is_none() {
            START_EVENT
        } else {
            MOVE_EVENT
        };
        let event = event.unwrap_or(default);
        return Ok(Some((event.to_owned(), to.to_owned())));
    };
    match machine.definition.find(here, event, to) {
        Some((event, to)) => Ok(Some((event.to_owned(), to.to_owned()))),
        None => Err(Error::NoSuchMove(Box::new(
            machine.definition.with_allowed_moves(RefusedMove {
                entity_type: ENTITY_TYPE.to_owned(),
                entity_id: change.bridge_id.to_string(),
                current: here.unwrap_or_default().to_owned(),
                event: event.unwrap_or_default().to_owned(),
                to: to.unwrap_or_default().to_owned(),
                allowed: Vec::new(),
            }),
        ))),
    }
}

fn add(field: &str, total: i64, delta: i64) -> Result<i64> {
    total.checked_add(delta).ok_or_else(|| {
        let rule = format!("would make the total of {total} more than {}", i64::MAX);
        Error::invalid_field(field, rule)
    })
}
