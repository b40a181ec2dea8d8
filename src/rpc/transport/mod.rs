//! Connections: from the socket to the calls that they carry.
//!
//! [`listener`] accepts connections, and [`eviction`] decides which ones stay. [`backpressure`]
//! decides when they are read. [`tls`] encrypts them. [`connection`] serves one over HTTP/2 until a
//! limit closes it; [`flood`] closes those that cost much without making calls. [`peer`] is what a
//! call knows of its connection.
//!
//! hyper implements HTTP/2, as it does in tonic's own server. That server is not used,
//! because it cannot evict a connection, nor close an idle or stalled one.

pub mod backpressure;
mod coalesce;
mod connection;
pub mod eviction;
mod flood;
mod frame_budgets;
mod frames;
mod goaway;
mod header_block;
pub mod listener;
pub mod owner;
pub mod peer;
mod preface_timeout;
mod refused_calls;
pub mod tls;
