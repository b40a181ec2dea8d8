//! Figures that only the database knows, looked at now and then.

use std::time::Duration;

use super::{
    Metrics,
    store::{Figures, JOURNAL, STALE},
};
use crate::{
    db::Database,
    error::{Result, chain},
    registry::model::NodeHealth,
};

/// How often to look: about as often as Prometheus asks.
const INTERVAL: Duration = Duration::from_secs(15);

/// Looks for ever.
pub async fn sample(database: &Database, metrics: &Metrics) {
    loop {
        if let Err(error) = look(database, metrics).await {
            // The figures stay as they were, and health says what is the matter.
            tracing::debug!(cause = chain(&error), "no figures this time");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(database: &Database, metrics: &Metrics) -> Result<()> {
    let figures = database.read(&Figures).await?;
    let value = |name: &str| {
        let figure = figures.iter().find(|figure| figure.name == name);
        figure.map_or(0, |figure| figure.value)
    };
    metrics.0.journal_position.set(value(JOURNAL));
    metrics.0.stale_nodes.set(value(STALE));
    for health in NodeHealth::ALL {
        let nodes = metrics.0.nodes.with_label_values(&[health.as_str()]);
        nodes.set(value(health.as_str()));
    }
    Ok(())
}
