//! What the log keeps of who was refused, and of what administrators did: one event
//! for each such call, under the target `bridgebook::audit`.

use std::sync::Arc;

use http::{Request, Response};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::{access::rules, access::token::Role, id::TokenId, proto::Rpc, transport::peer::Peer};

/// The longest path of a method that there is not, in bytes: it is the caller's.
const MAX_PATH: usize = 100;

/// Beside an answer: which token the call was made with.
#[derive(Debug, Clone, Copy)]
pub struct MadeWith(pub TokenId);

/// Beside an answer: which token an administrator created or revoked.
#[derive(Debug, Clone, Copy)]
pub struct Touched(pub TokenId);

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

    /// Notes how the call ended, if that is to be kept; `failure` is its status, if
    /// it failed.
    pub fn record<B>(&self, request_id: Uuid, response: &Response<B>, failure: Option<&Status>) {
        let code = failure.map_or(Code::Ok, Status::code);
        let is_refused = matches!(
            code,
            Code::Unauthenticated | Code::PermissionDenied | Code::ResourceExhausted
        );
        let is_admins = self
            .rpc
            .is_some_and(|rpc| rules::needed(rpc) == Role::Admin);
        if !is_refused && !is_admins {
            return;
        }
        let extensions = response.extensions();
        let info = failure.and_then(|status| status.get_details_error_info());
        let namespace = info
            .as_ref()
            .and_then(|info| info.metadata.get("namespace"));
        let token_id = extensions.get::<MadeWith>().map(|it| it.0.to_string());
        let touched = extensions.get::<Touched>().map(|it| it.0.to_string());
        let reason = info.as_ref().map_or("", |info| info.reason.as_str());
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
    }

    /// What was called, without what would break a line.
    fn rpc_name(&self) -> String {
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
