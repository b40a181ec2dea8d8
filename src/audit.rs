//! What the log keeps of who was refused, and of what administrators did: one event
//! for each such call, under the target `bridgebook::audit`.

use std::sync::Arc;

use http::Request;
use tonic::Code;
use tonic_types::ErrorInfo;
use uuid::Uuid;

use crate::{
    access::{rules, token::Role},
    proto::Rpc,
    request::Facts,
    transport::peer::Peer,
};

/// The longest path of a method that there is not, in bytes: it is the caller's.
const MAX_PATH: usize = 100;

/// What is known of a call before it is served.
#[derive(Debug)]
pub struct Audit {
    rpc: Option<Rpc>,
    path: http::Uri,
    peer: Option<Arc<Peer>>,
}

impl Audit {
    /// Looks at a call.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let peer = request.extensions().get::<Arc<Peer>>();
        Audit {
            rpc: Rpc::from_path(request.uri().path()),
            path: request.uri().clone(),
            peer: peer.cloned(),
        }
    }

    /// Notes how the call ended, if that is to be kept; answers whether it was. `info` is
    /// what the caller is told of a failure.
    pub fn record(
        &self,
        request_id: Uuid,
        facts: &Facts,
        code: Code,
        info: Option<&ErrorInfo>,
    ) -> bool {
        let is_refused = matches!(
            code,
            Code::Unauthenticated | Code::PermissionDenied | Code::ResourceExhausted
        );
        let is_admins = self
            .rpc
            .is_some_and(|rpc| rules::needed(rpc) == Role::Admin);
        if !is_refused && !is_admins {
            return false;
        }
        let refused_namespace = info.and_then(|info| info.metadata.get("namespace"));
        let namespace = refused_namespace.or(facts.namespace.get());
        let token_id = facts.token_id.get().map(ToString::to_string);
        let touched = facts.touched_token_id.get().map(ToString::to_string);
        let reason = info.map_or("", |info| info.reason.as_str());
        macro_rules! event {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    target: "bridgebook::audit",
                    %request_id,
                    token_id,
                    rpc = self.rpc_name(),
                    namespace = namespace.map(String::as_str),
                    code = ?code,
                    reason,
                    touched_token_id = touched,
                    peer = self.peer.as_ref().map(|peer| tracing::field::display(peer.address)),
                    subject = self.peer.as_ref().and_then(|peer| peer.subject.as_deref()),
                    $message
                )
            };
        }
        match is_refused {
            true => event!(warn, "refused"),
            false => event!(info, "administered"),
        }
        true
    }

    /// What was called, without what would break a line of the log.
    pub(crate) fn rpc_name(&self) -> String {
        match self.rpc {
            Some(rpc) => rpc.path().to_owned(),
            None => self
                .path
                .path()
                .chars()
                .take(MAX_PATH)
                .collect::<String>()
                .escape_debug()
                .to_string(),
        }
    }
}
