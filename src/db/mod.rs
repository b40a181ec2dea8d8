//! Access to PostgreSQL: pools, the batch writer, retries, migrations, the schema.

pub mod address;
pub mod batch;
pub mod collect_page;
mod connect;
mod connection;
pub mod copy;
mod error;
pub mod feed;
pub mod grants;
mod instrumentation;
pub mod journal;
pub mod journal_cluster;
mod lease;
pub mod migrations;
pub mod outage;
pub mod page_token_key;
pub mod planner;
mod pool;
pub mod pooler_check;
mod query;
pub mod retry;
#[rustfmt::skip]
#[expect(missing_docs, reason = "generated; the comments are the database's own")]
pub mod schema;
mod sql_state;
mod tls;
pub mod turns;
mod unlimited;

pub use address::DatabaseAddress;
pub use connect::{Session, connect};
pub use error::DbError;
pub use pool::Database;
pub use query::{Owner, PageQuery, Query, TenantQuery};
