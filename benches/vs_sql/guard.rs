//! Measures what authentication, limits and the audit log cost.
//!
//! The baseline is the same build on the same database, without tokens and without limits on
//! calls, their bytes and their rate. Both run the same layers, which do nothing there.

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
    load::Call,
    options::Options,
    pair::{Pair, PairRounds, Side},
    scenarios::{Get, Heartbeat, NAMESPACE, Start},
    service::{self, Service},
    stage::{SERVED, Stage},
};

/// The number of concurrent callers.
pub const CALLERS: usize = 64;

/// Requires tokens and counts calls, with a rate limit so high that no call is rejected.
const GUARDED: [&str; 4] = ["--auth", "tokens", "--max-rate", "1000000000"];
const UNGUARDED: [&str; 6] = [
    "--auth",
    "none",
    "--max-requests",
    "0",
    "--max-request-memory",
    "0",
];

/// The limit on concurrent calls of the overloaded service.
pub const OVERLOAD_LIMIT: &str = "4";

/// How long a rejected caller waits: the retry delay that the service returns.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The results.
pub struct Guard {
    /// The rounds of a few RPCs: guarded is the candidate.
    pub costs: Vec<PairRounds>,
    /// The latencies of rejected calls, in ascending order.
    pub rejections: Vec<Duration>,
}

/// Measures both services in turns, then an overloaded one.
pub async fn measure_guard(stage: &Stage, options: &Options) -> Result<Guard> {
    let url = stage.url(SERVED);
    let database = [OsStr::new("--database-url"), OsStr::new(&url)];
    let credential = service::create_token(&database, NAMESPACE).await?;
    let start = async |arguments: &[&'static str]| {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        Service::start(&[&database[..], &arguments[..]].concat()).await
    };
    let pair = Pair {
        candidate: Side {
            name: "with",
            service: start(&GUARDED).await?,
            credential: Some(credential),
        },
        baseline: Side {
            name: "without",
            service: start(&UNGUARDED).await?,
            credential: None,
        },
    };
    let callers = [CALLERS];
    let mut costs = pair
        .measure(Start::<1>::new(), &callers, stage, options)
        .await?;
    costs.extend(
        pair.measure(Get::default(), &callers, stage, options)
            .await?,
    );
    let heartbeat = Heartbeat::default();
    costs.extend(pair.measure(heartbeat, &callers, stage, options).await?);
    pair.stop().await?;
    let overloaded = start(&["--max-requests", OVERLOAD_LIMIT]).await?;
    let rejections = measure_rejections(overloaded.address, options).await?;
    overloaded.stop().await?;
    Ok(Guard { costs, rejections })
}

/// Overloads a service and returns the latencies of the rejected calls. Each caller waits
/// after a rejection, as clients should.
async fn measure_rejections(address: SocketAddr, options: &Options) -> Result<Vec<Duration>> {
    eprintln!("rejected calls of an overloaded service");
    let scenario = Arc::new(Start::<1>::new());
    let connection = connect(address).await?;
    let until = Instant::now() + options.window().counted;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (scenario, connection) = (Arc::clone(&scenario), connection.clone());
        let uri: http::Uri =
            format!("http://{address}/{}/{}", <Start>::SERVICE, <Start>::METHOD).parse()?;
        callers.spawn(async move {
            let mut rejections = Vec::new();
            while Instant::now() < until {
                let message = frame(&scenario.request())?;
                let begun = Instant::now();
                let Err(error) = call(&connection, uri.clone(), None, message).await else {
                    continue;
                };
                match error.downcast_ref::<Status>().map(Status::code) {
                    Some(Code::ResourceExhausted) => rejections.push(begun.elapsed()),
                    _ => return Err(error),
                }
                tokio::time::sleep(RETRY_DELAY).await;
            }
            Ok(rejections)
        });
    }
    let mut rejections = Vec::new();
    while let Some(caller) = callers.join_next().await {
        rejections.extend(caller??);
    }
    rejections.sort_unstable();
    Ok(rejections)
}
