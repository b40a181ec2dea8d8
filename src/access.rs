//! Who may do what.
//!
//! A call brings a credential: `authorization: Bearer bb_<id>_<secret>`, or the
//! certificate of its connection. Either stands for a token (`api_tokens`), which has a
//! role and the namespaces that it holds for. [`layer`] finds out which token, before
//! anything of the call is read; [`rules`] says which role a call needs;
//! `namespace::admit` holds the call to both.

pub mod certificate;
pub mod credential;
pub mod layer;
pub mod rules;
pub mod store;
pub mod token;
pub mod verifier;

use std::sync::Arc;

use crate::{
    access::token::{Role, Token},
    error::{Error, Result},
    id::TokenId,
    namespace::Namespace,
    proto::Rpc,
};

/// Who makes a call.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Whoever it is: the service asks nobody.
    Anyone,
    /// Who has this token.
    Token(Arc<Token>),
}

impl Caller {
    /// The token, if the service asked for one.
    #[must_use]
    pub fn token_id(&self) -> Option<TokenId> {
        match self {
            Caller::Anyone => None,
            Caller::Token(token) => Some(token.id),
        }
    }
}

/// Who makes which call. [`layer`] puts one beside every request that it lets in.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who.
    pub caller: Caller,
    /// Which; `None` for a method that there is not.
    pub rpc: Option<Rpc>,
}

impl Call {
    /// Makes sure that the caller has the role that the call needs; `namespace` is
    /// the one that it names, for whoever reads of the refusal.
    ///
    /// # Errors
    /// [`Error::RoleTooLow`].
    pub fn require_role(&self, namespace: Option<&Namespace>) -> Result<()> {
        let Caller::Token(token) = &self.caller else {
            return Ok(());
        };
        // What is in no table is for nobody but admins.
        let needed = self.rpc.map_or(Role::Admin, rules::needed);
        match token.role >= needed {
            true => Ok(()),
            false => Err(Error::RoleTooLow {
                role: token.role.as_str(),
                needed: needed.as_str(),
                namespace: namespace.map(ToString::to_string),
            }),
        }
    }

    /// Makes sure that the caller may act for a namespace.
    ///
    /// # Errors
    /// [`Error::NamespaceDenied`].
    pub fn require_namespace(&self, namespace: &Namespace) -> Result<()> {
        match &self.caller {
            Caller::Token(token) if !token.namespaces.includes(namespace) => {
                Err(Error::NamespaceDenied(namespace.to_string()))
            }
            _ => Ok(()),
        }
    }
}
