//! What runs beside the calls: metrics, traces, logs, retention, the sweeper.

pub mod metrics;
pub mod retention;
pub mod sampler;
pub(crate) mod spans;
pub mod sweeper;
pub mod telemetry;
