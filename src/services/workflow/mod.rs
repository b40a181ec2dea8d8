//! Workflow runs, their steps, and the stamps they put on files.

mod convert;
pub mod model;
pub mod service;
mod store;
