//! The service around the RPCs.

mod calls;
mod completeness;
mod embedded;
mod health;
mod isolation;
mod kill;
mod migrations;
mod mutations;
mod orchestrator;
mod outage;
mod plans;
mod reducer;
mod reflection;
mod registry_node;
mod settings;
mod tour;
