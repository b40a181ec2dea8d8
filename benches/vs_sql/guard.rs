//! What it costs to ask callers for tokens, to limit them, and to keep an audit log.
//!
//! The peer is bridgebook itself, on the same database, which asks nobody for a token
//! and has no limits of calls, of their bytes and of their rate. Both go through the
//! same layers, which have nothing to do there.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::{
    Result,
    call::{call, connect, frame},
    load,
    measured::Measured,
    options::Options,
    scenario::{Call, Scenario, Sides},
    scenarios::{Get, Heartbeat, NAMESPACE, Start},
    service::{self, Service},
    stage::SERVED,
};

/// With how many callers it is measured.
const CALLERS: usize = 64;

/// What the guarded one does: it asks for tokens, and counts calls, though so many
/// are let in that none is turned away.
const GUARDED: [&str; 4] = ["--auth", "tokens", "--max-rate", "1000000000"];
const UNGUARDED: [&str; 6] = [
    "--auth",
    "none",
    "--max-requests",
    "0",
    "--max-request-memory",
    "0",
];

/// One that is overloaded as soon as more than a few call at a time.
const OVERLOADED: [&str; 2] = ["--max-requests", "4"];

/// How long callers pause that were turned away: what the service tells them.
const PAUSE: Duration = Duration::from_millis(50);

/// What was found out.
pub struct Guard {
    /// What it costs.
    pub costs: Vec<Guarded>,
    /// How long calls took that were turned away, in order.
    pub refusals: Vec<Duration>,
}

/// The rounds of one RPC.
pub struct Guarded {
    /// What the table calls it.
    pub title: &'static str,
    /// With tokens and limits.
    pub with: Vec<Round>,
    /// Without.
    pub without: Vec<Round>,
}

/// One measurement of one of the two.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// What the callers saw.
    pub measured: Measured,
    /// What a call took of the processor in the server. It tells small costs better
    /// than rates do, which everything else on the machine has a part in.
    pub processor_time: Duration,
}

/// One of the two services.
struct Side {
    service: Service,
    credential: Option<String>,
}

/// Measures both in turns.
pub async fn measure_guard(sides: &Sides<'_>, options: &Options) -> Result<Guard> {
    let url = sides.stage.url(SERVED);
    let database = [OsStr::new("--database-url"), OsStr::new(&url)];
    let credential = service::create_token(&database, NAMESPACE).await?;
    let start = async |arguments: &[&'static str]| {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        Service::start(&[&database[..], &arguments[..]].concat()).await
    };
    let with = Side {
        service: start(&GUARDED).await?,
        credential: Some(credential),
    };
    let without = Side {
        service: start(&UNGUARDED).await?,
        credential: None,
    };
    let costs = vec![
        measure(Start::new(), [&with, &without], sides, options).await?,
        measure(Get::default(), [&with, &without], sides, options).await?,
        measure(Heartbeat::default(), [&with, &without], sides, options).await?,
    ];
    with.service.stop().await?;
    without.service.stop().await?;
    let overloaded = start(&OVERLOADED).await?;
    let refusals = measure_refusals(overloaded.address, options).await?;
    overloaded.stop().await?;
    Ok(Guard { costs, refusals })
}

async fn measure<S: Scenario>(
    scenario: S,
    [with, without]: [&Side; 2],
    sides: &Sides<'_>,
    options: &Options,
) -> Result<Guarded> {
    let scenario = Arc::new(scenario);
    scenario.prepare(sides.stage, SERVED).await?;
    sides.stage.tidy().await?;
    let mut guarded = Guarded {
        title: S::TITLE,
        with: Vec::new(),
        without: Vec::new(),
    };
    for round in 1..=options.rounds {
        eprintln!("{}, round {round} of {}", S::TITLE, options.rounds);
        // Now the one goes first, now the other.
        let order = [("with", with), ("without", without)];
        let order = match round % 2 {
            0 => [order[1], order[0]],
            _ => order,
        };
        for (name, side) in order {
            scenario.before(sides.stage, SERVED).await?;
            sides.stage.settle().await?;
            let round_of = load(&scenario, side, options).await?;
            scenario.after(sides.stage, SERVED).await?;
            eprintln!(
                "  {name:>7}: {:>8.0} {}/s",
                round_of.measured.per_second,
                S::UNIT
            );
            match name {
                "with" => guarded.with.push(round_of),
                _ => guarded.without.push(round_of),
            }
        }
    }
    Ok(guarded)
}

async fn load<C: Call>(scenario: &Arc<C>, side: &Side, options: &Options) -> Result<Round> {
    let target = load::Target {
        address: side.service.address,
        credential: side.credential.clone(),
    };
    let window = options.window();
    let before = side.service.processor_time().unwrap_or_default();
    let measured = load::measure(scenario, &target, CALLERS, window).await?;
    let after = side.service.processor_time().unwrap_or_default();
    let calls = measured.per_second * (window.warm_up + window.counted).as_secs_f64();
    Ok(Round {
        measured,
        processor_time: (after - before).div_f64(calls),
    })
}

/// Calls an overloaded service, and answers how long it took until calls were turned
/// away. Each caller pauses after that, as callers should.
async fn measure_refusals(address: SocketAddr, options: &Options) -> Result<Vec<Duration>> {
    eprintln!("turning calls away");
    let scenario = Arc::new(Start::new());
    let connection = connect(address).await?;
    let until = Instant::now() + options.window().counted;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (scenario, connection) = (Arc::clone(&scenario), connection.clone());
        let uri: http::Uri =
            format!("http://{address}/{}/{}", Start::SERVICE, Start::METHOD).parse()?;
        callers.spawn(async move {
            let mut refusals = Vec::new();
            while Instant::now() < until {
                let message = frame(&scenario.request())?;
                let begun = Instant::now();
                let Err(error) = call(&connection, uri.clone(), None, message).await else {
                    continue;
                };
                match error.downcast_ref::<Status>().map(Status::code) {
                    Some(Code::ResourceExhausted) => refusals.push(begun.elapsed()),
                    _ => return Err(error),
                }
                tokio::time::sleep(PAUSE).await;
            }
            Ok(refusals)
        });
    }
    let mut refusals = Vec::new();
    while let Some(caller) = callers.join_next().await {
        refusals.extend(caller??);
    }
    refusals.sort_unstable();
    Ok(refusals)
}
