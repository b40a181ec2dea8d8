//! Authentication and authorization.
//!
//! A call presents a credential, `authorization: Bearer bb_<id>_<secret>`, or the client
//! certificate of its connection. Either stands for a token (`api_tokens`), which has a
//! role and the namespaces that it covers. [`layer`] authenticates the call before any
//! byte of its message is read; `rpc::admit` authorizes it by [`policy`].

pub mod certificate;
pub mod credential;
pub mod layer;
pub mod policy;
pub mod store;
pub mod token;
pub mod token_cache;

pub use self::policy::{AuthenticatedCall, Caller};
