//! Does everything to the service that production may do, and then looks whether
//! anything is lost, or there twice.
//!
//!     cargo run --release --example chaos -- --seconds 120
//!
//! It starts a PostgreSQL of its own and the service as a process of its own. Callers
//! write with every RPC that writes, each call with the same ids until it is
//! acknowledged. Meanwhile the service and PostgreSQL are killed every few seconds, single
//! backends are ended, and connections are cut, before the request has gone through and
//! after the commit, when the answer is on its way. In the end what was acknowledged is
//! compared with the tables and the journal. Exit status 1: something is not as it must be.

mod caller;
mod compare;
mod faults;
mod ledger;
mod process;
mod proxy;
mod requests;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use futures_util::future::join_all;

use self::{caller::Caller, faults::Faults, ledger::Ledger, process::World};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Kills, cuts and counts.
#[derive(Debug, Parser)]
struct Arguments {
    /// For how long faults are made, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many callers write at a time.
    #[arg(long, default_value_t = 32)]
    callers: usize,
    /// Chooses the faults; the same seed chooses the same ones. Default: another each time.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    // The service is this very program, so that it is what was built with it.
    if std::env::args_os().nth(1).is_some_and(|it| it == "serve") {
        return process::serve().await;
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
    println!(
        "{} callers, faults for {} s, seed {seed}",
        arguments.callers, arguments.seconds
    );
    let mut world = World::start().await?;
    let recoveries = faults::Recoveries::default();
    let stop = Arc::new(AtomicBool::new(false));
    let shared = requests::Shared::new();
    let callers = (0..arguments.callers)
        .map(|number| Caller::new(number, &world, &shared, recoveries.clone(), stop.clone()));
    let callers: Result<Vec<_>> = callers.collect();
    let mut faults = Faults::new(seed, recoveries.clone());
    let faulty = async {
        let time = Duration::from_secs(arguments.seconds);
        let made = faults.make(&mut world, time).await;
        stop.store(true, Ordering::Relaxed);
        made
    };
    let (ledgers, made) = tokio::join!(join_all(callers?.into_iter().map(Caller::run)), faulty);
    made?;
    let mut ledger = Ledger::default();
    ledgers.into_iter().for_each(|it| ledger.add(it));
    print!("{ledger}{faults}{recoveries}");
    let verdict = compare::compare(&world.database_url(), &ledger).await?;
    world.stop().await?;
    print!("{verdict}");
    Ok(verdict.is_good())
}
