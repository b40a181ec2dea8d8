//! Traces: a span for each call, below it one for the batch that it shares with others,
//! and below that one for each statement.
//!
//! They go to whoever speaks OTLP, see `telemetry`; where nobody was named, no span is
//! made. The context of a call is read from its header `traceparent` (W3C), and so its
//! spans are part of its caller's trace. A batch is part of the trace of its first call,
//! and linked to the others.

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::proto::Method;

/// The target of all spans, by which they are told from events of the log.
pub(crate) const TARGET: &str = "bridgebook::trace";

/// How many calls a batch is linked to at most: as many links as a span may have.
const MAX_LINKS: usize = 128;

/// The span of a call.
pub(crate) fn call(method: Method, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: TARGET,
        "call",
        otel.name = Empty,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.service = method.service,
        rpc.method = method.name,
        rpc.grpc.status_code = Empty,
        request_id = Empty,
        namespace = Empty,
        correlation_id = Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{}/{}", method.service, method.name));
        let context = TraceContextPropagator::new().extract(&Headers(headers));
        // It fails only once a span has begun.
        let _ = span.set_parent(context);
    }
    span
}

/// The span of a batch of so many items that does the work of these calls.
pub(crate) fn batch<'a>(
    operation: &'static str,
    items: usize,
    mut calls: impl Iterator<Item = &'a Span>,
) -> Span {
    let first = calls.next().and_then(Span::id);
    let span = tracing::info_span!(
        target: TARGET,
        parent: first,
        "batch",
        otel.name = operation,
        items,
    );
    if !span.is_disabled() {
        for call in calls.take(MAX_LINKS) {
            span.follows_from(call);
        }
    }
    span
}

/// The span of a statement, which belongs to whatever is being done.
pub(crate) fn statement() -> Span {
    tracing::info_span!(
        target: TARGET,
        "statement",
        otel.name = Empty,
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = "postgresql",
        db.query.text = Empty,
    )
}

/// The headers of a call, as OpenTelemetry reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
