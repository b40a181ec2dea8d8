//! bridgebook: the book of record for bridge nodes.
//!
//! A gRPC service on PostgreSQL. Start with `server`, which puts everything
//! together, then read one slice, for instance `workflow`, in the order
//! `model`, `convert`, `store`, `service`. docs/ARCHITECTURE.md follows one
//! request through all of it.

pub mod access;
pub mod admin;
pub mod audit;
pub mod bridge_state;
pub mod cli;
pub mod client;
pub mod codec;
pub mod config;
pub mod db;
pub mod digest;
pub mod embedded;
pub mod error;
pub mod fsm;
pub mod health;
pub mod id;
pub mod items;
pub mod journal;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod namespace;
pub mod page;
pub mod proto;
pub mod recorded;
pub mod registry;
pub mod reload;
pub mod request;
pub mod retention;
pub mod server;
pub mod telemetry;
mod text_enum;
pub mod time;
mod trace;
pub mod transport;
pub mod validate;
pub mod workflow;
