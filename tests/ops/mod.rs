//! Logs, metrics, traces and retention.

mod hostile;
mod logs;
mod metrics;
mod retention;
mod traces;
