//! All tests of bridgebook in one binary. They go through the gRPC client
//! against the production router on a real PostgreSQL, which the support code
//! starts; each test has a schema of its own and they all run in parallel.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that fails is a test that panics"
)]

mod admin;
mod auth;
mod bridge_state;
mod cli;
mod db;
mod embedded;
mod examples;
mod fsm;
mod house;
mod ops;
mod registry;
mod rpc;
mod samples;
mod server;
mod server_info;
mod support;
mod workflow;
