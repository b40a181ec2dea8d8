//! The holder of a share of what all calls need.

use std::net::IpAddr;

use crate::{domain::id::TokenId, util::net::client_network};

/// The holder of a share: a token, or the network of an address if calls have no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// The caller's token.
    Token(TokenId),
    /// The client's network, see [`Owner::address`].
    Address(IpAddr),
}

impl Owner {
    /// Returns the owner of calls without a token from an address. All addresses of an IPv6 network of
    /// 64 bits are one owner.
    #[must_use]
    pub fn address(address: IpAddr) -> Self {
        Owner::Address(client_network(address))
    }
}
