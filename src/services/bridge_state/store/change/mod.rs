//! Changes of bridges, as [optimistic](crate::db::batch::optimistic) batches.
//!
//! Setting totals and adding batches are one operation, because both change the same rows.
//! So the changes of a bridge apply in the order of their arrival.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use crate::{
    db::{
        DbError,
        batch::{
            Answers, Operation,
            optimistic::{FirstItems, OptimisticWrite, Written, run_optimistic},
            rounds::in_lock_order,
            statement::index_of,
        },
        journal::{Positions, Transition, Xid, by_id},
    },
    domain::{
        digest::RequestDigest,
        error::{Error, Resource, Result},
        id::{BatchId, BridgeId},
        namespace::Scoped,
        page::PageRow,
        position::Position,
    },
    services::{
        bridge_state::model::{Bridge, BridgeChange, Changed, ENTITY_TYPE, JournalEnd, Totals},
        fsm::{model::Machine, store::Machines},
    },
};

mod statement;

use statement::{ReadBridges, WriteBridges};

/// Changes bridges. Idempotent by batch_id.
pub struct ChangeBridges;

impl Operation for ChangeBridges {
    const NAME: &'static str = "ChangeBridges";

    const READS_DOCUMENTS: bool = true;

    type Item = Scoped<BridgeChange>;
    type Answer = Changed;
    type Key = BridgeId;

    fn key(item: &Self::Item) -> BridgeId {
        item.bridge_id
    }

    fn tenant(item: &Self::Item) -> &str {
        item.namespace.as_str()
    }

    fn journal(item: &Self::Item) -> Option<&str> {
        Some(item.namespace.as_str())
    }

    fn document_bytes(item: &Self::Item) -> usize {
        item.metadata
            .as_ref()
            .map_or(0, |(_, metadata)| metadata.wire_len())
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        run_optimistic::<Changes>(connection, items)
    }

    fn bytes_read(changed: &Changed) -> usize {
        changed.bridge.size()
    }
}

/// The state of a batch.
#[derive(Default)]
struct Changes<'a> {
    now: DateTime<Utc>,
    first: FirstItems,
    /// The bridges after the changes decided so far, with the versions of their rows, `None`
    /// for new bridges.
    bridges: HashMap<BridgeId, (Bridge, Option<i64>)>,
    /// The last revisions of deleted bridges.
    last_revisions: HashMap<(&'a str, BridgeId), i64>,
    /// Bridges of other tenants.
    foreign: HashSet<(&'a str, BridgeId)>,
    machines: Machines,
    /// Batches that were added before, including those decided so far.
    known: HashMap<(BridgeId, BatchId), RequestDigest>,
    /// What the journal has at the ends of consumptions.
    ends: HashMap<(&'a str, Position), JournalEnd>,
    has_new_metadata: HashSet<BridgeId>,
    changes: Vec<(&'a Scoped<BridgeChange>, Option<Transition>)>,
}

type Row = (
    i64,
    DateTime<Utc>,
    bool,
    Option<i64>,
    Option<Bridge>,
    Option<i64>,
    Option<RequestDigest>,
    (Option<Position>, Option<Position>, Xid),
    Option<Machine>,
);

fn size(row: &Row) -> usize {
    let (_, _, _, _, bridge, _, _, _, machine) = row;
    bridge.as_ref().map_or(0, PageRow::size) + machine.as_ref().map_or(0, PageRow::size)
}

impl<'a> OptimisticWrite<'a> for Changes<'a> {
    type Item = Scoped<BridgeChange>;
    type Answer = Changed;
    type Key = BridgeId;

    fn key(item: &Self::Item) -> BridgeId {
        item.bridge_id
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        items: &[&'a Self::Item],
    ) -> QueryResult<Self> {
        let namespaces = items.iter().map(|item| item.namespace.as_str());
        let kinds = namespaces.clone().map(|namespace| (namespace, ENTITY_TYPE));
        let mut seen = HashSet::new();
        let read = ReadBridges {
            namespace: namespaces.collect(),
            entity_type: kinds.clone().map(|kind| kind.1).collect(),
            bridge_id: items.iter().map(|item| item.bridge_id).collect(),
            batch_id: items.iter().map(|item| item.batch_id()).collect(),
            consumed_id: items.iter().map(|item| item.consumed_id()).collect(),
            reads_bridge: items.iter().map(|item| seen.insert(key(item))).collect(),
            reads_machine: Machines::firsts(kinds),
        };
        let rows = read.load_stream::<Row>(connection).await?;
        let (rows, first) = FirstItems::collect(rows, |row| row.0, size).await?;
        let mut batch = Changes {
            first,
            ..Changes::default()
        };
        for row in rows {
            let (ordinality, now, is_taken, version, bridge, last_revision, known, end, machine) =
                row;
            batch.now = now;
            let item = items.get(index_of(ordinality));
            let foreign = item.filter(|_| is_taken && bridge.is_none());
            let foreign = foreign.map(|item| key(item));
            batch.foreign.extend(foreign);
            batch.machines.extend(machine);
            batch
                .bridges
                .extend(bridge.map(|row| (row.bridge_id, (row, version))));
            let last_revision = item
                .zip(last_revision)
                .map(|(item, revision)| (key(item), revision));
            batch.last_revisions.extend(last_revision);
            let known = item
                .zip(known)
                .and_then(|(item, digest)| Some(((item.bridge_id, item.batch_id()?), digest)));
            batch.known.extend(known);
            let end = item.and_then(|item| {
                let key = (item.namespace.as_str(), item.consumes()?.through);
                let (row, floor, horizon) = end;
                let horizon = horizon.0;
                Some((
                    key,
                    JournalEnd {
                        row,
                        floor,
                        horizon,
                    },
                ))
            });
            batch.ends.extend(end);
        }
        Ok(batch)
    }

    fn next_is_read(&mut self) -> bool {
        self.first.take()
    }

    fn decide(&mut self, item: &'a Scoped<BridgeChange>) -> Result<Changed> {
        let changed = self.decide_one(item)?;
        self.first.count(changed.bridge.size());
        Ok(changed)
    }

    async fn write(&self, connection: &mut AsyncPgConnection) -> QueryResult<Written<BridgeId>> {
        if self.changes.is_empty() {
            return Ok(Written::default());
        }
        let rows: Vec<(Option<BridgeId>, Option<Position>)> =
            self.statement().load(connection).await?;
        let (changed, positions): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        let changed: HashSet<BridgeId> = changed.into_iter().flatten().collect();
        let planned = self.changes.iter().map(|(item, _)| item.bridge_id);
        Ok(Written {
            conflicts: planned.filter(|id| !changed.contains(id)).collect(),
            positions: by_id(positions.into_iter().flatten()),
        })
    }

    fn complete(changed: &mut Changed, positions: &Positions) {
        if let Some(transition) = &mut changed.transition {
            transition.complete(positions);
        }
    }
}

impl<'a> Changes<'a> {
    fn decide_one(&mut self, item: &'a Scoped<BridgeChange>) -> Result<Changed> {
        let id = item.bridge_id;
        let stored = self.bridges.get(&id);
        // The bridge was created by this batch, or existed before.
        let is_foreign = match stored {
            Some((bridge, _)) => bridge.namespace != item.namespace.as_str(),
            None => self.foreign.contains(&key(item)),
        };
        if is_foreign {
            return Err(taken(Resource::Bridge, "bridge_id", id.to_string()));
        }
        let current = stored.map(|(bridge, _)| bridge);
        if let Some(batch) = item.batch_id()
            && let Some(digest) = self.known.get(&(id, batch))
        {
            return match current.filter(|_| *digest == item.request_digest) {
                Some(bridge) => Ok(resolve_duplicate(item, bridge)),
                None => Err(taken(Resource::Batch, "batch_id", batch.to_string())),
            };
        }
        if let Some(consumption) = item.consumes() {
            let is_done = |bridge: &&Bridge| consumption.is_done(bridge, item.request_digest);
            if let Some(bridge) = current.filter(is_done) {
                return Ok(unchanged(bridge));
            }
            let namespace = item.namespace.as_str();
            let end = self.ends.get(&(namespace, consumption.through));
            let end = end.copied().unwrap_or_default();
            consumption.check(id, namespace, current, &end)?;
        }
        let machine = self.machines.of(item.namespace.as_str(), ENTITY_TYPE);
        let machine = machine.map(|machine| &**machine);
        let last_revision = self.last_revision(item);
        let namespace = &item.namespace;
        match (
            Bridge::after(current, last_revision, item, machine, namespace, self.now)?,
            current,
        ) {
            (Some((bridge, transition)), _) => Ok(self.note(item, bridge, transition)),
            (None, Some(bridge)) => Ok(unchanged(bridge)),
            // A change without effect needs a bridge that exists.
            (None, None) => Err(Error::Contended),
        }
    }

    /// Returns the last revision of deleted bridges with the id of the item's; 0 if none.
    fn last_revision(&self, item: &Scoped<BridgeChange>) -> i64 {
        let revision = self.last_revisions.get(&key(item));
        revision.copied().unwrap_or_default()
    }

    fn note(
        &mut self,
        item: &'a Scoped<BridgeChange>,
        bridge: Bridge,
        transition: Option<Transition>,
    ) -> Changed {
        let id = item.bridge_id;
        let transition = transition.map(|transition| Transition {
            token_id: item.token_id,
            ..transition
        });
        let version = self.bridges.get(&id).and_then(|(_, version)| *version);
        self.bridges.insert(id, (bridge.clone(), version));
        if let Some(batch) = item.batch_id() {
            self.known.insert((id, batch), item.request_digest);
        }
        if item.metadata.is_some() {
            self.has_new_metadata.insert(id);
        }
        self.changes.push((item, transition.clone()));
        Changed {
            bridge,
            transition,
            applied: true,
        }
    }

    fn statement(&self) -> WriteBridges<'_> {
        let mut write = WriteBridges::default();
        let changes = self.changes.iter().collect();
        let changes = in_lock_order(changes, |(item, _)| item.bridge_id);
        for ((item, transition), is_last) in changes {
            let Some((bridge, version)) = self.bridges.get(&item.bridge_id) else {
                continue;
            };
            write.push_change(item, transition.as_ref());
            write.changed_at.push(bridge.updated_at);
            write.is_last.push(is_last);
            write.version.push(*version);
            write.last_revision.push(self.last_revision(item));
            write
                .total_workflows_processed
                .push(bridge.total_workflows_processed);
            write
                .total_items_aggregated
                .push(bridge.total_items_aggregated);
            let is_new_metadata = is_last && self.has_new_metadata.contains(&item.bridge_id);
            let metadata = is_new_metadata.then_some(&bridge.aggregation_metadata);
            write.aggregation_metadata.push(metadata);
            write.current_fsm_state.push(&bridge.current_fsm_state);
            write
                .last_aggregation_timestamp
                .push(bridge.last_aggregation_timestamp);
            write.revision.push(bridge.revision);
            write.push_consumed(bridge);
            let machine = self.machines.of(item.namespace.as_str(), ENTITY_TYPE);
            write
                .machine_digest
                .push(machine.map(|it| it.definition_digest));
        }
        write.checks_machine = Machines::firsts(
            write
                .namespace
                .iter()
                .map(|namespace| (*namespace, ENTITY_TYPE)),
        );
        write
    }
}

/// Returns the key of the item's bridge, if it belongs to the item's tenant.
fn key(item: &Scoped<BridgeChange>) -> (&str, BridgeId) {
    (item.namespace.as_str(), item.bridge_id)
}

/// Returns the answer to a change that was made before.
fn resolve_duplicate(item: &BridgeChange, bridge: &Bridge) -> Changed {
    Changed {
        // If the service made the id, an earlier try of this very call made the change.
        applied: matches!(item.totals, Totals::Absolute { .. }),
        ..unchanged(bridge)
    }
}

fn unchanged(bridge: &Bridge) -> Changed {
    Changed {
        bridge: bridge.clone(),
        transition: None,
        applied: false,
    }
}

fn taken(resource: Resource, field: &'static str, name: String) -> Error {
    Error::IdConflict {
        resource,
        field,
        name,
    }
}
