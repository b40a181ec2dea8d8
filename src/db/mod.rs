//! The door to PostgreSQL: the pool, the batch writer, retries, migrations.

pub mod absence;
pub mod append;
pub mod batch;
pub mod decide;
mod error;
mod lease;
mod link;
pub mod migrations;
mod pool;
pub mod pooler;
pub mod retry;
pub mod rounds;
#[rustfmt::skip]
#[expect(missing_docs, reason = "generated; the comments are the database's own")]
pub mod schema;
mod shares;
pub mod statement;
mod watcher;

pub use error::{DbError, RETRY_CAUSES};
pub use link::connect;
pub use pool::{Database, Query};
