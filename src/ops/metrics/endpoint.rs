//! The HTTP endpoint for Prometheus and for load balancers that do not speak gRPC.
//!
//! It serves `/metrics`, `/livez` (200 while the process answers) and `/readyz` (200 while health
//! reports SERVING). It needs no token, because the responses contain no data of tenants.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, spawn_blocking},
    time::timeout,
};

use super::Metrics;

/// The most connections. One more evicts the oldest, which must be stuck: a response takes
/// milliseconds.
const MAX_CONNECTIONS: usize = 64;

/// The longest duration of a connection, which serves one request: scrapes and probes are seconds
/// apart.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failed accept, for example without free file descriptors.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Serves HTTP on a listener. Never returns.
pub async fn serve(listener: &TcpListener, metrics: Metrics) {
    let mut connections = VecDeque::<AbortHandle>::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let connection = connection(stream, metrics.clone());
        // An error or a timeout concerns only the client.
        let connection = tokio::spawn(timeout(CONNECTION_TIMEOUT, connection));
        connections.push_back(connection.abort_handle());
    }
}

async fn connection(stream: TcpStream, metrics: Metrics) -> hyper::Result<()> {
    let answer = service_fn(move |request: Request<Incoming>| {
        let metrics = metrics.clone();
        async move {
            let answer = answer(request.method(), request.uri().path(), &metrics).await;
            Ok::<_, Infallible>(answer)
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        // A client may close its sending side after the request.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer(method: &Method, path: &str, metrics: &Metrics) -> Response<String> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n".into());
    }
    match path {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" if metrics.serving().get() == 1 => text(StatusCode::OK, "SERVING\n".into()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING\n".into()),
        "/metrics" => {
            // Encoding takes milliseconds, which would block calls on this thread.
            let metrics = metrics.clone();
            match spawn_blocking(move || metrics.text()).await {
                Ok(Ok(body)) => text(StatusCode::OK, body),
                failed => {
                    tracing::error!(cause = ?failed, "cannot encode the metrics");
                    text(StatusCode::INTERNAL_SERVER_ERROR, String::new())
                }
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; use /metrics, /livez or /readyz\n".into(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(prometheus::TEXT_FORMAT),
    );
    response
}
