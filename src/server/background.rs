//! What goes on beside the calls.

use crate::{
    config::Config,
    db::Database,
    ops::{metrics::Metrics, retention::pruner, sampler, sweeper},
    rpc::{
        auth::token_cache::TokenCache,
        health::{self, Health},
    },
};

/// All of it, for ever. `newest` is the migration that the schema has to have.
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
    let figures = async {
        if config.metrics_listen.is_some() {
            sampler::sample(database, metrics).await;
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
        figures,
    );
}
