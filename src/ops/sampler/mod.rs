//! Figures that only the database knows, looked at now and then.

mod store;

use std::time::Duration;

use super::{
    metrics::Metrics,
    sampler::store::{Figures, JOURNAL, STALE},
};
use crate::{
    db::Database, domain::error::Result, services::registry::model::NodeHealth,
    util::error_chain::error_chain,
};

/// How often to look: about as often as Prometheus asks.
const INTERVAL: Duration = Duration::from_secs(15);

/// Looks for ever.
pub async fn sample(database: &Database, metrics: &Metrics) {
    loop {
        if let Err(error) = poll(database, metrics).await {
            // The figures stay as they were, and health says what is the matter.
            tracing::debug!(cause = error_chain(&error), "no figures this time");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn poll(database: &Database, metrics: &Metrics) -> Result<()> {
    let figures = database.run(&Figures).await?;
    let value = |name: &str| {
        let figure = figures.iter().find(|figure| figure.name == name);
        figure.map_or(0, |figure| figure.value)
    };
    metrics.set_journal_position(value(JOURNAL));
    metrics.set_stale_nodes(value(STALE));
    for health in NodeHealth::ALL {
        metrics.set_nodes(health.as_str(), value(health.as_str()));
    }
    Ok(())
}
