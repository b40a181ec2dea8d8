//! The service, as a process of its own, against requests that nobody means.

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

/// So many mutated requests are sent to each RPC.
const REQUESTS: usize = 10_000;
/// Of these, so many come before memory is measured for the first time: pools,
/// caches and the allocator's arenas have grown by then.
const WARM_UP: usize = 2_500;
/// So many are under way at a time, over so many connections.
const IN_FLIGHT: usize = 32;
const CONNECTIONS: usize = 4;
/// So many valid requests of each RPC are there to be mutated.
const SEEDS: usize = 48;
/// The service may grow by so many bytes for each request that is measured: a
/// quarter of what a leak of 1 KiB per request would take.
const GROWTH_PER_REQUEST: usize = 256;

/// The variable with the seed of an earlier run, to repeat it.
const SEED_VARIABLE: &str = "BRIDGEBOOK_TEST_SEED";

/// How often an RPC answered with a code.
type Tally = Mutex<HashMap<(Rpc, Code), usize>>;

/// Where all requests of a run come from, and where they go.
struct Run {
    seed: u64,
    wires: Vec<Wire>,
    /// By the position of the RPC in [`Rpc::ALL`].
    seeds: Vec<Vec<DynamicMessage>>,
    tally: Tally,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, and the whole machine; .ci/run runs it by itself"]
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
    let (seeds, accepted) = send_seeds(&wires[0], Rng::with_seed(seed)).await;
    for rpc in Rpc::ALL {
        assert!(accepted.contains(rpc), "{rpc:?} accepts no seed of {seed}");
    }
    let run = Arc::new(Run {
        seed,
        wires,
        seeds,
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
    let (_, accepted) = send_seeds(&run.wires[0], Rng::with_seed(!seed)).await;
    assert!(accepted.contains(&Rpc::WorkflowServiceStartWorkflow));
    assert!(growth < allowed, "from {warm} KiB by {growth} KiB");
    assert!(server.terminate().success());
    let log = server.log();
    for bad in ["panicked", "ERROR"] {
        assert!(!log.contains(bad), "{SEED_VARIABLE}={seed}: {log}");
    }
}

/// A cluster whose catalogs are not those of all other tests.
async fn quick_cluster(dir: &TempDir) -> Embedded {
    let settings = Settings {
        durable: false,
        ..Settings::new(&dir.0)
    };
    Embedded::start(settings).await.expect("PostgreSQL starts")
}

/// Seeds of every RPC, after each was sent as it is: none of them is refused for
/// what it says. Also the RPCs that answered one with OK.
async fn send_seeds(wire: &Wire, mut rng: Rng) -> (Vec<Vec<DynamicMessage>>, HashSet<Rpc>) {
    let mut seeds = vec![Vec::new(); Rpc::ALL.len()];
    let mut accepted = HashSet::new();
    for _ in 0..SEEDS {
        // RPCs take turns, so that each finds what others have left behind.
        for (rpc, seeds) in Rpc::ALL.iter().zip(&mut seeds) {
            let request = seeds::seed(*rpc, &mut rng);
            let answer = send_whole(wire, *rpc, &request).await;
            assert_documented(*rpc, &answer, &request.to_string());
            let Answer { code, text, .. } = &answer;
            assert_ne!(*code, Code::InvalidArgument, "{rpc:?}: {text}: {request}");
            if *code == Code::Ok {
                accepted.insert(*rpc);
                seeds.extend(next_page(*rpc, &request, &answer));
            }
            seeds.push(request);
        }
    }
    (seeds, accepted)
}

async fn send_whole(wire: &Wire, rpc: Rpc, request: &DynamicMessage) -> Answer {
    let frame = bytes::whole(&request.encode_to_vec());
    wire.call(rpc, vec![frame]).await.unwrap()
}

/// The request for the page that comes after this answer.
fn next_page(rpc: Rpc, request: &DynamicMessage, answer: &Answer) -> Option<DynamicMessage> {
    let [_, output] = contract::messages(rpc);
    let answer = DynamicMessage::decode(output, answer.message.as_slice()).unwrap();
    let token = answer.get_field_by_name("next_page_token")?.into_owned();
    let mut next = request.clone();
    next.set_field_by_name("page_token", token);
    Some(next)
}

impl Run {
    /// Sends the requests with these numbers, and looks at their answers.
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
            caller.expect("every answer is one of those that are documented");
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

    /// Makes the request with this number, which is the same in every run of a seed.
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

    /// Fails if mutations were too weak to be refused, or too strong to be accepted.
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

/// Whether an answer is one that a caller may get for its own fault.
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

/// The codes of the items that a batch could not do.
fn item_codes(rpc: Rpc, answer: &Answer) -> Vec<Code> {
    let [_, output] = contract::messages(rpc);
    if output.get_field_by_name("results").is_none() {
        return Vec::new();
    }
    let results = Results::decode(answer.message.as_slice()).unwrap().results;
    let errors = results.into_iter().filter_map(|result| result.error);
    errors.map(|error| Code::from_i32(error.code)).collect()
}

/// What the answers of all batches have in common. Documents in them may nest
/// deeper than prost decodes.
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
