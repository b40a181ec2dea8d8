//! Random invalid requests against the service, which runs as a process.

mod bytes;
mod fields;
mod seeds;
mod wire;

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bridgebook::{
    embedded::{Embedded, Settings},
    proto::Rpc,
};
use fastrand::Rng;
use prost::{Message, bytes::Bytes};
use prost_reflect::DynamicMessage;
use tonic::Code;

use self::wire::{Answer, Wire};
use crate::support::{Server, TempDir, contract, temp_dir};

/// The number of mutated requests to each RPC.
const REQUESTS: usize = 10_000;
/// The number of requests before the first measurement of memory. By then pools, caches and
/// the allocator's arenas have grown.
const WARM_UP: usize = 2_500;
/// The number of concurrent requests, and of connections.
const IN_FLIGHT: usize = 32;
const CONNECTIONS: usize = 4;
/// The number of valid requests of each RPC that are mutated.
const SEEDS: usize = 48;
/// The memory in bytes by which the service may grow per measured request: a quarter of a
/// leak of 1 KiB per request.
const GROWTH_PER_REQUEST: usize = 256;

/// The environment variable with a seed, to repeat an earlier run.
const SEED_VARIABLE: &str = "BRIDGEBOOK_TEST_SEED";

/// The number of answers by RPC and code.
type Tally = Mutex<HashMap<(Rpc, Code), usize>>;

/// A run: its requests, its connections and its results.
struct Run {
    seed: u64,
    wires: Vec<Wire>,
    /// Valid requests, by the position of the RPC in [`Rpc::ALL`].
    seeds: Vec<Vec<DynamicMessage>>,
    tally: Tally,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and the whole machine; .ci/run runs it alone"]
async fn no_request_makes_the_service_fail_panic_or_leak() {
    let seed =
        env::var(SEED_VARIABLE).map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    let dir = temp_dir();
    let cluster = quick_cluster(&dir).await;
    let url = cluster.database_url();
    let arguments = ["--database-url", &url, "--migrate"];
    let mut server = Server::spawn(&arguments);
    drop(server.serving().await);

    let mut wires = Vec::new();
    for _ in 0..CONNECTIONS {
        wires.push(Wire::connect(server.address).await);
    }
    let seeds = send_seeds(&wires[0], Rng::with_seed(seed)).await;
    assert!(seeds.invalid.is_empty(), "{:#?}", seeds.invalid);
    for rpc in Rpc::ALL {
        let is_accepted = seeds.accepted.contains(rpc);
        assert!(is_accepted, "{rpc:?} accepts no seed of {seed}");
    }
    let run = Arc::new(Run {
        seed,
        wires,
        seeds: seeds.requests,
        tally: Tally::default(),
    });
    run.send(0..WARM_UP * Rpc::ALL.len()).await;
    let warm = server.resident_kib();
    run.send(WARM_UP * Rpc::ALL.len()..REQUESTS * Rpc::ALL.len())
        .await;
    let growth = server.resident_kib().saturating_sub(warm);

    let allowed = (REQUESTS - WARM_UP) * Rpc::ALL.len() * GROWTH_PER_REQUEST / 1024;
    println!("seed {seed}: {warm} KiB grew by {growth} KiB of {allowed} KiB");
    run.assert_varied();
    let after = send_seeds(&run.wires[0], Rng::with_seed(!seed)).await;
    let start = Rpc::WorkflowServiceStartWorkflow;
    assert!(after.accepted.contains(&start));
    assert!(growth < allowed, "from {warm} KiB by {growth} KiB");
    assert!(server.terminate().success());
    let log = server.log();
    for bad in ["panicked", "ERROR"] {
        assert!(!log.contains(bad), "{SEED_VARIABLE}={seed}: {log}");
    }
}

/// Starts a cluster of its own, because the catalogs of the shared one are large.
async fn quick_cluster(dir: &TempDir) -> Embedded {
    let settings = Settings {
        durable: false,
        ..Settings::new(&dir.0)
    };
    Embedded::start(settings).await.expect("PostgreSQL starts")
}

/// Valid requests of every RPC that were sent.
#[derive(Default)]
struct Seeds {
    /// The requests, by the position of the RPC in [`Rpc::ALL`].
    requests: Vec<Vec<DynamicMessage>>,
    /// The RPCs that returned OK.
    accepted: HashSet<Rpc>,
    /// The requests that were INVALID_ARGUMENT, with their errors. In a new database there are
    /// none, but a total may reach its maximum later.
    invalid: Vec<String>,
}

async fn send_seeds(wire: &Wire, mut rng: Rng) -> Seeds {
    let mut sent = Seeds {
        requests: vec![Vec::new(); Rpc::ALL.len()],
        ..Seeds::default()
    };
    for _ in 0..SEEDS {
        // RPCs take turns, so that each finds the rows of the others.
        for (position, rpc) in Rpc::ALL.iter().enumerate() {
            let request = seeds::seed(*rpc, &mut rng);
            let answer = send_whole(wire, *rpc, &request).await;
            assert_documented(*rpc, &answer, &request.to_string());
            let requests = &mut sent.requests[position];
            match answer.code {
                Code::Ok => {
                    sent.accepted.insert(*rpc);
                    requests.extend(next_page(*rpc, &request, &answer));
                }
                Code::InvalidArgument => {
                    sent.invalid
                        .push(format!("{rpc:?}: {}: {request}", answer.text));
                }
                _ => {}
            }
            requests.push(request);
        }
    }
    sent
}

async fn send_whole(wire: &Wire, rpc: Rpc, request: &DynamicMessage) -> Answer {
    let frame = bytes::whole(&request.encode_to_vec());
    wire.call(rpc, vec![frame]).await.unwrap()
}

/// Returns the request for the next page.
fn next_page(rpc: Rpc, request: &DynamicMessage, answer: &Answer) -> Option<DynamicMessage> {
    let [_, output] = contract::messages(rpc);
    let answer = DynamicMessage::decode(output, answer.message.as_slice()).unwrap();
    let token = answer.get_field_by_name("next_page_token")?.into_owned();
    let mut next = request.clone();
    next.set_field_by_name("page_token", token);
    Some(next)
}

impl Run {
    /// Sends the requests with these numbers, and checks their answers.
    async fn send(self: &Arc<Run>, numbers: std::ops::Range<usize>) {
        let next = Arc::new(AtomicUsize::new(numbers.start));
        let callers = (0..IN_FLIGHT).map(|caller| {
            let (run, next) = (self.clone(), next.clone());
            tokio::spawn(async move {
                let wire = &run.wires[caller % CONNECTIONS];
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    run.send_one(wire, number).await;
                }
            })
        });
        for caller in futures_util::future::join_all(callers).await {
            caller.expect("every answer is documented");
        }
    }

    async fn send_one(&self, wire: &Wire, number: usize) {
        let (rpc, pieces) = self.request(number);
        let sent = pieces.clone();
        let told = || {
            let seed = self.seed;
            let sent: String = sent
                .concat()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{SEED_VARIABLE}={seed}, request {number}: {sent}")
        };
        let answer = wire.call(rpc, pieces).await;
        let answer = answer.unwrap_or_else(|error| panic!("{rpc:?}: {error}; {}", told()));
        if !is_documented(rpc, &answer) {
            assert_documented(rpc, &answer, &told());
        }
        *self
            .tally
            .lock()
            .unwrap()
            .entry((rpc, answer.code))
            .or_default() += 1;
    }

    /// Returns the request with this number, which depends only on the seed.
    fn request(&self, number: usize) -> (Rpc, Vec<Bytes>) {
        let position = number % Rpc::ALL.len();
        let seeds = &self.seeds[position];
        let mut rng = Rng::with_seed(self.seed.wrapping_add(number as u64));
        let mut request = rng.choice(seeds).unwrap().clone();
        let kind = rng.u32(0..4);
        if kind < 3 {
            fields::mutate(&mut request, &mut rng);
        }
        let mut message = request.encode_to_vec();
        if kind > 1 {
            let other = rng.choice(seeds).unwrap().encode_to_vec();
            message = bytes::mutate(&message, &other, &mut rng);
        }
        (Rpc::ALL[position], bytes::frame(&message, &mut rng))
    }

    /// Fails if too few mutated requests were refused, or too few accepted.
    fn assert_varied(&self) {
        let tally = self.tally.lock().unwrap();
        println!("{tally:#?}");
        for rpc in Rpc::ALL {
            for code in [Code::Ok, Code::InvalidArgument] {
                let times = tally.get(&(*rpc, code)).copied().unwrap_or_default();
                assert!(
                    times > REQUESTS / 1000,
                    "{rpc:?} answered {code:?} {times} times"
                );
            }
        }
    }
}

/// Returns whether an answer is OK or blames the caller.
fn is_documented(rpc: Rpc, answer: &Answer) -> bool {
    is_callers(answer.code)
        && (answer.code == Code::Ok) == answer.details.is_empty()
        && item_codes(rpc, answer).into_iter().all(is_callers)
}

fn is_callers(code: Code) -> bool {
    matches!(
        code,
        Code::Ok
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::ResourceExhausted
    )
}

fn assert_documented(rpc: Rpc, answer: &Answer, request: &str) {
    let Answer { code, text, .. } = answer;
    assert!(
        is_documented(rpc, answer),
        "{rpc:?} answers {code:?} {text:?} to {request}"
    );
}

/// Returns the codes of the failed items of a batch.
fn item_codes(rpc: Rpc, answer: &Answer) -> Vec<Code> {
    let [_, output] = contract::messages(rpc);
    if output.get_field_by_name("results").is_none() {
        return Vec::new();
    }
    let results = Results::decode(answer.message.as_slice()).unwrap().results;
    let errors = results.into_iter().filter_map(|result| result.error);
    errors.map(|error| Code::from_i32(error.code)).collect()
}

/// The fields that the responses of all batches have. Documents are left out, because they
/// may nest deeper than prost decodes.
#[derive(Clone, PartialEq, prost::Message)]
struct Results {
    #[prost(message, repeated, tag = "1")]
    results: Vec<ItemResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ItemResult {
    #[prost(message, optional, tag = "2")]
    error: Option<tonic_types::pb::Status>,
}
