//! The bridge nodes of examples/, run as processes.

mod orchestrator;
mod reducer;
mod registry_node;
mod retries;
mod tour;
