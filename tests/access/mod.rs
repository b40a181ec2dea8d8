//! Who may do what.

mod audit;
mod command;
mod credentials;
mod every_rpc;
mod journal;
mod tls;
