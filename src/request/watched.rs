//! The end of a call: it is counted, and logged if somebody ought to know.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body, codegen::Bytes};
use tonic_types::StatusExt;
use tracing::Span;
use uuid::Uuid;

use super::facts::Facts;
use crate::{audit::Audit, metrics::RunningCall};

/// A call that is under way. It ends once, and if it is dropped before, its caller has
/// gone away.
pub(super) struct Watched {
    pub(super) span: Span,
    pub(super) id: Uuid,
    pub(super) facts: Arc<Facts>,
    pub(super) audit: Audit,
    /// From how long on a call is slow.
    pub(super) slow: Duration,
    /// Until it ends.
    pub(super) running: Option<RunningCall>,
}

impl Watched {
    /// Whether its answer comes in pieces.
    pub(super) fn is_stream(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.method().is_stream())
    }

    /// Notes how it ended.
    pub(super) fn end(mut self, failure: Option<&Status>) {
        self.note_end(failure.map_or(Code::Ok, Status::code), failure);
    }

    fn note_end(&mut self, code: Code, failure: Option<&Status>) {
        let Some(running) = self.running.take() else {
            return;
        };
        let took = running.end(code);
        self.trace_end(code);
        let info = failure.and_then(|status| status.get_details_error_info());
        let is_told = self.audit.record(self.id, &self.facts, code, info.as_ref());
        let is_slow = took >= self.slow && !running.method().is_stream();
        let cause = self.facts.cause();
        if is_told || (code == Code::Ok && !is_slow && cause.is_none()) {
            return;
        }
        let reason = info.map(|info| info.reason);
        macro_rules! event {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    target: "bridgebook::call",
                    request_id = %self.id,
                    correlation_id = self.facts.correlation_id.get().map(String::as_str),
                    rpc = self.audit.rpc_name(),
                    namespace = self.facts.namespace.get().map(String::as_str),
                    code = ?code,
                    reason,
                    cause,
                    duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    $message
                )
            };
        }
        match code {
            Code::Ok if is_slow => event!(warn, "slow"),
            Code::Ok => event!(warn, "items failed"),
            Code::Internal | Code::Unknown | Code::DataLoss => event!(error, "failed"),
            Code::Unavailable | Code::DeadlineExceeded => event!(warn, "failed"),
            _ => event!(info, "failed"),
        }
    }

    fn trace_end(&self, code: Code) {
        if self.span.is_disabled() {
            return;
        }
        self.span.record("rpc.grpc.status_code", i32::from(code));
        self.span
            .record("request_id", tracing::field::display(self.id));
        if let Some(namespace) = self.facts.namespace.get() {
            self.span.record("namespace", namespace);
        }
        if let Some(correlation_id) = self.facts.correlation_id.get() {
            self.span.record("correlation_id", correlation_id);
        }
        // As OpenTelemetry has it for servers: those that are not the caller's fault.
        if matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ) {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.note_end(Code::Cancelled, None);
    }
}

/// An answer that comes in pieces: the call ends with the last of them.
pub(super) struct WatchedBody {
    pub(super) body: Body,
    pub(super) watched: Option<Watched>,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let end = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(Status::from_header_map),
            Some(Err(status)) => Some(Some(status.clone())),
            None => Some(None),
        };
        if let (Some(failure), Some(watched)) = (end, &mut self.watched) {
            let failure = failure.filter(|status| status.code() != Code::Ok);
            let code = failure.as_ref().map_or(Code::Ok, Status::code);
            watched.note_end(code, failure.as_ref());
            self.watched = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
