//! The bridge nodes of examples/, run as processes.

mod journal_reducer;
mod orchestrator;
mod reducer;
mod registry_node;
mod retries;
mod tour;
