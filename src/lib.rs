//! bridgebook: the book of record for bridge nodes, a gRPC service on PostgreSQL.
//!
//! The groups follow from the top of the call graph to the bottom; the test `house` checks what each
//! may import. A call enters through [`rpc`], one of [`services`] handles it, and [`db`] runs
//! its statements. To learn one service, read for instance `services::workflow` in the order `model`,
//! `convert`, `store`, `service`. docs/ARCHITECTURE.md follows one request through all groups.

/// The command line: `bridgebook serve`, `migrate`, `token`, `database`, `prune`, `quota`, `fsm`, `health`.
pub mod cli;

/// The composition root: startup, background tasks and shutdown.
pub mod server;

/// The settings of `serve`: flags, environment variables, and checks across fields.
pub mod config;

/// The private PostgreSQL that `serve` runs if no database URL is given.
pub mod embedded;

/// The Rust client, with retries.
pub mod client;

/// The gRPC services, one module each: workflow, fsm, bridge_state, registry, admin, server_info.
pub mod services;

/// The edge: sockets, the layers around a call, authentication, limits, validation, statuses.
pub mod rpc;

/// Operations beside the calls: metrics, traces, logs, retention, the sweeper.
pub mod ops;

/// Access to PostgreSQL: pools, the batch writer, retries, migrations, the schema.
pub mod db;

/// Values and rules that all groups share, without I/O.
pub mod domain;

/// The compiled contract of `proto/`.
pub mod proto;

/// Small utilities that know nothing of the service.
pub mod util;
