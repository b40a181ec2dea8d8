//! The background tasks: load, health, sweeper, retention, token cache, quotas, sampler.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    config::Config,
    db::{Database, DatabaseAddress},
    ops::{retention::pruner, sampler, sweeper},
    rpc::{
        auth::token_cache::TokenCache,
        health::{self, Health},
        quota::Quotas,
        transport::backpressure::Load,
    },
    util::panics::keep_running,
};

/// The interval at which the number of calls in work is adapted to the speed of the service.
const ADAPT_INTERVAL: Duration = Duration::from_millis(100);

/// The background tasks, and all that they use.
pub(super) struct Tasks<'a> {
    pub(super) config: &'a Config,
    pub(super) database: &'a Database,
    pub(super) address: &'a DatabaseAddress,
    /// The migration that the schema must have.
    pub(super) newest: String,
    pub(super) health: Health,
    pub(super) token_cache: Option<TokenCache>,
    pub(super) quotas: Quotas,
    pub(super) load: Arc<Load>,
}

impl Tasks<'_> {
    /// Runs all background tasks. Never returns. A task that panics starts again.
    pub(super) async fn run(self) {
        let Tasks {
            config,
            database,
            address,
            newest,
            health,
            token_cache,
            quotas,
            load,
        } = self;
        let metrics = database.metrics();
        let panics = metrics.panics();
        let poll_health = async || {
            // After a panic nothing is known until the next poll.
            health.set(false);
            let (health, database) = (health.clone(), database.clone());
            health::poll_database(health, database, address.clone(), newest.clone()).await;
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
        // In a box, because it is large, and the other tasks are in the same future.
        let follow = || Box::pin(database.feed().run(address, metrics.feed()));
        let sample = async || {
            if config.metrics_listen.is_some() {
                sampler::run(database, metrics).await;
            }
        };
        let adapt = async || {
            loop {
                sleep(ADAPT_INTERVAL).await;
                load.adapt(database.queue_time().take());
            }
        };
        tokio::join!(
            keep_running("load", panics, adapt),
            keep_running("health", panics, poll_health),
            keep_running("sweeper", panics, sweep),
            keep_running("pruner", panics, prune),
            keep_running("token cache", panics, refresh_tokens),
            keep_running("quotas", panics, || quotas.run()),
            keep_running("sampler", panics, sample),
            keep_running("journal tail", panics, follow),
        );
    }
}
