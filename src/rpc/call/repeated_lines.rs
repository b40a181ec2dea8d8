//! Collapses equal lines of the log. During an outage or an overload, thousands of calls per second
//! fail for the same cause.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;
use tonic::Code;

use super::severity::{at_level, severity};
use crate::domain::id::TokenId;

/// How long equal lines are counted before one line reports their number.
const WINDOW: Duration = Duration::from_secs(1);

/// The most kinds that are counted at a time, because callers can make many. Lines of further kinds
/// are counted by their code alone.
const MAX_KINDS: usize = 1024;

/// The key by which lines count as equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LineKind {
    /// Whether the lines belong in the audit log.
    pub(super) is_audited: bool,
    /// The code of the calls. `Ok` stands for slow calls and for batches with failed items.
    pub(super) code: Code,
    /// The reason that the callers are told.
    pub(super) reason: Option<String>,
    /// The cause that they are not told.
    pub(super) cause: Option<String>,
    /// The origin of the calls, unless the cause lies within the service: then the calls of all
    /// callers fail alike.
    pub(super) origin: Origin,
}

/// The origin of calls whose lines are counted together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    /// The path of the RPC.
    pub(super) rpc: Option<String>,
    /// The namespace that the calls name.
    pub(super) namespace: Option<String>,
    /// The token that the calls are made with.
    pub(super) token_id: Option<TokenId>,
    /// The address of clients without a token.
    pub(super) peer: Option<IpAddr>,
    /// The subject of the certificate of clients without a token.
    pub(super) subject: Option<String>,
}

impl LineKind {
    /// Returns the kind that stands for all kinds over [`MAX_KINDS`].
    fn further(&self) -> Self {
        LineKind {
            is_audited: self.is_audited,
            code: self.code,
            reason: None,
            cause: None,
            origin: Origin::default(),
        }
    }

    fn log(&self, repeated: u64) {
        let is_slow = self.code == Code::Ok && self.cause.is_none();
        let level = severity(self.code, is_slow || self.cause.is_some());
        let Origin {
            rpc,
            namespace,
            token_id,
            peer,
            subject,
        } = &self.origin;
        macro_rules! event {
            ($target:literal, $message:literal) => {
                at_level!(
                    level,
                    $target,
                    rpc,
                    namespace,
                    token_id = token_id.map(tracing::field::display),
                    peer = peer.map(tracing::field::display),
                    subject,
                    code = ?self.code,
                    reason = self.reason,
                    cause = self.cause,
                    repeated,
                    $message
                )
            };
        }
        match self.code {
            _ if self.is_audited => event!("bridgebook::audit", "calls rejected"),
            Code::Ok if is_slow => event!("bridgebook::call", "slow calls"),
            Code::Ok => event!("bridgebook::call", "items of batches failed"),
            _ => event!("bridgebook::call", "calls failed"),
        }
    }
}

/// The kinds of lines that are being counted. Cheap to clone; clones share the counts.
#[derive(Clone, Default)]
pub struct RepeatedLines(Arc<Mutex<HashMap<LineKind, u64>>>);

impl RepeatedLines {
    /// Returns whether to log a line: whether it is the first of its kind. Others are counted.
    /// One line per second reports their number until there are none.
    pub(super) fn is_first(&self, kind: LineKind) -> bool {
        let mut counts = self.lock();
        let kind = match counts.len() < MAX_KINDS || counts.contains_key(&kind) {
            true => kind,
            false => kind.further(),
        };
        if let Some(count) = counts.get_mut(&kind) {
            *count += 1;
            return false;
        }
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
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

    fn kind(cause: &str) -> LineKind {
        LineKind {
            is_audited: false,
            code: Code::Unavailable,
            reason: None,
            cause: Some(cause.to_owned()),
            origin: Origin::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_line_of_each_kind_is_logged_and_the_others_are_counted() {
        let lines = RepeatedLines::default();
        assert!(lines.is_first(kind("a")) && lines.is_first(kind("b")));
        assert!(!lines.is_first(kind("a")) && !lines.is_first(kind("a")));
        assert_eq!(lines.take(&kind("a")), Some(2));
        // The report of a second without lines ends the count.
        tokio::time::sleep(WINDOW * 2).await;
        assert!(lines.lock().is_empty());
        assert!(lines.is_first(kind("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_different_kinds_is_counted_by_its_code() {
        let lines = RepeatedLines::default();
        let flood = (0..10 * MAX_KINDS).map(|n| kind(&n.to_string()));
        let logged = flood.filter(|kind| lines.is_first(kind.clone())).count();
        assert_eq!(logged, MAX_KINDS + 1);
        let further = kind("").further();
        assert_eq!(lines.take(&further), Some((9 * MAX_KINDS - 1) as u64));
        assert!(lines.lock().len() <= MAX_KINDS + 1);
    }
}
