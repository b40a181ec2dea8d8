//! Small utilities that know nothing of the service.

pub mod backoff;
pub mod budget;
pub mod client_table;
pub mod counted;
pub mod error_chain;
pub mod excerpt;
pub mod file_watch;
pub mod net;
pub mod open_files;
pub mod pace;
pub mod panics;
pub mod pem;
pub mod progress;
pub mod recent;
pub mod shares;
pub mod unprintable;
