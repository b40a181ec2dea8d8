//! All tests of bridgebook, in one binary. They call the production router through a gRPC
//! client, on a real PostgreSQL that the support code starts. Each test has its own schema,
//! and all tests run in parallel.

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
