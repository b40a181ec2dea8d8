//! The audit log: one event under the target `bridgebook::audit` for each call that was
//! rejected, and for each call of an administrator.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use tonic::{Code, Status};
use tonic_types::{ErrorInfo, StatusExt};

use super::severity::{at_level, severity};
use crate::{
    domain::role::Role,
    proto::{Rpc, is_infrastructure_rpc},
    rpc::{context::CallContext, request_head::target, transport::peer::Peer},
    util::excerpt::{MAX_VALUE, excerpt},
};

/// Maximum length of a subject, in characters. An operator copies it from the log in order to map
/// it, so the subjects of usual certificates are not cut.
const MAX_SUBJECT: usize = 512;

/// The method and the peer of a call.
pub(super) struct AuditLog {
    rpc: Option<Rpc>,
    /// The path of a call that is none of ours, as an excerpt. Not the URI, whose other parts a health
    /// watch would keep for as long as it lasts.
    other: String,
    is_infrastructure: bool,
    peer: Option<Arc<Peer>>,
}

impl AuditLog {
    /// Notes the method and the peer of a call.
    pub(super) fn new<B>(request: &Request<B>) -> Self {
        let peer = request.extensions().get::<Arc<Peer>>();
        let target = target(request.uri());
        let rpc = Rpc::from_path(target);
        let other = rpc.is_none().then(|| excerpt(target, MAX_VALUE));
        AuditLog {
            rpc,
            other: other.unwrap_or_default(),
            is_infrastructure: is_infrastructure_rpc(target),
            peer: peer.cloned(),
        }
    }

    /// Returns whether the call is one that only administrators may make.
    pub(super) fn is_admin(&self) -> bool {
        self.rpc.is_some_and(|rpc| rpc.role() == Role::Admin)
    }

    /// Counts the call against the limits of its connection, if it was refused.
    pub(super) fn count_refusal(&self, failure: &Status) {
        if let Some(peer) = self.peer.as_ref().filter(|_| self.is_refusal(failure)) {
            peer.slot.count_refused_call();
        }
    }

    /// Counts the call in the same way, if its client did not wait for its end. Otherwise a flood of
    /// cancelled calls would cost more than one of refused calls.
    pub(super) fn count_abandoned(&self) {
        if let Some(peer) = self.peer.as_ref().filter(|_| !self.is_infrastructure) {
            peer.slot.count_refused_call();
        }
    }

    /// Returns whether a call without a valid credential fails with this status by its own fault.
    fn is_refusal(&self, failure: &Status) -> bool {
        match failure.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::InvalidArgument
            | Code::NotFound => true,
            // The client gave the service no time to check its credential.
            Code::DeadlineExceeded => !self.is_infrastructure,
            // The service may be overloaded, but nothing keeps it from answering a few health checks.
            Code::ResourceExhausted => {
                self.is_infrastructure || failure.get_details_retry_info().is_none()
            }
            _ => false,
        }
    }

    /// Returns whether a call with this code belongs in the audit log.
    pub(super) fn includes(&self, code: Code) -> bool {
        self.is_admin() || self.is_stream() || is_rejected(code)
    }

    /// Returns whether the call is answered by a stream of tenant data.
    pub(super) fn is_stream(&self) -> bool {
        self.rpc.is_some_and(Rpc::is_stream)
    }

    /// Logs the end of a call. `info` is what the caller is told of a failure, `cause` its internal
    /// reason.
    pub(super) fn record(
        &self,
        call: &CallContext,
        code: Code,
        info: Option<&ErrorInfo>,
        cause: Option<&str>,
        duration: Duration,
    ) {
        let open = duration.as_millis();
        let open = self
            .is_stream()
            .then(|| u64::try_from(open).unwrap_or(u64::MAX));
        let target_token_id = call.target_token_id().map(|id| id.to_string());
        let subject = self.subject();
        let reason = info.map_or("", |info| info.reason.as_str());
        let quota = call.target_quota();
        let limit_of = |key: &str| info?.metadata.get(key).map(String::as_str);
        macro_rules! event {
            ($message:literal) => {
                at_level!(
                    severity(code, cause.is_some()),
                    "bridgebook::audit",
                    request_id = %call.request_id(),
                    token_id = call.token_id().map(tracing::field::display),
                    rpc = self.rpc_name(),
                    namespace = self.namespace(call, info),
                    code = ?code,
                    reason,
                    cause,
                    duration_ms = open,
                    target_token_id,
                    calls_per_second = quota.and_then(|it| it.calls_per_second),
                    items_per_second = quota.and_then(|it| it.items_per_second),
                    calls_in_progress = quota.and_then(|it| it.calls_in_progress),
                    weight = quota.and_then(|it| it.weight),
                    quota_of = info.and_then(exceeded_quota),
                    limit = limit_of("limit"),
                    setting = limit_of("setting"),
                    peer = self.peer_address().map(tracing::field::display),
                    subject,
                    $message
                )
            };
        }
        match is_rejected(code) {
            true => event!("call rejected"),
            false if self.is_stream() => event!("stream ended"),
            false => event!("admin call"),
        }
    }

    /// Returns the namespace that a call names. The rejection of a call may be all that tells it.
    pub(super) fn namespace<'a>(
        &self,
        call: &'a CallContext,
        info: Option<&'a ErrorInfo>,
    ) -> Option<&'a str> {
        let rejected = info.and_then(|info| info.metadata.get("namespace"));
        rejected.map(String::as_str).or(call.namespace())
    }

    /// Returns the address of the client.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        self.peer.as_ref().map(|peer| peer.address)
    }

    /// Returns the subject of the client's certificate, as an excerpt.
    pub(super) fn subject(&self) -> Option<String> {
        let subject = self.peer.as_ref().and_then(|peer| peer.subject.as_deref());
        subject.map(|subject| excerpt(subject, MAX_SUBJECT))
    }

    /// Returns the path of the call, as an excerpt if it is unknown: callers choose it.
    pub(super) fn rpc_name(&self) -> String {
        match self.rpc {
            Some(rpc) => rpc.path().to_owned(),
            None => self.other.clone(),
        }
    }

    /// Returns whether the server has no such method.
    pub(super) fn is_unknown(&self) -> bool {
        self.rpc.is_none() && !self.is_infrastructure
    }
}

/// Returns the kind of the subject whose quota a call exceeds, if it exceeds one.
fn exceeded_quota(info: &ErrorInfo) -> Option<&'static str> {
    let subjects = [("token_id", "token"), ("namespace", "namespace")];
    let mut subjects = subjects
        .into_iter()
        .filter(|(key, _)| info.reason == "QUOTA_EXCEEDED" && info.metadata.contains_key(*key));
    subjects.next().map(|(_, subject)| subject)
}

/// Returns whether a call with this code was rejected before its work began.
pub(super) fn is_rejected(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::ResourceExhausted
    )
}
