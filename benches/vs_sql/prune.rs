//! Measures what pruning costs callers.
//!
//! The baseline is bridgebook without retention, on the same database with the same old rows.
//! Both are measured in turns until all old rows are gone or all rounds are done.

use std::{ffi::OsStr, sync::Arc};

use crate::{
    Result,
    load::{self, Call},
    measured::Measured,
    options::Options,
    scenario::{Scenario, Sides},
    scenarios::{ALL_ENTITIES, Record, Start},
    service::Service,
    stage::{SERVED, Stage},
};

/// The number of concurrent callers.
const CALLERS: usize = 64;

/// Prunes these rows, with the shortest interval.
const PRUNING: [&str; 4] = ["--retain-transitions", "10", "--prune-interval", "1"];

/// The rounds of one RPC.
pub struct Pruned {
    /// The title in the table.
    pub title: &'static str,
    /// The rounds with pruning.
    pub with: Vec<Measured>,
    /// The rounds without pruning.
    pub without: Vec<Measured>,
    /// The number of rows pruned during the rounds.
    pub removed: u64,
}

/// Measures both in turns.
pub async fn measure_prune(sides: &Sides<'_>, options: &Options) -> Result<Vec<Pruned>> {
    Ok(vec![
        measure(Start::<1>::new(), sides, options).await?,
        measure(Record::<ALL_ENTITIES>::default(), sides, options).await?,
    ])
}

async fn measure<S: Scenario>(scenario: S, sides: &Sides<'_>, options: &Options) -> Result<Pruned> {
    let scenario = Arc::new(scenario);
    scenario.prepare(sides.stage, SERVED).await?;
    fill(sides.stage, options.old_rows).await?;
    sides.stage.vacuum().await?;
    let mut pruned = Pruned {
        title: S::TITLE,
        with: Vec::new(),
        without: Vec::new(),
        removed: 0,
    };
    for round in 1..=options.rounds {
        eprintln!(
            "{} while rows are pruned, round {round} of {}",
            S::TITLE,
            options.rounds
        );
        // Each service goes first in every other round.
        for prunes in [round % 2 == 0, round % 2 != 0] {
            scenario.before(sides.stage, SERVED).await?;
            let before = old_rows(sides.stage).await?;
            if before == 0 {
                return Ok(pruned);
            }
            let measured = measure_one(&scenario, sides, options, prunes).await?;
            scenario.after(sides.stage, SERVED).await?;
            let removed = before - old_rows(sides.stage).await?;
            eprintln!("  p99 {:?}, {removed} rows pruned", measured.p99);
            match prunes {
                true => pruned.with.push(measured),
                false => pruned.without.push(measured),
            }
            pruned.removed += removed;
        }
    }
    Ok(pruned)
}

async fn measure_one<C: Call>(
    scenario: &Arc<C>,
    sides: &Sides<'_>,
    options: &Options,
    prunes: bool,
) -> Result<Measured> {
    let url = sides.stage.url(SERVED);
    let mut arguments: Vec<&OsStr> = vec!["--database-url".as_ref(), url.as_ref()];
    if prunes {
        arguments.extend(PRUNING.map(OsStr::new));
    }
    let service = Service::start(&arguments).await?;
    sides.stage.checkpoint().await?;
    let target = service.address.into();
    let measured = load::measure(scenario, &target, CALLERS, options.window()).await?;
    service.stop().await?;
    Ok(measured)
}

/// Adds rows until `wanted` are past their retention, in 20 namespaces with 5 entity types each.
async fn fill(stage: &Stage, wanted: u64) -> Result<()> {
    let missing = wanted.saturating_sub(old_rows(stage).await?);
    let fill = format!(
        "INSERT INTO fsm_transitions
             (id, namespace, entity_id, entity_type, to_state, transition_event, created_at)
         SELECT gen_random_uuid(), 'tenant-' || number % 20, gen_random_uuid(),
                'type-' || number % 5, 'OPEN', 'turn',
                now() - INTERVAL '20 days' + number * INTERVAL '1 millisecond'
           FROM generate_series(1, {missing}) AS number"
    );
    stage.execute(SERVED, &fill).await
}

async fn old_rows(stage: &Stage) -> Result<u64> {
    let count = "SELECT count(*) AS number FROM fsm_transitions
                  WHERE created_at < now() - INTERVAL '10 days'";
    stage.number(SERVED, count).await
}
