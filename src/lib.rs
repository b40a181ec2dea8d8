//! bridgebook: the book of record for bridge nodes.
//!
//! A gRPC service on PostgreSQL. A call comes in through [`rpc`], is served by one of
//! [`services`], and reaches PostgreSQL through [`db`]. Read one service, for instance
//! `services::workflow`, in the order `model`, `convert`, `store`, `service`.
//! docs/ARCHITECTURE.md follows one request through all groups.
//!
//! The groups, from the top of the call graph to the bottom:

/// The command line: `bridgebook serve`, `migrate`, `token`, `prune`, `fsm`, `health`.
pub mod cli;
/// The Rust client, with retries.
pub mod client;
/// The settings of `serve`: flags, environment variables, and checks across fields.
pub mod config;
/// Access to PostgreSQL: pools, the batch writer, retries, migrations, the schema.
pub mod db;
/// Values and rules that all groups share. No I/O.
pub mod domain;
/// The private PostgreSQL that `serve` starts when no database URL is given.
pub mod embedded;
/// What runs beside the calls: metrics, traces, logs, retention, the sweeper.
pub mod ops;
/// The contract in `proto/`, compiled.
pub mod proto;
/// The edge: sockets, the layers around a call, authentication, limits, validation, statuses.
pub mod rpc;
/// The composition root: startup, background tasks and shutdown.
pub mod server;
/// The gRPC services, one module each: workflow, fsm, bridge_state, registry, admin.
pub mod services;
/// Small pieces without knowledge of the service.
pub mod util;
