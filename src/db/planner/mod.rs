//! Query planning: the session settings and SQL forms that steer PostgreSQL's planner.
//!
//! A statement has to stay fast with any size of its tables, with outdated statistics,
//! and with any data of other tenants. PostgreSQL has no hints, so the
//! service uses session settings and forms of SQL that leave the planner one good plan.
//! Each has a name here. `tests/db/plans` explains every statement of [`statements`].
//!
//! # Session settings
//!
//! Connections for batches ([`BATCH_SETTINGS`]) run statements over arrays of items that
//! look rows up by key. The planner does not know how many items an array will have. By
//! default it makes a new plan for every execution, which costs more than the work itself.
//! With `force_generic_plan` it keeps one plan per connection. A plan that was made while a
//! table was small may read the whole table, so sequential scans, hash joins and merge
//! joins are off. A plan may also read the whole of a wrong index. Two things prevent that:
//! connections discard their plans after [`PLAN_LIFETIME`], and the forms below leave the
//! planner no choice of index.
//!
//! Connections for queries ([`QUERY_SETTINGS`]) run lists and statistics for one caller.
//! The best index depends on the filters, so these are planned for their actual values. A
//! generic plan would read all transitions of an entity for each page, because most entities
//! have few. Sequential scans are off here, too: if one workflow of any tenant has most of the
//! steps, the planner expects as many of every workflow, and would read the whole table for
//! each. Reports for operators that count whole tables turn them on ([`READ_WHOLE_TABLES`]).
//! The settings also bound how long PostgreSQL works for a caller that is gone.
//!
//! Just-in-time compilation is off. PostgreSQL starts it by the estimated cost, which other
//! tenants' rows raise, and it takes longer than these statements.
//!
//! Timeouts of connections for batches ([`BatchTimeouts`]) keep one locked row, or one slow
//! item, from holding up the other items of its batch: the batch fails and is taken apart.
//!
//! # SQL forms
//!
//! | form | default plan | effect of the form |
//! |---|---|---|
//! | `lateral!`, `lookup!` and their `left_` variants | The planner may flatten a join and read the joined table by any index. | `LATERAL` with a limit or a lock is evaluated once per item, by the index that serves its condition. |
//! | `unindexed_eq!`, `same_namespace!` | Without statistics, an index that begins with the namespace looks as selective as the primary key, but each lookup then reads all rows of the tenant. | No index serves `IS NOT DISTINCT FROM`, so it only filters what the key finds. |
//! | `in_set!` | `IN (SELECT …)` becomes a join. Hash joins are off, so this is a nested loop, with quadratic cost. | `IS TRUE` keeps it a hashed subplan: one hash table, one probe per item. |
//! | `row_exists!` | `EXISTS` becomes a semi-join, which may read the whole table. | A scalar subquery is evaluated once per item, by key. |
//! | `ordered_eq!`, [`any_namespace`] | `column = value` drops the column from the sort order. Any index on the rest of the order then looks suitable, and the scan walks over rows of other values until it meets enough of the right one. | With `= ANY` the column stays in the order, which only an index that begins with the column provides. |
//! | `left_neighbour!` | To find the last row of a group, another index that ends in the time looks as good. It leads over the rows of other groups. | The row with the next key is read, and compared afterwards. Only the index on the whole order provides it without a sort. |
//! | `byte_order!` | An index on (namespace, created_at), which pruning needs, looks as selective as the primary key to lookups. | The index has the collation "C", which `namespace = …` does not match. Only statements that name the collation use it. |
//!
//! A list that filters by one state compares with `=`, not with `= ANY`: then the index on
//! state and time also provides the order by time.
//!
//! # Static SQL
//!
//! Statements are declared by the macros of [`super::batch::statement`]. Their SQL is static,
//! so each connection prepares them once. Diesel prepares `sql_query`, expressions with bare
//! SQL, and inserts of several rows again at every call.

mod registry;
mod sql;

use std::time::Duration;

pub use registry::{Statement, statements};
pub(crate) use registry::{raw_statement, register};
pub(crate) use sql::{
    byte_order, in_set, lateral, left_lateral, left_lookup, left_neighbour, lookup, ordered_eq,
    row_exists, same_namespace, unindexed_eq,
};

use crate::domain::namespace::Namespace;

/// The settings of connections for batches: generic plans that use indexes only.
pub const BATCH_SETTINGS: &str = "SET plan_cache_mode = force_generic_plan;
     SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
     SET jit = off";

/// How long the statements of a batch may wait for locks, and how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchTimeouts {
    /// For a whole batch. Statements hold locks for milliseconds, and the largest batch takes
    /// a second or two.
    Whole,
    /// For a part of a batch that timed out as a whole. A batch is halved up to ten times until
    /// the item at fault is alone, and the other items wait for all of these tries.
    Part,
    /// For a single item of a batch that timed out. Other items wait for it as for a part, but
    /// its own work may take as long as that of a whole batch.
    Item,
}

impl BatchTimeouts {
    /// Returns the settings of the session.
    #[must_use]
    pub fn settings(self) -> &'static str {
        match self {
            BatchTimeouts::Whole => "SET lock_timeout = '2s'; SET statement_timeout = '8s'",
            BatchTimeouts::Part => "SET lock_timeout = '200ms'; SET statement_timeout = '1s'",
            BatchTimeouts::Item => "SET lock_timeout = '200ms'; SET statement_timeout = '8s'",
        }
    }
}

/// How long a connection for batches keeps its plans. Planning all its statements again
/// takes milliseconds.
pub const PLAN_LIFETIME: Duration = Duration::from_secs(10);

/// The settings of connections for queries: plans for the actual values that use indexes, at
/// most 60 s for a statement and 2 s for a lock, and a check every 2 s of whether the service is still
/// connected.
pub const QUERY_SETTINGS: &str = "SET plan_cache_mode = force_custom_plan;
     SET enable_seqscan = off; SET jit = off;
     SET statement_timeout = '60s'; SET lock_timeout = '2s';
     SET client_connection_check_interval = '2s'";

/// Lifts the timeouts that the role or the database gives to a session, for work that takes as long as the
/// tables are large: migrations, and copies. Only PostgreSQL 17 has `transaction_timeout`.
pub const NO_TIMEOUTS: &str = "SELECT set_config(name, '0', false) FROM pg_settings
     WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout',
                    'idle_session_timeout', 'idle_in_transaction_session_timeout')";

/// Lets the statements of a transaction read whole tables, in the order of their pages. For
/// reports that count all rows.
pub const READ_WHOLE_TABLES: &str = "SET LOCAL enable_seqscan = on";

/// Returns the namespace of a list for `eq_any`, so that it stays in the sort order.
#[must_use]
pub fn any_namespace(namespace: &Namespace) -> [&Namespace; 1] {
    [namespace]
}
