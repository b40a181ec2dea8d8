//! Connections: from the socket to the calls that they carry.
//!
//! [`listener`] accepts them, as many as may be, and [`guests`] knows who could go; [`tls`] makes them private; [`connection`]
//! serves one, over HTTP/2, until its time has come; [`peer`] is what a call knows of the
//! connection that it came on. hyper speaks HTTP/2, as it does in tonic's own server. We
//! drive it ourselves because that server can neither close a connection that is idle or
//! stalled, nor let go of one gently when it is old.

mod coalesce;
mod connection;
pub mod eviction;
pub mod listener;
pub mod peer;
mod preface_timeout;
pub mod tls;
