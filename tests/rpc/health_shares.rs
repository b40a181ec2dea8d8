//! Health watches and reflection streams: each address has a share, and load balancers always get
//! theirs.

use std::net::Ipv4Addr;

use futures_util::future::join_all;
use tonic::Status;
use tonic_health::pb::HealthCheckRequest;

use crate::support::{ANY_WINDOW, App, Wire, eventually, overload, send_part};

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The watches and reflection streams of one connection.
const PER_CONNECTION: usize = 4;
/// More connections than all watches together need.
const CONNECTIONS: usize = 140;

/// Calls that last, on connections from one address.
struct Client {
    wires: Vec<Wire>,
    /// The calls that were let in.
    calls: Vec<(
        http::Response<h2::RecvStream>,
        h2::SendStream<prost::bytes::Bytes>,
    )>,
}

impl Client {
    /// Makes as many calls as are let in, up to `connections` full ones.
    async fn connect(app: &App, host: u8, method: &str, connections: usize) -> Client {
        let mut client = Client {
            wires: Vec::new(),
            calls: Vec::new(),
        };
        let source = Ipv4Addr::new(127, 0, 0, host);
        for _ in 0..connections {
            let wire = Wire::connect_from(source, app.address, ANY_WINDOW).await;
            for _ in 0..PER_CONNECTION {
                let (answer, mut body) = wire.begin(wire.head(method)).await;
                // An empty message. It ends the request of a watch only.
                send_part(&mut body, vec![0; 5], method == WATCH);
                let answer = answer.await.unwrap();
                match Status::from_header_map(answer.headers()) {
                    None => client.calls.push((answer, body)),
                    Some(status) => {
                        let limit = "infrastructure_calls".to_owned();
                        assert_eq!(overload(status), (limit, None));
                    }
                }
            }
            client.wires.push(wire);
            if client.calls.len() < client.wires.len() * PER_CONNECTION {
                break;
            }
        }
        client
    }
}

#[tokio::test]
async fn one_address_leaves_watches_and_streams_to_others() {
    let app = App::start().await;
    for (method, most) in [(WATCH, 256), (REFLECTION, 32)] {
        let flood = Client::connect(&app, 1, method, CONNECTIONS).await;
        assert_eq!(flood.calls.len(), most, "{method}");
        let other = Client::connect(&app, 2, method, 1).await;
        assert_eq!(other.calls.len(), PER_CONNECTION, "{method}");
        drop(flood);
    }
}

#[tokio::test]
async fn a_load_balancer_has_its_watches_while_all_others_are_taken() {
    let app = App::start_with(|config| {
        let known = &mut config.limits.connection.known_clients;
        known.health = "127.0.0.99".parse().unwrap();
    })
    .await;
    let mut flood = Vec::new();
    for host in 1..20 {
        flood.push(Client::connect(&app, host, WATCH, CONNECTIONS).await);
    }
    let watches: usize = flood.iter().map(|client| client.calls.len()).sum();
    assert_eq!(watches, 512);
    let unknown = Client::connect(&app, 98, WATCH, 1).await;
    assert!(unknown.calls.is_empty());
    let balancer = Client::connect(&app, 99, WATCH, 2).await;
    assert_eq!(balancer.calls.len(), 2 * PER_CONNECTION);
}

#[tokio::test]
async fn health_checks_without_their_message_leave_slots_to_others() {
    let app = App::start().await;
    let mut unfinished = Vec::new();
    // More than the share of one address: a check below may take the last slot before all have arrived.
    for _ in 0..3 {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        let calls = join_all((0..200).map(|_| wire.begin(wire.head(CHECK)))).await;
        unfinished.push((wire, calls));
    }
    let request = HealthCheckRequest::default();
    let here = Wire::connect(app.address, ANY_WINDOW).await;
    let there = Wire::connect_from([127, 0, 0, 2], app.address, ANY_WINDOW).await;
    let status = async |wire: &Wire| {
        let answer = wire.send(CHECK, &request).await.await.unwrap();
        answer.headers().get("grpc-status").cloned()
    };
    eventually("the share of the address is used", async || {
        status(&here).await.filter(|status| status == "8")
    })
    .await;
    assert_eq!(status(&there).await, None);
}
