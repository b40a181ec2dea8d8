//! Network addresses.

use std::net::SocketAddr;

/// Returns whether only this machine can connect to an address.
#[must_use]
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
