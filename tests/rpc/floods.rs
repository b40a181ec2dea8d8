//! Floods of frames that do no work: the connection is closed. Busy clients are no flood.

use bridgebook::proto::v1::ListWorkflowsRequest;
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic_health::pb::HealthCheckRequest;

use crate::support::{ANY_WINDOW, App, Tenant, Wire, eventually, send_part};

const LIST: &str = "bridgebook.v1.WorkflowService/ListWorkflows";
const HEALTH_CHECK: &str = "grpc.health.v1.Health/Check";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;

/// Frames that ask for no work: the type, the flags, the stream and the payload.
const WORKLESS: &[(&str, u8, u8, u8, &[u8])] = &[
    ("PING", 6, 0, 0, &[7; 8]),
    ("acknowledged PING", 6, 1, 0, &[7; 8]),
    ("SETTINGS", SETTINGS, 0, 0, &[]),
    ("PRIORITY", 2, 0, 1, &[0, 0, 0, 0, 16]),
    ("WINDOW_UPDATE", 8, 0, 0, &[0, 0, 0, 1]),
    ("unknown", 99, 0, 0, &[]),
];

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend(payload);
    frame
}

fn listing(tenant: &Tenant) -> ListWorkflowsRequest {
    ListWorkflowsRequest {
        namespace: tenant.namespace.clone(),
        ..ListWorkflowsRequest::default()
    }
}

fn floods(app: &App) -> f64 {
    let refused = "bridgebook_connections_refused_total";
    app.figures().sum(refused, &[("cause", "flood")])
}

#[tokio::test]
async fn a_flood_of_frames_without_work_closes_its_connection() {
    let (app, tenant) = App::with_tenant().await;
    for (number, (name, kind, flags, stream, payload)) in WORKLESS.iter().enumerate() {
        let socket = TcpStream::connect(app.address).await.unwrap();
        let (mut incoming, mut outgoing) = socket.into_split();
        let mut flood = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let frames = frame(*kind, *flags, *stream, payload).repeat(1000);
        flood.extend(frames);
        let sending = tokio::spawn(async move {
            // Ends when the connection is closed, and only then.
            while outgoing.write_all(&flood).await.is_ok() {
                flood.drain(..PREFACE.len().min(flood.len()));
                tokio::task::yield_now().await;
            }
        });
        let mut received = Vec::new();
        let _ = incoming.read_to_end(&mut received).await;
        sending.abort();
        let count = f64::from(u32::try_from(number).unwrap()) + 1.0;
        eventually(name, async || (floods(&app) >= count).then_some(())).await;
    }
    tenant.start().await;
}

/// One call, whose message arrives byte by byte.
#[tokio::test]
async fn a_flood_of_tiny_data_frames_closes_its_connection() {
    let (app, tenant) = App::with_tenant().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let (_answer, mut body) = wire.begin(wire.head(LIST)).await;
    // A message of 1 MiB begins.
    let head = [0, 0, 16, 0, 0].as_slice();
    send_part(&mut body, head, false);
    for _ in 0..20_000 {
        send_part(&mut body, b"x".as_slice(), false);
    }
    wire.ended.await.unwrap().unwrap_err();
    eventually("it is counted", async || {
        (floods(&app) >= 1.0).then_some(())
    })
    .await;
    tenant.start().await;
}

#[tokio::test]
async fn a_flooding_client_is_told_why() {
    let app = App::start().await;
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let ping = frame(2, 0, 1, &[0, 0, 0, 0, 16]).repeat(300);
    let flood = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &ping].concat();
    socket.write_all(&flood).await.unwrap();
    let mut received = Vec::new();
    let _ = socket.read_to_end(&mut received).await;
    let goaway = [&[0, 0, 0, 0xb], b"too_many_frames".as_slice()].concat();
    assert!(received.ends_with(&goaway), "{received:?}");
}

#[tokio::test]
async fn cancelling_all_streams_at_once_costs_no_other_call() {
    let (app, tenant) = App::with_tenant().await;
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let waiting = wire.send(LIST, &listing(&tenant)).await;
    for _ in 0..2 {
        let mut cancelled = Vec::new();
        for _ in 0..250 {
            cancelled.push(wire.begin(wire.head(LIST)).await);
        }
        for (_, body) in &mut cancelled {
            body.send_reset(h2::Reason::CANCEL);
        }
        // The server has read them once it answers.
        let request = HealthCheckRequest::default();
        wire.send(HEALTH_CHECK, &request).await.await.unwrap();
    }
    blocker.batch_execute("COMMIT").await.unwrap();
    let answer = waiting.await.unwrap();
    assert!(answer.headers().get("grpc-status").is_none(), "{answer:?}");
    assert!(!wire.ended.is_finished());
    assert!(floods(&app) < 1.0);
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_the_others_answered() {
    let app = App::start().await;
    let socket = TcpStream::connect(app.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    // A client that does not wait for the server's limit.
    builder.initial_max_send_streams(1000);
    // Its own limit of small frames that it has not read, which all responses at once exceed.
    builder.data_frame_budget(1 << 20);
    let (sender, connection) = builder.handshake(socket).await.unwrap();
    let wire = Wire {
        address: app.address,
        sender,
        ended: tokio::spawn(connection),
    };
    let request = HealthCheckRequest::default();
    let calls = join_all((0..1000).map(|_| wire.send(HEALTH_CHECK, &request))).await;
    let mut refused = 0;
    for answer in join_all(calls).await {
        match answer {
            Ok(answer) => assert!(answer.headers().get("grpc-status").is_none(), "{answer:?}"),
            Err(error) => {
                assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 64, "only {refused} calls were over the limit");
}
