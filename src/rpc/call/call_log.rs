//! The end of a call: its metrics, its span and its line in the log.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status, body::Body, codegen::Bytes};
use tonic_types::{ErrorInfo, StatusExt};
use tracing::Span;

use super::{
    audit_log::{AuditLog, is_rejected},
    our_status::replace,
    repeated_lines::{LineKind, Origin, RepeatedLines},
    severity::{at_level, severity},
};
use crate::{
    ops::metrics::RunningCall,
    rpc::{context::CallContext, status::cause_text},
};

/// A call in progress. It ends once; dropped early, it ends as CANCELLED, because its caller
/// has gone away.
pub(super) struct CallLog {
    pub(super) span: Span,
    pub(super) context: CallContext,
    pub(super) audit: AuditLog,
    /// Duration from which the call is logged as slow.
    pub(super) slow: Duration,
    /// Present until the call ends.
    pub(super) running: Option<RunningCall>,
    /// The lines that are counted instead of logged.
    pub(super) repeated_lines: RepeatedLines,
}

impl CallLog {
    /// Returns whether the call is answered by a stream.
    pub(super) fn is_stream(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.method().is_stream())
    }

    /// Notes the end of the call. `cause` is the internal reason of a failed call or item.
    pub(super) fn end(mut self, failure: Option<&Status>, cause: Option<&str>) {
        self.note_end(failure.map_or(Code::Ok, Status::code), failure, cause);
    }

    fn note_end(&mut self, code: Code, failure: Option<&Status>, cause: Option<&str>) {
        let Some(running) = self.running.take() else {
            return;
        };
        let info = failure.and_then(|status| status.get_details_error_info());
        let reason = info.as_ref().map(|info| info.reason.as_str());
        let duration = running.end(code, reason);
        self.end_span(code);
        if let Some(failure) = failure {
            self.audit.count_refusal(failure);
        } else if code == Code::Cancelled {
            self.audit.count_abandoned();
        }
        let is_audited = self.audit.includes(code);
        let is_slow = duration >= self.slow && !running.method().is_stream();
        // A stream has no other end than that its client leaves.
        let is_usual = match code {
            Code::Ok => !is_slow && cause.is_none(),
            Code::Cancelled => running.method().is_stream(),
            _ => false,
        };
        if is_usual && !is_audited {
            return;
        }
        // Each call that an administrator makes has a line, and each stream. Others may fail, in any number.
        let is_admin = self.audit.is_admin() && self.context.is_administrator();
        let has_line = is_admin || self.audit.is_stream();
        let is_first = (has_line && !is_rejected(code)) || {
            let kind = self.line_kind(code, info.as_ref(), cause);
            self.repeated_lines.is_first(kind)
        };
        match (is_first, is_audited) {
            (false, _) => {}
            (true, true) => {
                let info = info.as_ref();
                self.audit
                    .record(&self.context, code, info, cause, duration);
            }
            (true, false) => self.log(code, info.as_ref(), cause, duration),
        }
    }

    fn log(&self, code: Code, info: Option<&ErrorInfo>, cause: Option<&str>, duration: Duration) {
        macro_rules! event {
            ($message:literal) => {
                at_level!(
                    severity(code, code == Code::Ok || cause.is_some()),
                    "bridgebook::call",
                    request_id = %self.context.request_id(),
                    correlation_id = self.context.correlation_id(),
                    rpc = self.audit.rpc_name(),
                    namespace = self.context.namespace(),
                    token_id = self.context.token_id().map(tracing::field::display),
                    peer = self.audit.peer_address().map(tracing::field::display),
                    code = ?code,
                    reason = info.map(|info| info.reason.as_str()),
                    cause,
                    duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
                    $message
                )
            };
        }
        match code {
            Code::Ok if cause.is_some() => event!("items failed"),
            Code::Ok => event!("slow call"),
            _ => event!("call failed"),
        }
    }

    /// Returns the kind of the call's line. Failures within the service count together for all
    /// callers, those of callers for each caller.
    fn line_kind(&self, code: Code, info: Option<&ErrorInfo>, cause: Option<&str>) -> LineKind {
        // Callers choose the names of unknown methods, so these count together.
        let rpc = (!self.audit.is_unknown()).then(|| self.audit.rpc_name());
        let origin = match code {
            _ if cause.is_some() => Origin::default(),
            Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled => Origin::default(),
            Code::Ok => Origin {
                rpc,
                ..Origin::default()
            },
            _ => self.caller(rpc, info),
        };
        LineKind {
            is_audited: self.audit.includes(code),
            code,
            reason: info.map(|info| info.reason.clone()),
            cause: cause.map(ToOwned::to_owned),
            origin,
        }
    }

    fn caller(&self, rpc: Option<String>, info: Option<&ErrorInfo>) -> Origin {
        let token_id = self.context.token_id();
        let peer = self.audit.peer_address().map(|address| address.ip());
        let namespace = self.audit.namespace(&self.context, info);
        Origin {
            rpc,
            namespace: namespace.map(ToOwned::to_owned),
            token_id,
            peer: peer.filter(|_| token_id.is_none()),
            subject: self.audit.subject().filter(|_| token_id.is_none()),
        }
    }

    fn end_span(&self, code: Code) {
        if self.span.is_disabled() {
            return;
        }
        let request_id = self.context.request_id();
        self.span.record("rpc.grpc.status_code", i32::from(code));
        self.span
            .record("request_id", tracing::field::display(request_id));
        if let Some(namespace) = self.context.namespace() {
            self.span.record("namespace", namespace);
        }
        if let Some(correlation_id) = self.context.correlation_id() {
            self.span.record("correlation_id", correlation_id);
        }
        // The codes that OpenTelemetry defines as errors of the server.
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

impl Drop for CallLog {
    fn drop(&mut self) {
        self.note_end(Code::Cancelled, None, None);
    }
}

/// The body of a streamed answer. The call ends with it.
pub(super) struct LoggedBody {
    pub(super) body: Body,
    pub(super) log: Option<CallLog>,
    /// Maximum size of a message of the call, in bytes.
    pub(super) max_message: usize,
}

impl LoggedBody {
    /// Replaces the status of tonic at the end of the stream by ours.
    fn with_our_status(&self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        if let (Some(trailers), Some(log)) = (frame.trailers_mut(), &self.log)
            && let Some(failure) = Status::from_header_map(trailers)
            && let Some(ours) = replace(&failure, &log.audit, self.max_message)
        {
            let mut headers = HeaderMap::new();
            if ours.add_header(&mut headers).is_ok() {
                *trailers = headers;
            }
        }
        frame
    }
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // The stream belongs to the call, as its beginning does: its errors have the request id.
        let call = self.log.as_ref().map(|log| log.context.clone());
        let body = Pin::new(&mut self.body);
        let frame = match call {
            Some(call) => call.enter(|| body.poll_frame(context)),
            None => body.poll_frame(context),
        };
        let frame = ready!(frame);
        let frame = frame.map(|frame| frame.map(|frame| self.with_our_status(frame)));
        let end = match &frame {
            Some(Ok(frame)) => frame.trailers_ref().map(Status::from_header_map),
            Some(Err(status)) => Some(Some(status.clone())),
            None => Some(None),
        };
        if let Some(failure) = end
            && let Some(log) = self.log.take()
        {
            let failure = failure.filter(|status| status.code() != Code::Ok);
            let cause = log.context.stream_cause().map(cause_text);
            log.end(failure.as_ref(), cause.as_deref());
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
