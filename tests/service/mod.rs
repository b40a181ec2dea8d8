//! The service around the RPCs.

mod calls;
mod cancellation;
mod chaos;
mod completeness;
mod embedded;
mod failover;
mod foreign_ids;
mod health;
mod isolation;
mod limits;
mod logs;
mod metrics;
mod migrations;
mod mutations;
mod orchestrator;
mod outage;
mod plans;
mod reducer;
mod reflection;
mod registry_node;
mod retention;
mod rolling;
mod settings;
mod strangers;
mod tour;
mod traces;
