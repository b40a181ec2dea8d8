//! Calls, under the names that go-grpc-prometheus has made usual.

use std::time::{Duration, Instant};

use prometheus::{HistogramVec, IntCounterVec, Registry, histogram_opts, opts};
use tonic::Code;

use super::register;
use crate::proto::Method;
use crate::proto::Rpc;

/// The usual ones, and below them those of calls that take a fraction of a millisecond.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

const LABELS: &[&str] = &["grpc_type", "grpc_service", "grpc_method"];

/// Calls, by method.
#[derive(Clone)]
pub struct CallMetrics {
    started: IntCounterVec,
    handled: IntCounterVec,
    seconds: HistogramVec,
}

impl CallMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let started = opts!(
            "grpc_server_started_total",
            "Calls that began, by method; what is no method of ours is \"unknown\"."
        );
        let handled = opts!(
            "grpc_server_handled_total",
            "Calls that ended, by method and code; Canceled are those whose caller went away."
        );
        let seconds = histogram_opts!(
            "grpc_server_handling_seconds",
            "How long calls took that ended, in seconds, from their headers to their answer.",
            SECONDS.to_vec()
        );
        let with_code: Vec<_> = LABELS.iter().copied().chain(["grpc_code"]).collect();
        let calls = CallMetrics {
            started: register(registry, IntCounterVec::new(started, LABELS)?)?,
            handled: register(registry, IntCounterVec::new(handled, &with_code)?)?,
            seconds: register(registry, HistogramVec::new(seconds, LABELS)?)?,
        };
        // So that the first failure is an increase, and not a figure that was not there.
        for rpc in Rpc::ALL {
            let labels = Method::from_path(rpc.path()).labels();
            calls.started.with_label_values(&labels);
            calls.seconds.with_label_values(&labels);
            let [kind, service, name] = labels;
            for code in [Code::Ok, Code::Internal, Code::Unavailable] {
                let labels = [kind, service, name, code_name(code)];
                calls.handled.with_label_values(&labels);
            }
        }
        Ok(calls)
    }

    /// Notes that a call begins.
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

/// A call that has not ended.
pub struct RunningCall {
    metrics: CallMetrics,
    method: Method,
    begun: Instant,
}

impl RunningCall {
    /// The method that is called.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Notes how it ended; answers how long it took.
    pub fn end(&self, code: Code) -> Duration {
        let took = self.begun.elapsed();
        let labels = self.method.labels();
        let [kind, service, name] = labels;
        self.metrics
            .handled
            .with_label_values(&[kind, service, name, code_name(code)])
            .inc();
        self.metrics
            .seconds
            .with_label_values(&labels)
            .observe(took.as_secs_f64());
        took
    }
}

/// A code as grpc-go, and so every dashboard, writes it.
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
