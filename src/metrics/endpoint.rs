//! A second port, for what reads only HTTP: Prometheus, and some load balancers.
//!
//! `/metrics`, `/livez` (the process answers) and `/readyz` (health says SERVING). It asks
//! nobody for a token, as it says nothing of a tenant.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::Metrics;

/// How many connections there may be; more wait to be accepted.
const CONNECTIONS: usize = 64;

/// How long a connection may last: a scrape takes milliseconds, and comes again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a client has to say what it wants.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait if connections can't be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for ever.
pub async fn serve(listener: TcpListener, metrics: Metrics) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // How a connection ends is the other end's affair.
            let _ = timeout(PATIENCE, connection(stream, metrics)).await;
        });
    }
}

async fn connection(stream: TcpStream, metrics: Metrics) -> hyper::Result<()> {
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &metrics);
        async { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

fn answer(method: &Method, path: &str, metrics: &Metrics) -> Response<String> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
    }
    match path {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" if metrics.serving().get() == 1 => text(StatusCode::OK, "SERVING\n".into()),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING\n".into()),
        "/metrics" => match metrics.text() {
            Ok(figures) => text(StatusCode::OK, figures),
            Err(error) => {
                tracing::error!("the figures can't be written: {error}");
                text(StatusCode::INTERNAL_SERVER_ERROR, String::new())
            }
        },
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
