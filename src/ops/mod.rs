//! Operations: metrics, traces and logs, and the background tasks beside the calls.

pub mod metrics;
pub mod retention;
pub mod sampler;
pub(crate) mod spans;
pub mod sweeper;
pub mod telemetry;
