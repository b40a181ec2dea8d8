//! The background tasks: health, sweeper, retention, token cache, sampler.

use crate::{
    config::Config,
    db::Database,
    ops::{metrics::Metrics, retention::pruner, sampler, sweeper},
    rpc::{
        auth::token_cache::TokenCache,
        health::{self, Health},
    },
    util::panics::keep_running,
};

/// Runs all background tasks. Never returns. A task that panics starts again. `newest` is the
/// migration that the schema must have.
pub(super) async fn run(
    config: &Config,
    database: &Database,
    url: &str,
    newest: String,
    health: Health,
    token_cache: Option<TokenCache>,
    metrics: &Metrics,
) {
    let panics = metrics.panics();
    let poll_health = async || {
        // After a panic nothing is known until the next poll.
        health.set(false);
        let (health, database) = (health.clone(), database.clone());
        health::poll_database(health, database, url.to_owned(), newest.clone()).await;
    };
    let sweep = || sweeper::run(database.clone(), config.sweep_interval, config.sweep_grace);
    let prune = || {
        let (defaults, interval) = (config.retention, config.prune_interval);
        pruner::run(database.clone(), defaults, interval, metrics)
    };
    let refresh_tokens = async || {
        if let Some(token_cache) = &token_cache {
            token_cache.run().await;
        }
    };
    let sample = async || {
        if config.metrics_listen.is_some() {
            sampler::run(database, metrics).await;
        }
    };
    tokio::join!(
        keep_running("health", panics, poll_health),
        keep_running("sweeper", panics, sweep),
        keep_running("pruner", panics, prune),
        keep_running("token cache", panics, refresh_tokens),
        keep_running("sampler", panics, sample),
    );
}
