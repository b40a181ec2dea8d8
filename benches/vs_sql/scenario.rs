//! Defines scenarios, and measures one on both sides.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    Result,
    load::{self, Call},
    measured::Measured,
    options::Options,
    pgbench::{CONNECTIONS, Pgbench},
    rounds::Rounds,
    stage::{DIRECT, SERVED, Stage},
};

/// A call, and the SQL that is equivalent to it.
pub trait Scenario: Call {
    /// The pgbench script, a file in this directory.
    const SCRIPT: &'static str;
    /// The numbers of concurrent callers to measure.
    const CALLERS: &'static [usize];
    /// What the rates count: calls, or rows where a call or a transaction has several.
    const UNIT: &'static str;
    /// How many rows a pgbench transaction counts as.
    const ROWS_PER_TRANSACTION: u32 = 1;

    /// Inserts the rows that all measurements need.
    fn prepare(&self, _: &Stage, _database: &str) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Prepares a database for one measurement.
    fn before(&self, _: &Stage, _database: &str) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Fails unless the measurement had the expected effect.
    fn after(&self, _: &Stage, _database: &str) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Returns the variables of the pgbench script, besides the number of its clients.
    fn variables(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// The measurements of one scenario.
pub struct Comparison {
    /// The title in the table.
    pub title: &'static str,
    /// What the rates count.
    pub unit: &'static str,
    /// bridgebook's rounds, by callers.
    pub service: Rounds,
    /// pgbench's rounds, by connections.
    pub direct: Rounds,
}

/// The two sides.
pub struct Sides<'a> {
    /// The test bed of both.
    pub stage: &'a Stage,
    /// The address of bridgebook.
    pub address: SocketAddr,
    /// The peer.
    pub pgbench: Pgbench,
}

/// Measures both sides in short turns, so that noise of the machine affects both alike.
pub async fn compare<S: Scenario>(
    scenario: S,
    sides: &Sides<'_>,
    options: &Options,
) -> Result<Comparison> {
    let scenario = Arc::new(scenario);
    let mut comparison = Comparison {
        title: S::TITLE,
        unit: S::UNIT,
        service: Rounds::default(),
        direct: Rounds::default(),
    };
    for database in [SERVED, DIRECT] {
        scenario.prepare(sides.stage, database).await?;
    }
    sides.stage.vacuum().await?;
    for round in 1..=options.rounds {
        eprintln!("{}, round {round} of {}", S::TITLE, options.rounds);
        for turn in 0..S::CALLERS.len().max(CONNECTIONS.len()) {
            if let Some(&connections) = CONNECTIONS.get(turn) {
                let measured = measure_direct(&*scenario, sides, connections, options).await?;
                eprintln!(
                    "  pgbench    {connections:>3}: {:>8.0} {}/s",
                    measured.per_second,
                    S::UNIT
                );
                comparison.direct.add(connections, measured);
            }
            if let Some(&callers) = S::CALLERS.get(turn) {
                let measured = measure_service(&scenario, sides, callers, options).await?;
                eprintln!(
                    "  bridgebook {callers:>3}: {:>8.0} {}/s",
                    measured.per_second,
                    S::UNIT
                );
                comparison.service.add(callers, measured);
            }
        }
    }
    Ok(comparison)
}

async fn measure_service<S: Scenario>(
    scenario: &Arc<S>,
    sides: &Sides<'_>,
    callers: usize,
    options: &Options,
) -> Result<Measured> {
    scenario.before(sides.stage, SERVED).await?;
    sides.stage.checkpoint().await?;
    let measured =
        load::measure(scenario, &sides.address.into(), callers, options.window()).await?;
    scenario.after(sides.stage, SERVED).await?;
    Ok(measured)
}

async fn measure_direct<S: Scenario>(
    scenario: &S,
    sides: &Sides<'_>,
    connections: usize,
    options: &Options,
) -> Result<Measured> {
    scenario.before(sides.stage, DIRECT).await?;
    sides.stage.checkpoint().await?;
    let variables = scenario.variables();
    let rows = S::ROWS_PER_TRANSACTION;
    let pgbench = &sides.pgbench;
    let measured = pgbench
        .measure(S::SCRIPT, &variables, connections, rows, options.window())
        .await?;
    scenario.after(sides.stage, DIRECT).await?;
    Ok(measured)
}
