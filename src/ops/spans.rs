//! The spans of traces: one for each call, below it one for the batch that it shares with other
//! calls, and below that one for each statement.
//!
//! `telemetry` exports them over OTLP. Without an endpoint no span is created. The span of a call
//! continues the trace of its caller, which the header `traceparent` names (W3C Trace Context). A
//! batch belongs to the trace of its first call and links to the other calls.

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::proto::Method;

/// The target of all spans, which tells them from the events of the log.
pub(crate) const TARGET: &str = "bridgebook::trace";

/// The most calls that a batch links to: OpenTelemetry's default limit of links.
const MAX_LINKS: usize = 128;

/// Maximum length of a header with trace context, in bytes. A longer `tracestate` is dropped, as
/// W3C Trace Context allows from this length on, because each span would repeat it.
const MAX_CONTEXT_BYTES: usize = 512;

/// Creates the span of a call.
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
        // Fails only for a span that has already started.
        let _ = span.set_parent(context);
    }
    span
}

/// Creates the span of a batch with this many items, on behalf of `calls`.
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

/// Creates the span of a statement, as a child of the current span.
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

/// The headers of a call, for OpenTelemetry's propagator.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.to_str().ok()?;
        (value.len() <= MAX_CONTEXT_BYTES).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
