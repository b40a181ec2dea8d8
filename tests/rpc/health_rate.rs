//! The rate of health and reflection calls, which need no credential: each address has its own, and
//! load balancers and proxies have none.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bridgebook::{config::Config, util::net::Networks};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use tonic_health::pb::HealthCheckRequest;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{ANY_WINDOW, App, Wire};

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";

/// More checks than one address may make at once, and fewer than close its connection.
const CHECKS: usize = 1100;

async fn connect(app: &App, host: u8) -> Wire {
    Wire::connect_from(Ipv4Addr::new(127, 0, 0, host), app.address, ANY_WINDOW).await
}

/// Makes a call, and returns the headers of its response.
async fn call(wire: &Wire, method: &str) -> HeaderMap {
    let request = HealthCheckRequest::default();
    let answer = wire.send(method, &request).await.await.unwrap();
    answer.headers().clone()
}

/// Makes checks until one is rejected. Returns its headers.
async fn flood(wire: &Wire) -> Option<HeaderMap> {
    for _ in 0..CHECKS / 100 {
        let calls = stream::iter(0..100).map(|_| call(wire, CHECK));
        let answers: Vec<_> = calls.buffer_unordered(100).collect().await;
        let rejected = |answer: &HeaderMap| answer.contains_key("grpc-status");
        if let Some(answer) = answers.into_iter().find(rejected) {
            return Some(answer);
        }
    }
    None
}

fn anything() -> Networks {
    "127.0.0.0/8".parse().unwrap()
}

fn known_balancer(config: &mut Config) {
    config.limits.connection.known_clients.health = anything();
}

fn known_proxy(config: &mut Config) {
    config.limits.connection.known_clients.proxies = anything();
}

#[tokio::test]
async fn an_address_that_checks_health_too_often_is_told_to_wait() {
    let app = App::start().await;
    let (flooding, other) = (connect(&app, 1).await, connect(&app, 2).await);
    let mut rejected = None;
    // The budget grows meanwhile, so on a slow machine it takes some more.
    while rejected.is_none() {
        rejected = flood(&flooding).await;
    }
    let rejected = rejected.unwrap();
    assert_eq!(rejected["grpc-status"], "8");
    assert_eq!(rejected["grpc-retry-pushback-ms"], "50");
    assert_eq!(call(&other, CHECK).await.get("grpc-status"), None);
    assert_eq!(call(&other, WATCH).await.get("grpc-status"), None);
}

#[tokio::test]
async fn load_balancers_and_proxies_may_check_health_at_any_rate() {
    for known in [known_balancer, known_proxy] {
        let app = App::start_with(known).await;
        let wire = connect(&app, 1).await;
        assert_eq!(flood(&wire).await, None);
    }
}

#[tokio::test]
async fn the_clients_of_a_proxy_share_a_connection_for_their_watches() {
    let app = App::start_with(known_proxy).await;
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
    let app = App::start().await;
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let begun = Instant::now();
    let requests = stream::iter(vec![request; 250]);
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
    assert_eq!(count, 250);
    // 200 are free, and each second pays for 50.
    assert!(begun.elapsed() >= Duration::from_millis(900));
}
