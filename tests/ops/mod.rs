//! Logs, metrics, traces and retention.

mod logs;
mod metrics;
mod retention;
mod traces;
