//! A second port, for what reads only HTTP: Prometheus, and some load balancers.
//!
//! `/metrics`, `/livez` (the process answers) and `/readyz` (health says SERVING). It asks
//! nobody for a token, as it says nothing of a tenant.

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

/// How many connections there may be. If there is one more the oldest goes: an answer
/// takes milliseconds, so it is from somebody who does not take it.
const CONNECTIONS: usize = 64;

/// How long a connection may last, which is good for one request: who scrapes or looks
/// comes back seconds later.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client has to say what it wants.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait if connections can't be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for ever.
pub async fn serve(listener: TcpListener, metrics: Metrics) {
    let mut connections = VecDeque::<AbortHandle>::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let connection = connection(stream, metrics.clone());
        // How it ends is the other end's affair.
        let connection = tokio::spawn(timeout(PATIENCE, connection));
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
        .header_read_timeout(HEADER_PATIENCE)
        .keep_alive(false)
        // Who has asked may have nothing more to say.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

async fn answer(method: &Method, path: &str, metrics: &Metrics) -> Response<String> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    match path {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" if metrics.serving().get() == 1 => text(StatusCode::OK, "SERVING\n".into()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING\n".into()),
        "/metrics" => {
            // It takes milliseconds, for which no call should wait.
            let metrics = metrics.clone();
            match spawn_blocking(move || metrics.text()).await {
                Ok(Ok(figures)) => text(StatusCode::OK, figures),
                failed => {
                    tracing::error!("the figures can't be written: {failed:?}");
                    text(StatusCode::INTERNAL_SERVER_ERROR, String::new())
                }
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /metrics, /livez and /readyz\n".into(),
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
