//! Injects faults into the service and then checks that no write was lost or duplicated.
//!
//!     cargo run --release --example chaos -- --seconds 120
//!     cargo run --release --example chaos -- --kills 100    # takes about 7 minutes
//!
//! It starts its own PostgreSQL, and the service as a separate process. Callers use every RPC
//! that writes, and retry each call with the same ids until it is acknowledged. Meanwhile the
//! service and PostgreSQL are killed every few seconds, single backends are terminated, and
//! connections are cut: before a request arrives, or after the commit, so that the response is
//! lost. At the end the acknowledged writes are compared with the tables and the journal.
//!
//! Readers follow the journal meanwhile, see [`readers`]. What each of them has read is compared with
//! the journal of the database.
//!
//! Exit status 1: a write was lost, duplicated or refused; a reader missed, repeated or miscounted a
//! row; or the service exited without being killed. In the latter case the run ends at once and prints
//! the last lines of its log.

mod caller;
mod compare;
mod environment;
mod faults;
mod ledger;
mod proxy;
mod readers;
mod requests;
mod service;
mod verdict;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Parser;
use futures_util::future::join_all;

use self::{
    caller::Caller,
    environment::Environment,
    faults::{Faults, Limit},
    ledger::Ledger,
    readers::Readers,
    requests::{NAMESPACES, Tenant},
    verdict::Verdict,
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Checks that faults neither lose nor duplicate acknowledged writes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Maximum duration of the fault injection, in seconds. Default: 60; with --kills, no limit.
    #[arg(long)]
    seconds: Option<u64>,
    /// Number of kills of the service or PostgreSQL after which the fault injection ends. Default: no
    /// limit.
    #[arg(long)]
    kills: Option<usize>,
    /// Number of concurrent callers.
    #[arg(long, default_value_t = 32)]
    callers: usize,
    /// Seed of the faults; the same seed chooses the same faults. Default: random.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // This program is also the service, so that both are from the same build.
    if std::env::args_os().nth(1).is_some_and(|it| it == "serve") {
        return environment::serve().await;
    }
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<bool> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let limit = Limit::new(arguments.seconds, arguments.kills);
    println!("{} callers, {limit}, seed {seed}", arguments.callers);
    let mut environment = Environment::start().await?;
    let recoveries = faults::Recoveries::default();
    let stop = Arc::new(AtomicBool::new(false));
    let tenants = NAMESPACES.map(Tenant::new);
    let callers = (0..arguments.callers).zip(tenants.iter().cycle());
    let callers = callers.map(|(number, tenant)| {
        Caller::new(
            number,
            &environment,
            tenant,
            recoveries.clone(),
            stop.clone(),
        )
    });
    let callers: Result<Vec<_>> = callers.collect();
    let readers = Readers::start(&environment.front.address.to_string()).await?;
    let mut faults = Faults::new(seed, recoveries.clone(), readers.victims());
    // Never completes without an error: the service must not exit while callers write.
    let failure = async {
        if let Err(error) = faults.inject(&mut environment, limit).await {
            return error;
        }
        stop.store(true, Ordering::Relaxed);
        environment.unexpected_exit().await
    };
    let ledgers = tokio::select! {
        ledgers = join_all(callers?.into_iter().map(Caller::run)) => ledgers,
        error = failure => return Err(error),
    };
    let mut ledger = Ledger::default();
    ledgers.into_iter().for_each(|it| ledger.add(it));
    print!("{ledger}{faults}{recoveries}");
    let url = environment.database_url();
    let mut verdict = Verdict::default();
    let accounts = tokio::select! {
        accounts = readers.finish(&url, &mut verdict) => accounts?,
        error = environment.unexpected_exit() => return Err(error),
    };
    compare::compare(&url, &ledger, &mut verdict).await?;
    environment.stop().await?;
    print!("{accounts}{verdict}");
    Ok(verdict.is_clean())
}
