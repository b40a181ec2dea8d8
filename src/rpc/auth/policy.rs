//! Authorization: compares the caller's role and namespaces with the request.

use std::sync::Arc;

use super::token::Token;
use crate::{
    domain::{
        error::{Error, Result},
        id::TokenId,
        namespace::Namespace,
        role::Role,
    },
    proto::Rpc,
    rpc::validate::ProtoEnum,
};

/// The caller of a call.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Anyone: the service runs without tokens.
    Anyone,
    /// The holder of a token.
    Token(Arc<Token>),
}

impl Caller {
    /// Returns the token's id; `None` where the service runs without tokens.
    #[must_use]
    pub fn token_id(&self) -> Option<TokenId> {
        match self {
            Caller::Anyone => None,
            Caller::Token(token) => Some(token.id),
        }
    }
}

/// An authenticated call. [`super::layer`] puts one into the extensions of every request
/// that it lets pass.
#[derive(Debug, Clone)]
pub struct AuthenticatedCall {
    /// The caller.
    pub caller: Caller,
    /// The RPC; `None` for an unknown method.
    pub rpc: Option<Rpc>,
}

impl AuthenticatedCall {
    /// Checks that the caller has the role that the RPC requires. `namespace`, the one
    /// that the request names, goes into the error for the audit log.
    ///
    /// # Errors
    /// [`Error::RoleTooLow`].
    pub fn require_role(&self, namespace: Option<&Namespace>) -> Result<()> {
        let Caller::Token(token) = &self.caller else {
            return Ok(());
        };
        // An unknown method is answered UNIMPLEMENTED, to admins only.
        let needed = self.rpc.map_or(Role::Admin, Rpc::role);
        // A role that only a newer version knows permits nothing here.
        let role = token.role.known();
        match role >= Some(needed) {
            true => Ok(()),
            false => Err(Error::RoleTooLow {
                role: role.map_or("ROLE_UNSPECIFIED", Role::proto_name),
                needed: needed.proto_name(),
                namespace: namespace.map(ToString::to_string),
            }),
        }
    }

    /// Checks that the caller's token covers a namespace.
    ///
    /// # Errors
    /// [`Error::NamespaceDenied`].
    pub fn require_namespace(&self, namespace: &Namespace) -> Result<()> {
        match &self.caller {
            Caller::Token(token) if !token.namespaces.cover(namespace) => {
                Err(Error::NamespaceDenied(namespace.to_string()))
            }
            _ => Ok(()),
        }
    }
}
