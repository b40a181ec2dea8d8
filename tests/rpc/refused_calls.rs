//! Floods of calls without a valid credential: the connection is closed. Those with one are not.

use bridgebook::{
    config::{Auth, Config},
    domain::role::Role,
    proto::v1::ListWorkflowsRequest,
};
use futures_util::future::join_all;
use http::{HeaderValue, Request};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::support::{ANY_WINDOW, App, Wire, connect, eventually, send_part};

const LIST: &str = "bridgebook.v1.WorkflowService/ListWorkflows";
const WRONG: &str = "Bearer bb_00000000000000000000000000000000_\
                     0000000000000000000000000000000000000000000000000000000000000000";

/// Makes the headers of a call.
type Head = dyn Fn(&Wire) -> Request<()>;

fn tokens(config: &mut Config) {
    config.auth = Auth::Tokens;
}

fn listing() -> ListWorkflowsRequest {
    ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    }
}

fn closed(app: &App) -> f64 {
    let refused = "bridgebook_connections_refused_total";
    app.figures().sum(refused, &[("cause", "refused_calls")])
}

/// Makes calls until the connection is closed. Returns its error.
async fn flood(wire: Wire, head: impl Fn(&Wire) -> Request<()>) -> h2::Error {
    let message = HealthCheckRequest {
        service: "nobody".into(),
    };
    for _ in 0..10_000 {
        if wire.ended.is_finished() {
            break;
        }
        let Ok(mut ready) = wire.sender.clone().ready().await else {
            break;
        };
        let Ok((answer, mut body)) = ready.send_request(head(&wire), false) else {
            break;
        };
        let mut frame = vec![0, 0, 0, 0, 8];
        frame.extend(prost::Message::encode_to_vec(&message));
        send_part(&mut body, frame, true);
        let _ = answer.await;
    }
    let ended = tokio::time::timeout(std::time::Duration::from_secs(60), wire.ended).await;
    ended.expect("it is closed").unwrap().unwrap_err()
}

fn with_header(wire: &Wire, method: &str, name: &'static str, value: &'static str) -> Request<()> {
    let mut head = wire.head(method);
    let value = HeaderValue::from_static(value);
    head.headers_mut().insert(name, value);
    head
}

#[tokio::test]
async fn a_flood_of_refused_calls_closes_its_connection() {
    let app = App::start_with(tokens).await;
    let kinds: [(&str, &Head); 6] = [
        ("no credential", &|wire| wire.head(LIST)),
        ("a wrong one", &|wire| {
            with_header(wire, LIST, "authorization", WRONG)
        }),
        ("an unknown method", &|wire| wire.head("nobody.Knows/It")),
        ("no gRPC", &|wire| {
            with_header(wire, LIST, "content-type", "text/plain")
        }),
        ("a malformed timeout", &|wire| {
            with_header(wire, LIST, "grpc-timeout", "soon")
        }),
        ("health of an unknown service", &|wire| {
            wire.head("grpc.health.v1.Health/Check")
        }),
    ];
    let mut expected = 0.0;
    for (kind, head) in kinds {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        let error = flood(wire, head).await;
        // The connection may be reset before the client reads why.
        let is_told = error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
        assert!(is_told || error.is_io(), "{kind}: {error}");
        expected += 1.0;
        eventually(kind, async || (closed(&app) >= expected).then_some(())).await;
    }
}

#[tokio::test]
async fn a_flood_of_refused_calls_does_not_lock_out_its_address() {
    let app = App::start_with(tokens).await;
    let token = app.issue(Role::Reader, &["*"]).await;
    let known = token.client(&app.channel);
    known.workflows().list_workflows(listing()).await.unwrap();
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    flood(wire, |wire| wire.head(LIST)).await;
    known.workflows().list_workflows(listing()).await.unwrap();
    // A client with a wrong credential gets its answer, and one with a valid credential gets in.
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let refused = wire.send(LIST, &listing()).await.await.unwrap();
    assert_eq!(refused.headers()["grpc-status"], "16");
    let new = token.client(&connect(app.address));
    new.workflows().list_workflows(listing()).await.unwrap();
    assert!((closed(&app) - 1.0).abs() < 0.5);
}

/// Returns how many new connections had to wait.
fn waits(app: &App) -> f64 {
    let pauses = "bridgebook_connection_pauses_total";
    app.figures().sum(pauses, &[("cause", "refused_calls")])
}

#[tokio::test]
async fn new_connections_of_a_flooding_address_wait_except_for_load_balancers() {
    for (health_from, expected) in [("192.0.2.1", 1.0), ("127.0.0.1", 0.0)] {
        let app = App::start_with(|config| {
            tokens(config);
            let known = &mut config.limits.connection.known_clients;
            known.health = health_from.parse().unwrap();
        })
        .await;
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        flood(wire, |wire| wire.head(LIST)).await;
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        let request = HealthCheckRequest::default();
        let check = wire.send("grpc.health.v1.Health/Check", &request).await;
        assert_eq!(check.await.unwrap().headers().get("grpc-status"), None);
        assert!((waits(&app) - expected).abs() < 0.5, "{health_from}");
    }
}

#[tokio::test]
async fn new_connections_wait_after_too_many_that_make_no_authenticated_call() {
    let app = App::start_with(tokens).await;
    eventually("one waits", async || {
        for _ in 0..50 {
            TcpStream::connect(app.address).await.unwrap();
        }
        (waits(&app) > 0.5).then_some(())
    })
    .await;
    // It waits, and is served.
    let token = app.issue(Role::Reader, &["*"]).await;
    let new = token.client(&connect(app.address));
    new.workflows().list_workflows(listing()).await.unwrap();
}

/// Calls that are in progress or that have not begun can be retried.
#[tokio::test]
async fn no_call_of_a_flooding_connection_fails_for_a_fault_of_the_service() {
    let app = App::start_with(tokens).await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let request = HealthCheckRequest::default();
    let calls = (0..250).map(async |_| wire.send(LIST, &request).await.await);
    let mut refused = 0;
    for answer in join_all(calls).await {
        match answer {
            Ok(answer) => {
                assert_eq!(answer.headers()["grpc-status"], "16");
                refused += 1;
            }
            Err(error) => assert!(
                error.is_io()
                    || error.is_go_away()
                    || error.reason() == Some(h2::Reason::REFUSED_STREAM),
                "{error}"
            ),
        }
    }
    assert!(refused > 200, "the calls before are answered");
}

#[tokio::test]
async fn an_authenticated_connection_is_not_closed_for_refused_calls() {
    let app = App::start_with(tokens).await;
    let token = app.issue(Role::Reader, &["*"]).await;
    let known = token.client(&app.channel);
    known.workflows().list_workflows(listing()).await.unwrap();
    assert_all_refused(&app).await;
    known.workflows().list_workflows(listing()).await.unwrap();
}

#[tokio::test]
async fn a_proxy_is_not_closed_for_refused_calls() {
    let app = App::start_with(|config| {
        tokens(config);
        let known = &mut config.limits.connection.known_clients;
        known.proxies = "127.0.0.0/8".parse().unwrap();
    });
    assert_all_refused(&app.await).await;
}

/// Makes more calls without a credential than a client may. Each of them gets its answer.
async fn assert_all_refused(app: &App) {
    let codes = join_all((0..1000).map(|_| async {
        let client = bridgebook::proto::v1::workflow_service_client::WorkflowServiceClient::new(
            app.channel.clone(),
        );
        let refused = { client }.list_workflows(listing()).await;
        refused.unwrap_err().code()
    }))
    .await;
    assert_eq!(codes, [Code::Unauthenticated; 1000]);
}
