//! The level of a line about a call.

use tonic::Code;
use tracing::Level;

/// Returns the level of a line about a call with this code. `is_ours` tells that the cause lies
/// within the service or its database.
pub(super) fn severity(code: Code, is_ours: bool) -> Level {
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => Level::ERROR,
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::ResourceExhausted => Level::WARN,
        _ if is_ours => Level::WARN,
        _ => Level::INFO,
    }
}

/// Logs an event at a level that is known at run time only. tracing's macros need constants.
macro_rules! at_level {
    ($level:expr, $target:literal, $($event:tt)*) => {
        match $level {
            tracing::Level::ERROR => tracing::error!(target: $target, $($event)*),
            tracing::Level::WARN => tracing::warn!(target: $target, $($event)*),
            _ => tracing::info!(target: $target, $($event)*),
        }
    };
}

pub(super) use at_level;
