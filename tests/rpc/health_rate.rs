//! The rate of health and reflection calls, which need no credential: each address has its own, and
//! load balancers and proxies have none.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bridgebook::util::net::KnownClients;
use futures_util::{future::join_all, stream};
use http::HeaderMap;
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{ANY_WINDOW, App, Wire, eventually, overload};

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";

/// A rate that is exceeded on the slowest machine, and the calls that it lets through at once.
const RATE: u32 = 10;
const BURST: usize = 20;

async fn start(known: fn(&mut KnownClients)) -> App {
    App::start_with(|config| {
        let limits = &mut config.limits.connection;
        limits.health_rate = RATE;
        limits.reflection_rate = RATE;
        known(&mut limits.known_clients);
    })
    .await
}

async fn connect(app: &App, host: u8) -> Wire {
    Wire::connect_from(Ipv4Addr::new(127, 0, 0, host), app.address, ANY_WINDOW).await
}

/// Makes a call, and returns the headers of its response.
async fn call(wire: &Wire, method: &str) -> HeaderMap {
    let request = HealthCheckRequest::default();
    let answer = wire.send(method, &request).await.await.unwrap();
    answer.headers().clone()
}

/// Makes more checks at once than an address may. Returns the headers of the first that is rejected.
async fn flood(wire: &Wire) -> Option<HeaderMap> {
    let answers = join_all((0..4 * BURST).map(|_| call(wire, CHECK))).await;
    let rejected = |answer: &HeaderMap| answer.contains_key("grpc-status");
    answers.into_iter().find(rejected)
}

fn known_balancer(known: &mut KnownClients) {
    known.health = "127.0.0.0/8".parse().unwrap();
}

fn known_proxy(known: &mut KnownClients) {
    known.proxies = "127.0.0.0/8".parse().unwrap();
}

#[tokio::test]
async fn an_address_that_checks_health_too_often_is_told_to_wait() {
    let app = start(|_| {}).await;
    let (flooding, other) = (connect(&app, 3).await, connect(&app, 2).await);
    // The budget grows meanwhile, so on a slow machine it takes some more.
    let rejected = eventually("a check is rejected", async || flood(&flooding).await).await;
    let status = Status::from_header_map(&rejected).unwrap();
    let limit = "infrastructure_calls_per_second".to_owned();
    assert_eq!(overload(status), (limit, None));
    let pushback = rejected["grpc-retry-pushback-ms"].to_str().unwrap();
    assert!((50..=63).contains(&pushback.parse().unwrap()), "{pushback}");
    assert_eq!(call(&other, CHECK).await.get("grpc-status"), None);
    assert_eq!(call(&other, WATCH).await.get("grpc-status"), None);
}

#[tokio::test]
async fn load_balancers_and_proxies_may_check_health_at_any_rate() {
    for known in [known_balancer, known_proxy] {
        let app = start(known).await;
        let wire = connect(&app, 3).await;
        assert_eq!(flood(&wire).await, None);
    }
}

#[tokio::test]
async fn the_clients_of_a_proxy_share_a_connection_for_their_watches() {
    let app = start(known_proxy).await;
    let wire = connect(&app, 1).await;
    let mut watches = Vec::new();
    for _ in 0..20 {
        let request = HealthCheckRequest::default();
        let answer = wire.send(WATCH, &request).await.await.unwrap();
        assert_eq!(answer.headers().get("grpc-status"), None);
        watches.push(answer);
    }
}

/// The requests of a stream wait. Otherwise one call would be a flood without end.
#[tokio::test]
async fn the_requests_of_a_reflection_stream_have_a_rate() {
    let app = start(|_| {}).await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let begun = Instant::now();
    let requests = stream::iter(vec![request; BURST + 10]);
    let answers = ServerReflectionClient::new(app.channel.clone())
        .server_reflection_info(requests)
        .await;
    let mut answers = answers.unwrap().into_inner();
    let mut count = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        let answer = answer.message_response.unwrap();
        assert!(matches!(answer, MessageResponse::ListServicesResponse(_)));
        count += 1;
    }
    assert_eq!(count, BURST + 10);
    // 20 are free, and each second pays for 10.
    assert!(begun.elapsed() >= Duration::from_millis(900));
}
