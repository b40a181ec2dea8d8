//! What a scenario is, and how one is measured.

use std::{net::SocketAddr, sync::Arc};

use prost::Message;

use crate::{
    Result, load,
    measured::{Measured, Rounds},
    options::Options,
    pgbench::{CONNECTIONS, Pgbench},
    stage::{DIRECT, SERVED, Stage},
};

/// One thing that bridgebook does.
pub trait Call: Send + Sync + 'static {
    /// What is sent.
    type Request: Message;
    /// What comes back.
    type Answer: Message + Default;
    /// The service, with its package.
    const SERVICE: &'static str;
    /// The RPC.
    const METHOD: &'static str;
    /// What the table calls it.
    const TITLE: &'static str;
    /// How many of what is counted a call is worth.
    const ROWS_PER_CALL: u32 = 1;

    /// The next request.
    fn request(&self) -> Self::Request;

    /// Checks that an answer is what it should be.
    fn check(&self, answer: Self::Answer) -> Result<()>;
}

/// A call, and the SQL that does the same.
pub trait Scenario: Call {
    /// The script of pgbench, a file beside this one.
    const SCRIPT: &'static str;
    /// With how many callers it is measured.
    const CALLERS: &'static [usize];
    /// What is counted: a call and a transaction may be worth several.
    const UNIT: &'static str;
    /// How many a transaction of pgbench is worth.
    const ROWS_PER_TRANSACTION: u32 = 1;

    /// Makes the rows that a database has to have for all measurements.
    fn prepare(&self, _: &Stage, _database: &str) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Makes a database ready for one measurement.
    fn before(&self, _: &Stage, _database: &str) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// Checks that the measurement did what it should have done.
    fn after(&self, _: &Stage, _database: &str) -> impl Future<Output = Result<()>> {
        async { Ok(()) }
    }

    /// What the script of pgbench is told, beside the number of its clients.
    fn variables(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// The measurements of one scenario.
pub struct Comparison {
    /// What the table calls it.
    pub title: &'static str,
    /// What was counted.
    pub unit: &'static str,
    /// bridgebook, by callers.
    pub service: Rounds,
    /// pgbench, by connections.
    pub direct: Rounds,
}

/// The two sides.
pub struct Sides<'a> {
    /// What both work on.
    pub stage: &'a Stage,
    /// Where bridgebook listens.
    pub address: SocketAddr,
    /// The peer.
    pub pgbench: Pgbench,
}

/// Measures both sides in turns, a short while each, so that whatever else
/// happens on the machine happens to both.
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
    sides.stage.tidy().await?;
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
    sides.stage.settle().await?;
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
    sides.stage.settle().await?;
    let variables = scenario.variables();
    let rows = S::ROWS_PER_TRANSACTION;
    let pgbench = &sides.pgbench;
    let measured = pgbench
        .measure(S::SCRIPT, &variables, connections, rows, options.window())
        .await?;
    scenario.after(sides.stage, DIRECT).await?;
    Ok(measured)
}
