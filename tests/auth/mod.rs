//! Authentication, authorization and the audit log.

mod audit;
mod credentials;
mod every_rpc;
mod journal;
mod tls;
