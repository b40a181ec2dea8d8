//! Logs, memory, metrics, traces and retention.

mod hostile;
mod journal_floors;
mod logs;
mod memory;
mod metrics;
mod repeated_lines;
mod retention;
mod traces;
mod undeletable_rows;
