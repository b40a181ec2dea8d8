//! Collapses equal lines of the log. During an outage or an overload, thousands of calls per second
//! fail for the same cause.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;
use tonic::Code;

use crate::domain::id::TokenId;

/// How long equal lines are counted before one line reports their number.
const WINDOW: Duration = Duration::from_secs(1);

/// The most causes that are counted at a time. Lines of further ones are all logged.
const MAX_CAUSES: usize = 1024;

/// The key by which lines count as equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LineKind {
    /// The code of the calls.
    pub(super) code: Code,
    /// The reason that the callers are told.
    pub(super) reason: Option<String>,
    /// The cause that they are not told.
    pub(super) cause: Option<String>,
    /// The token of rejected calls. Their lines are in the audit log.
    pub(super) token_id: Option<TokenId>,
}

impl LineKind {
    /// Returns whether calls with this code fail because of the state of the server or of a client,
    /// and so in great numbers.
    pub(super) fn is_collapsed(code: Code) -> bool {
        matches!(
            code,
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled
        )
    }

    fn log(&self, repeated: u64) {
        let token_id = self.token_id.map(|id| id.to_string());
        macro_rules! event {
            ($level:ident, $target:literal, $message:literal) => {
                tracing::$level!(
                    target: $target,
                    token_id,
                    code = ?self.code,
                    reason = self.reason,
                    cause = self.cause,
                    repeated,
                    $message
                )
            };
        }
        match self.code {
            Code::ResourceExhausted => event!(warn, "bridgebook::audit", "calls rejected"),
            Code::Cancelled => event!(info, "bridgebook::call", "calls failed"),
            _ => event!(warn, "bridgebook::call", "calls failed"),
        }
    }
}

/// The kinds of lines that are being counted. Cheap to clone; clones share the counts.
#[derive(Clone, Default)]
pub struct RepeatedLines(Arc<Mutex<HashMap<LineKind, u64>>>);

impl RepeatedLines {
    /// Returns whether to log a line: whether it is the first of its kind. Others are counted,
    /// and one line per second reports their number until there are none.
    pub(super) fn is_first(&self, kind: LineKind) -> bool {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(&kind) {
            *count += 1;
            return false;
        }
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current()
            && counts.len() < MAX_CAUSES
        {
            counts.insert(kind.clone(), 0);
            runtime.spawn(self.clone().report(kind));
        }
        true
    }

    async fn report(self, kind: LineKind) {
        loop {
            tokio::time::sleep(WINDOW).await;
            match self.take(&kind) {
                Some(repeated) => kind.log(repeated),
                None => return,
            }
        }
    }

    /// Returns the count of a kind, and counts from zero again. Forgets a kind without lines.
    fn take(&self, kind: &LineKind) -> Option<u64> {
        let mut counts = self.lock();
        let count = counts.get_mut(kind).map(std::mem::take);
        let count = count.filter(|count| *count > 0);
        if count.is_none() {
            counts.remove(kind);
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LineKind, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_line_of_each_kind_is_logged_and_the_others_are_counted() {
        let lines = RepeatedLines::default();
        let kind = |cause: &str| LineKind {
            code: Code::Unavailable,
            reason: None,
            cause: Some(cause.to_owned()),
            token_id: None,
        };
        assert!(lines.is_first(kind("a")) && lines.is_first(kind("b")));
        assert!(!lines.is_first(kind("a")) && !lines.is_first(kind("a")));
        assert_eq!(lines.take(&kind("a")), Some(2));
        // The report of a second without lines ends the count.
        tokio::time::sleep(WINDOW * 2).await;
        assert!(lines.lock().is_empty());
        assert!(lines.is_first(kind("a")));
    }
}
