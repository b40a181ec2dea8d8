//! The sampler: polls metrics that only the database knows.

mod store;

use std::time::Duration;

use super::{
    metrics::Metrics,
    sampler::store::{ConsumerLags, JOURNAL, STALE, Samples},
};
use crate::{
    db::Database,
    domain::error::Result,
    services::registry::{CountPausedFleets, model::NodeHealth},
    util::error_chain::error_chain,
};

/// How often to poll: about as often as Prometheus scrapes.
const INTERVAL: Duration = Duration::from_secs(15);

/// Polls until the task is dropped.
pub async fn run(database: &Database, metrics: &Metrics) {
    loop {
        if let Err(error) = poll(database, metrics).await {
            // The metrics keep their last values. The health check reports the outage.
            tracing::debug!(
                cause = error_chain(&error),
                "sampling failed, metrics keep their last values"
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn poll(database: &Database, metrics: &Metrics) -> Result<()> {
    let samples = database.run(&Samples).await?;
    let value = |name: &str| {
        let sample = samples.iter().find(|sample| sample.name == name);
        sample.map_or(0, |sample| sample.value)
    };
    metrics.set_journal_position(value(JOURNAL));
    metrics.set_stale_nodes(value(STALE));
    for health in NodeHealth::ALL {
        metrics.set_nodes(health.as_str(), value(health.as_str()));
    }
    metrics.set_paused_fleets(database.run(&CountPausedFleets).await?.count);
    metrics
        .consumers()
        .set_lags(database.run(&ConsumerLags).await?);
    Ok(())
}
