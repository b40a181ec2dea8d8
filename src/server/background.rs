//! The background tasks: health, sweeper, retention, token cache, sampler.

use crate::{
    config::Config,
    db::Database,
    ops::{metrics::Metrics, retention::pruner, sampler, sweeper},
    rpc::{
        auth::token_cache::TokenCache,
        health::{self, Health},
    },
};

/// Runs all background tasks. Never returns. `newest` is the migration that the schema must have.
pub(super) async fn run(
    config: &Config,
    database: &Database,
    url: &str,
    newest: String,
    health: Health,
    token_cache: Option<TokenCache>,
    metrics: &Metrics,
) {
    let tokens = async {
        if let Some(token_cache) = token_cache {
            token_cache.run().await;
        }
    };
    let database_metrics = async {
        if config.metrics_listen.is_some() {
            sampler::run(database, metrics).await;
        }
    };
    tokio::join!(
        health::poll_database(health, database.clone(), url.to_owned(), newest),
        sweeper::run(database.clone(), config.sweep_interval, config.sweep_grace),
        pruner::run(
            database.clone(),
            config.retention,
            config.prune_interval,
            metrics
        ),
        tokens,
        database_metrics,
    );
}
