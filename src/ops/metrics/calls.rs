//! Metrics of calls, with the names of go-grpc-prometheus, which dashboards know.

use std::time::{Duration, Instant};

use prometheus::{HistogramVec, IntCounterVec, Registry, histogram_opts, opts};
use tonic::Code;

use super::register;
use crate::proto::{Method, Rpc};

/// The usual buckets, and smaller ones for calls that take a fraction of a millisecond.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

const LABELS: &[&str] = &["grpc_type", "grpc_service", "grpc_method"];

/// The reasons of calls that fail with RESOURCE_EXHAUSTED.
const REJECTIONS: [&str; 6] = [
    "HEADERS_TOO_LARGE",
    "MESSAGE_TOO_LARGE",
    "OVERLOADED",
    "QUEUE_FULL",
    "QUOTA_EXCEEDED",
    "TOO_MANY_CONNECTIONS",
];

/// Metrics of calls, by method.
#[derive(Clone)]
pub struct CallMetrics {
    started: IntCounterVec,
    handled: IntCounterVec,
    rejected: IntCounterVec,
    seconds: HistogramVec,
}

impl CallMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let started = opts!(
            "grpc_server_started_total",
            "Calls that started, by method; unknown methods are \"unknown\"."
        );
        let handled = opts!(
            "grpc_server_handled_total",
            "Calls that ended, by method and code; Canceled if the caller disconnected."
        );
        let rejected = opts!(
            "bridgebook_rejected_calls_total",
            "Calls that failed with ResourceExhausted, by service and reason."
        );
        let seconds = histogram_opts!(
            "grpc_server_handling_seconds",
            "Duration of calls from their headers to the end of their response, in seconds.",
            SECONDS.to_vec()
        );
        let with_code: Vec<_> = LABELS.iter().copied().chain(["grpc_code"]).collect();
        let calls = CallMetrics {
            started: register(registry, IntCounterVec::new(started, LABELS)?)?,
            handled: register(registry, IntCounterVec::new(handled, &with_code)?)?,
            rejected: register(
                registry,
                IntCounterVec::new(rejected, &["grpc_service", "reason"])?,
            )?,
            seconds: register(registry, HistogramVec::new(seconds, LABELS)?)?,
        };
        // A series must exist before its first failure, or rate() does not see the increase.
        for rpc in Rpc::ALL {
            let labels = Method::from_path(rpc.path()).labels();
            calls.started.with_label_values(&labels);
            calls.seconds.with_label_values(&labels);
            let [kind, service, name] = labels;
            for code in [Code::Ok, Code::Internal, Code::Unavailable] {
                let labels = [kind, service, name, code_name(code)];
                calls.handled.with_label_values(&labels);
            }
            for reason in REJECTIONS {
                calls.rejected.with_label_values(&[service, reason]);
            }
        }
        Ok(calls)
    }

    /// Counts the start of a call.
    #[must_use]
    pub fn begin(&self, method: Method) -> RunningCall {
        self.started.with_label_values(&method.labels()).inc();
        RunningCall {
            metrics: self.clone(),
            method,
            begun: Instant::now(),
        }
    }
}

/// A call in progress.
pub struct RunningCall {
    metrics: CallMetrics,
    method: Method,
    begun: Instant,
}

impl RunningCall {
    /// Returns the method of the call.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Counts the end of the call, with the reason of a failure. Returns its duration.
    pub fn end(&self, code: Code, reason: Option<&str>) -> Duration {
        let took = self.begun.elapsed();
        let labels = self.method.labels();
        let [kind, service, name] = labels;
        self.metrics
            .handled
            .with_label_values(&[kind, service, name, code_name(code)])
            .inc();
        if code == Code::ResourceExhausted {
            let rejected = &self.metrics.rejected;
            let reason = reason.unwrap_or("unknown");
            rejected.with_label_values(&[service, reason]).inc();
        }
        self.metrics
            .seconds
            .with_label_values(&labels)
            .observe(took.as_secs_f64());
        took
    }
}

/// Returns the name of a code as grpc-go spells it, which dashboards expect.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
