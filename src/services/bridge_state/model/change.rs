//! Changes of a bridge: the request, the rules, and the answer.

use chrono::{DateTime, Utc};

use super::{Bridge, Consumption, ENTITY_TYPE};
use crate::{
    db::journal::{Transition, Xid},
    domain::{
        digest::RequestDigest,
        error::{Error, Resource, Result},
        id::{BatchId, BridgeId, TransitionId},
        journal::DELETED,
        json::JsonObject,
        namespace::Namespace,
    },
    services::fsm::model::{Machine, WantedMove},
};

/// The change of the totals.
#[derive(Debug)]
pub enum Totals {
    /// Sets the totals and the time of the last aggregation.
    Absolute {
        /// The total of workflows; unset keeps it.
        workflows: Option<i64>,
        /// The total of items; unset keeps it.
        items: Option<i64>,
        /// The time of the last aggregation; unset for `now` if a total changes.
        last_aggregation: Option<DateTime<Utc>>,
        /// The revision that the caller expects; 0 for a new bridge, unset for any.
        expected_revision: Option<i64>,
    },
    /// Adds a batch to the totals.
    Batch {
        /// The id of the batch within the bridge; unset if the position identifies it.
        batch_id: Option<BatchId>,
        /// Number of workflows in the batch.
        workflows: i64,
        /// Number of items in the batch.
        items: i64,
        /// What the batch consumes of the journal, if it does.
        consumes: Option<Consumption>,
    },
}

/// How the document of a request is applied to the stored one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetadataUpdate {
    /// As a JSON Merge Patch (RFC 7396).
    #[default]
    Merge,
    /// It replaces the stored one.
    Replace,
}

/// The request to change a bridge, or to make a new one.
#[derive(Debug)]
pub struct BridgeChange {
    /// The id of the bridge.
    pub bridge_id: BridgeId,
    /// The change of the totals.
    pub totals: Totals,
    /// The change of the document; unset keeps it.
    pub metadata: Option<(MetadataUpdate, JsonObject)>,
    /// The requested state; unset to stay, or to leave it to the machine.
    pub to_state: Option<String>,
    /// The event of the move; unset to leave it to the machine.
    pub transition_event: Option<String>,
    /// The id of the move in the journal.
    pub transition_id: TransitionId,
    /// The digest of the content, which identifies a retry.
    pub request_digest: RequestDigest,
}

impl BridgeChange {
    /// Returns what the change consumes of the journal, if it does.
    #[must_use]
    pub fn consumes(&self) -> Option<Consumption> {
        match &self.totals {
            Totals::Absolute { .. } => None,
            Totals::Batch { consumes, .. } => *consumes,
        }
    }

    /// Returns the id of the last row of the journal that the change consumes, if it does.
    #[must_use]
    pub fn consumed_id(&self) -> Option<TransitionId> {
        self.consumes().map(|it| it.through.transition_id)
    }

    /// Returns the id by which the change is idempotent. For a batch the caller chose it, unless the
    /// position that it consumes identifies it. To set totals the service makes it for the call, so
    /// that a retry after a lost commit answer is recognised.
    #[must_use]
    pub fn batch_id(&self) -> Option<BatchId> {
        match self.totals {
            Totals::Absolute { .. } => Some(BatchId(self.transition_id.0)),
            Totals::Batch { batch_id, .. } => batch_id,
        }
    }
}

/// A bridge after a change, and the row for the journal if it moved.
pub type ChangedRow = (Bridge, Option<Transition>);

/// The answer to a change.
#[derive(Debug)]
pub struct Changed {
    /// The bridge after the change; its current state if this call changed nothing.
    pub bridge: Bridge,
    /// The row of the journal, if the bridge moved.
    pub transition: Option<Transition>,
    /// Whether this call changed the bridge.
    pub applied: bool,
}

impl Bridge {
    /// Changes a bridge, `None` for a new one, at time `now`, by the rules of the namespace's
    /// machine, if it has one. Returns `None` if the bridge already has the requested content.
    /// A new bridge continues from `last_revision`, which deleted bridges with its id had.
    ///
    /// # Errors
    /// [`Error::RevisionChanged`], [`Error::EntityMoveNotAllowed`], and [`Error::InvalidRequest`] if a
    /// total or the document would become too large, if the bridge would move to DELETED, or if
    /// neither the request nor a machine names the state of a new bridge.
    pub fn after(
        current: Option<&Bridge>,
        last_revision: i64,
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
        // now() is the start of the transaction, which may be before the previous change.
        let now = current.map_or(now, |bridge| now.max(bridge.updated_at));
        let found = find_move(current, change, machine)?;
        let mut next = match current {
            Some(bridge) => bridge.clone(),
            None => Bridge {
                revision: last_revision,
                ..Bridge::blank(change.bridge_id, namespace, now)
            },
        };
        next.change_totals(change, now)?;
        next.change_metadata(change)?;
        if let Some(consumption) = change.consumes() {
            next.consume(consumption.through, change.request_digest);
        }
        let transition = found.map(|(event, to_state)| {
            let from_state = current.map(|bridge| bridge.current_fsm_state.clone());
            next.move_to(change, from_state, to_state, event, now)
        });
        let is_batch = matches!(change.totals, Totals::Batch { .. });
        let stays = transition.is_none() && !is_batch;
        if stays && current.is_some_and(|current| current.has_content_of(&next)) {
            return Ok(None);
        }
        next.revision += 1;
        next.updated_at = now;
        next.request_digest = Some(change.request_digest);
        Ok(Some((next, transition)))
    }

    /// Returns a new bridge without content.
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
            consumed_xid: None,
            consumed_seq: None,
            consumed_transition_id: None,
            consumed_digest: None,
        }
    }

    /// Moves the bridge, and returns the row for the journal.
    fn move_to(
        &mut self,
        change: &BridgeChange,
        from_state: Option<String>,
        to_state: String,
        event: String,
        now: DateTime<Utc>,
    ) -> Transition {
        self.current_fsm_state.clone_from(&to_state);
        Transition {
            id: change.transition_id,
            entity_id: self.bridge_id.0,
            entity_type: ENTITY_TYPE.to_owned(),
            from_state,
            to_state,
            transition_event: event,
            transition_data: JsonObject::default(),
            created_at: now,
            namespace: self.namespace.clone(),
            request_digest: Some(change.request_digest),
            // The store sets these.
            token_id: None,
            xid: Xid::default(),
            seq: 0,
        }
    }

    fn change_totals(&mut self, change: &BridgeChange, now: DateTime<Utc>) -> Result<()> {
        let before = (self.total_workflows_processed, self.total_items_aggregated);
        let given = match &change.totals {
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
                workflows,
                items,
                consumes,
                ..
            } => {
                self.total_workflows_processed = add("workflows_processed", before.0, *workflows)?;
                self.total_items_aggregated = add("items_aggregated", before.1, *items)?;
                // Rows without content for the bridge are no aggregation.
                (consumes.is_none() || change.metadata.is_some()).then_some(now)
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
                merged.map_err(|error| Error::invalid_field("aggregation_metadata", error))?;
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

/// Returns the event and the target state of the move; `None` if the bridge stays. Without an
/// event, a request for the current state is no move. With an event, it is one like any other.
fn find_move(
    current: Option<&Bridge>,
    change: &BridgeChange,
    machine: Option<&Machine>,
) -> Result<Option<(String, String)>> {
    let wanted = WantedMove {
        entity_type: ENTITY_TYPE,
        entity_id: change.bridge_id.0,
        current: current.map(|bridge| bridge.current_fsm_state.as_str()),
        event: change.transition_event.as_deref(),
        to: change.to_state.as_deref(),
        to_field: "current_fsm_state",
    };
    let stays = wanted.to.is_none() || wanted.to == wanted.current;
    if wanted.current.is_some() && wanted.event.is_none() && stays {
        return Ok(None);
    }
    let (event, to_state) = wanted.find(machine)?;
    if to_state == DELETED {
        let rule = "must not lead to DELETED, which the journal has for a deleted bridge";
        return Err(Error::invalid_field("current_fsm_state", rule));
    }
    Ok(Some((event, to_state)))
}

fn add(field: &str, total: i64, delta: i64) -> Result<i64> {
    total.checked_add(delta).ok_or_else(|| {
        let max = i64::MAX;
        let rule = format!("must not make the total exceed {max}: {total} + {delta}");
        Error::invalid_field(field, rule)
    })
}
