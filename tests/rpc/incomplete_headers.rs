//! Headers that never arrive completely: they have a deadline, and their memory is bounded.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic_health::pb::HealthCheckRequest;

use crate::support::{ANY_WINDOW, App, Wire, eventually};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const HEALTH_CHECK: &str = "grpc.health.v1.Health/Check";

/// The connections that may have incomplete headers of 128 KiB each: half of 16 MiB.
const SHARE: u32 = 64;

/// Returns a frame of HEADERS without its end: many times `accept-encoding: gzip, deflate`, which is
/// one byte. So short that it is read at once, and a connection that is closed is not reset.
fn headers() -> Vec<u8> {
    let mut frame = vec![0, 4, 0, 1, 0, 0, 0, 0, 1];
    frame.extend([0x90; 0x400]);
    frame
}

async fn send(app: &App, frame: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let bytes = [PREFACE, SETTINGS, frame].concat();
    socket.write_all(&bytes).await.unwrap();
    socket
}

fn closed(app: &App) -> f64 {
    let refused = "bridgebook_connections_refused_total";
    app.figures().sum(refused, &[("cause", "flood")])
}

/// Returns whether the last frame of the server is a GOAWAY with this debug data.
async fn is_told(mut socket: TcpStream, debug: &str) -> bool {
    let mut received = Vec::new();
    let _ = socket.read_to_end(&mut received).await;
    received.ends_with(&[&[0, 0, 0, 0xb], debug.as_bytes()].concat())
}

#[tokio::test]
async fn incomplete_headers_of_one_client_take_bounded_memory() {
    let app = App::start().await;
    let mut flood = Vec::new();
    for _ in 0..3 * SHARE {
        flood.push(send(&app, &headers()).await);
    }
    eventually("the others are closed", async || {
        (closed(&app) >= f64::from(2 * SHARE)).then_some(())
    })
    .await;
    let another = send(&app, &headers()).await;
    assert!(is_told(another, "too_many_incomplete_headers").await);
    eventually("it is counted, once", async || {
        let surplus = closed(&app) - f64::from(2 * SHARE + 1);
        (surplus.abs() < 0.5).then_some(())
    })
    .await;
    // Another client has a share, and headers of a usual size need none.
    let large = "x".repeat(60_000);
    for (source, length, expected) in [([127, 0, 0, 2], 60_000, "8"), ([127, 0, 0, 1], 8000, "0")] {
        let wire = Wire::connect_from(source, app.address, ANY_WINDOW).await;
        let mut head = wire.head(HEALTH_CHECK);
        let value = large[..length].parse().unwrap();
        head.headers_mut().insert("x-large", value);
        let answer = wire.send_with(head, &HealthCheckRequest::default()).await;
        let answer = answer.await.unwrap();
        let status = answer.headers().get("grpc-status");
        let status = status.map_or("0", |status| status.to_str().unwrap());
        assert_eq!(status, expected, "{source:?}");
    }
    drop(flood);
    eventually("the share is free again", async || {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        let mut head = wire.head(HEALTH_CHECK);
        head.headers_mut().insert("x-large", large.parse().unwrap());
        let answer = wire.send_with(head, &HealthCheckRequest::default()).await;
        answer.await.ok()
    })
    .await;
}

#[tokio::test]
async fn headers_that_do_not_arrive_in_time_close_their_connection() {
    let app = App::start_with(|config| {
        config.limits.connection.handshake_timeout = Duration::from_millis(200);
    })
    .await;
    let whole = headers();
    for part in [&whole[..], &whole[..9], &whole[..1000]] {
        let socket = send(&app, part).await;
        assert!(is_told(socket, "headers_incomplete_for_too_long").await);
    }
}
