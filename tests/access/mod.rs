//! Who may do what.

mod audit;
mod command;
mod credentials;
mod journal;
mod tls;
