//! Compares two services on one database: two builds, or two configurations of one build.
//!
//! The measurements alternate, so that noise of the machine and growth of the tables affect
//! both services alike.

use std::{ffi::OsStr, path::Path, sync::Arc, time::Duration};

use crate::{
    Result,
    load::{self, Call},
    measured::Measured,
    options::Options,
    scenario::Scenario,
    service::Service,
    stage::{SERVED, Stage},
};

/// One of the two services.
pub struct Side {
    /// The label in the progress output.
    pub name: &'static str,
    /// The running service.
    pub service: Service,
    /// The credential that callers send, if the service requires tokens.
    pub credential: Option<String>,
}

/// The two services.
pub struct Pair {
    /// The service whose cost is of interest.
    pub candidate: Side,
    /// The service that it is compared with.
    pub baseline: Side,
}

/// The rounds of one RPC with one number of callers.
pub struct PairRounds {
    /// The title in the table.
    pub title: &'static str,
    /// What the rates count.
    pub unit: &'static str,
    /// The number of concurrent callers.
    pub callers: usize,
    /// The rounds of the candidate.
    pub candidate: Vec<Round>,
    /// The rounds of the baseline.
    pub baseline: Vec<Round>,
}

/// One measurement of one service.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// The rate and the latencies that the callers saw.
    pub measured: Measured,
    /// The server's CPU time per call, or per row if a call has several. It shows small
    /// differences better than the rate, which depends on everything else on the machine.
    pub cpu_time: Duration,
}

impl Pair {
    /// Starts this build and the build at `program` on the same database, with default
    /// settings.
    pub async fn of_builds(stage: &Stage, program: &Path) -> Result<Self> {
        let url = stage.url(SERVED);
        let database: [&OsStr; 2] = ["--database-url".as_ref(), url.as_ref()];
        let side = |name, service| Side {
            name,
            service,
            credential: None,
        };
        Ok(Pair {
            candidate: side("new", Service::start(&database).await?),
            baseline: side("old", Service::start_program(program, &database).await?),
        })
    }

    /// Measures a scenario with each number of callers, in alternating order.
    pub async fn measure<S: Scenario>(
        &self,
        scenario: S,
        callers: &[usize],
        stage: &Stage,
        options: &Options,
    ) -> Result<Vec<PairRounds>> {
        let scenario = Arc::new(scenario);
        scenario.prepare(stage, SERVED).await?;
        stage.vacuum().await?;
        let rounds_of = |callers: &usize| PairRounds {
            title: S::TITLE,
            unit: S::UNIT,
            callers: *callers,
            candidate: Vec::new(),
            baseline: Vec::new(),
        };
        let mut all: Vec<_> = callers.iter().map(rounds_of).collect();
        for round in 1..=options.rounds {
            eprintln!("{}, round {round} of {}", S::TITLE, options.rounds);
            for rounds in &mut all {
                // Each service goes first in every other round.
                for is_candidate in [round % 2 != 0, round % 2 == 0] {
                    let (side, list) = match is_candidate {
                        true => (&self.candidate, &mut rounds.candidate),
                        false => (&self.baseline, &mut rounds.baseline),
                    };
                    list.push(
                        side.measure(&scenario, rounds.callers, stage, options)
                            .await?,
                    );
                }
            }
        }
        Ok(all)
    }

    /// Stops both services.
    pub async fn stop(self) -> Result<()> {
        self.candidate.service.stop().await?;
        self.baseline.service.stop().await
    }
}

impl Side {
    async fn measure<S: Scenario>(
        &self,
        scenario: &Arc<S>,
        callers: usize,
        stage: &Stage,
        options: &Options,
    ) -> Result<Round> {
        scenario.before(stage, SERVED).await?;
        stage.checkpoint().await?;
        let round = self.load(scenario, callers, options).await?;
        scenario.after(stage, SERVED).await?;
        eprintln!(
            "  {:>7} {callers:>3}: {:>8.0} {}/s",
            self.name,
            round.measured.per_second,
            S::UNIT
        );
        Ok(round)
    }

    async fn load<C: Call>(
        &self,
        scenario: &Arc<C>,
        callers: usize,
        options: &Options,
    ) -> Result<Round> {
        let target = load::Target {
            address: self.service.address,
            credential: self.credential.clone(),
        };
        let window = options.window();
        let before = self.service.cpu_time().unwrap_or_default();
        let measured = load::measure(scenario, &target, callers, window).await?;
        let after = self.service.cpu_time().unwrap_or_default();
        let calls = measured.per_second * (window.warm_up + window.counted).as_secs_f64();
        Ok(Round {
            measured,
            cpu_time: (after - before).div_f64(calls),
        })
    }
}
