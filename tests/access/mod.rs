//! Who may do what.

mod command;
mod credentials;
mod journal;
