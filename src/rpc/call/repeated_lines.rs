//! Collapses equal lines of the log. During an outage or an overload, thousands of calls per second
//! fail for the same cause.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;
use tonic::Code;

use super::severity::{at_level, severity};
use crate::{domain::id::TokenId, rpc::transport::owner::Owner, util::net::client_network};

/// How long equal lines are counted before one line reports their number.
const WINDOW: Duration = Duration::from_secs(1);

/// The most kinds that are counted at a time, because callers can make many. Lines of further kinds
/// are counted by their code alone.
const MAX_KINDS: usize = 1024;

/// The most kinds of one caller that are counted at a time. Lines of further kinds are counted by
/// their reason alone: a caller can vary the RPC and the namespace with each call.
const MAX_CALLER_KINDS: usize = 16;

/// The most kinds of callers without a token that are counted at a time. Lines of further kinds are
/// counted by their reason alone, with the number of addresses: anyone can call, and from many
/// addresses.
const MAX_ADDRESS_KINDS: usize = 32;

/// The most addresses of one kind that are counted at a time.
const MAX_ADDRESSES: usize = 4096;

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
    /// Returns the caller, unless the lines are those of all callers.
    fn caller(&self) -> Option<Owner> {
        let token = self.origin.token_id.map(Owner::Token);
        token.or_else(|| self.origin.peer.map(Owner::address))
    }

    /// Returns the kind that stands for all kinds of a caller over [`MAX_CALLER_KINDS`].
    fn by_reason(&self) -> Self {
        LineKind {
            is_audited: self.is_audited,
            code: self.code,
            reason: self.reason.clone(),
            cause: None,
            origin: Origin {
                token_id: self.origin.token_id,
                peer: self.origin.peer.map(client_network),
                ..Origin::default()
            },
        }
    }

    /// Returns the kind that stands for all kinds over [`MAX_ADDRESS_KINDS`].
    fn of_all_addresses(&self) -> Self {
        LineKind {
            origin: Origin::default(),
            ..self.by_reason()
        }
    }

    /// Returns the kind that stands for all kinds over [`MAX_KINDS`].
    fn by_code(&self) -> Self {
        LineKind {
            is_audited: self.is_audited,
            code: self.code,
            reason: None,
            cause: None,
            origin: Origin::default(),
        }
    }

    fn log(&self, count: &Count) {
        let repeated = count.repeated;
        let addresses = Some(count.addresses.len()).filter(|addresses| *addresses > 0);
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
                    addresses,
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

/// The lines of one kind that were not logged.
#[derive(Default)]
struct Count {
    repeated: u64,
    /// The addresses of the callers, if the kind stands for several.
    addresses: HashSet<IpAddr>,
}

/// The kinds of lines that are being counted.
#[derive(Default)]
struct Counts {
    lines: HashMap<LineKind, Count>,
    /// The number of kinds of each caller. No caller has none.
    callers: HashMap<Owner, usize>,
    /// The number of kinds of callers without a token.
    address_kinds: usize,
}

fn is_address(caller: &Owner) -> bool {
    matches!(caller, Owner::Address(_))
}

impl Counts {
    /// Returns the kind by which a line is counted.
    fn bounded(&self, kind: LineKind) -> LineKind {
        let is_known = |kind: &LineKind| self.lines.contains_key(kind);
        if is_known(&kind) {
            return kind;
        }
        let kinds = kind.caller().and_then(|caller| self.callers.get(&caller));
        let kind = match kinds.is_some_and(|kinds| *kinds >= MAX_CALLER_KINDS) {
            true => kind.by_reason(),
            false => kind,
        };
        let is_over = self.address_kinds >= MAX_ADDRESS_KINDS && !is_known(&kind);
        let kind = match is_over && kind.caller().as_ref().is_some_and(is_address) {
            true => kind.of_all_addresses(),
            false => kind,
        };
        match self.lines.len() < MAX_KINDS || is_known(&kind) {
            true => kind,
            false => kind.by_code(),
        }
    }

    fn insert(&mut self, kind: LineKind) {
        if let Some(caller) = kind.caller() {
            self.address_kinds += usize::from(is_address(&caller));
            *self.callers.entry(caller).or_default() += 1;
        }
        self.lines.insert(kind, Count::default());
    }

    fn remove(&mut self, kind: &LineKind) {
        if self.lines.remove(kind).is_none() {
            return;
        }
        let Some(caller) = kind.caller() else {
            return;
        };
        self.address_kinds -= usize::from(is_address(&caller));
        if let Entry::Occupied(mut kinds) = self.callers.entry(caller) {
            *kinds.get_mut() = kinds.get().saturating_sub(1);
            if *kinds.get() == 0 {
                kinds.remove();
            }
        }
    }
}

/// Counts equal lines. Cheap to clone; clones share the counts.
#[derive(Clone, Default)]
pub struct RepeatedLines(Arc<Mutex<Counts>>);

impl RepeatedLines {
    /// Returns whether to log a line: whether it is the first of its kind. Others are counted.
    /// One line per second reports their number until there are none.
    pub(super) fn is_first(&self, kind: LineKind) -> bool {
        let mut counts = self.lock();
        let address = kind.origin.peer.map(client_network);
        let kind = counts.bounded(kind);
        if let Some(count) = counts.lines.get_mut(&kind) {
            count.repeated += 1;
            let is_of_several = kind.caller().is_none() && count.addresses.len() < MAX_ADDRESSES;
            count.addresses.extend(address.filter(|_| is_of_several));
            return false;
        }
        // Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            counts.insert(kind.clone());
            runtime.spawn(self.clone().report(kind));
        }
        true
    }

    async fn report(self, kind: LineKind) {
        loop {
            tokio::time::sleep(WINDOW).await;
            match self.take(&kind) {
                Some(count) => kind.log(&count),
                None => return,
            }
        }
    }

    /// Returns the count of a kind, and counts from zero again. Forgets a kind without lines.
    fn take(&self, kind: &LineKind) -> Option<Count> {
        let mut counts = self.lock();
        let count = counts.lines.get_mut(kind).map(std::mem::take);
        let count = count.filter(|count| count.repeated > 0);
        if count.is_none() {
            counts.remove(kind);
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
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

    /// Returns how many lines of a kind were counted.
    fn repeated(lines: &RepeatedLines, kind: &LineKind) -> Option<u64> {
        lines.take(kind).map(|count| count.repeated)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_line_of_each_kind_is_logged_and_the_others_are_counted() {
        let lines = RepeatedLines::default();
        assert!(lines.is_first(kind("a")) && lines.is_first(kind("b")));
        assert!(!lines.is_first(kind("a")) && !lines.is_first(kind("a")));
        assert_eq!(repeated(&lines, &kind("a")), Some(2));
        // The report of a second without lines ends the count.
        tokio::time::sleep(WINDOW * 2).await;
        assert!(lines.lock().lines.is_empty());
        assert!(lines.is_first(kind("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_different_kinds_is_counted_by_its_code() {
        let lines = RepeatedLines::default();
        let flood = (0..10 * MAX_KINDS).map(|n| kind(&n.to_string()));
        let logged = flood.filter(|kind| lines.is_first(kind.clone())).count();
        assert_eq!(logged, MAX_KINDS + 1);
        let further = kind("").by_code();
        assert_eq!(repeated(&lines, &further), Some((9 * MAX_KINDS - 1) as u64));
        assert!(lines.lock().lines.len() <= MAX_KINDS + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_varies_its_calls_is_counted_by_reason() {
        let lines = RepeatedLines::default();
        let call = |host: u32, n: usize| LineKind {
            code: Code::PermissionDenied,
            reason: Some("NAMESPACE_DENIED".to_owned()),
            cause: None,
            origin: Origin {
                namespace: Some(n.to_string()),
                peer: Some(format!("2001:db8::{host:x}").parse().unwrap()),
                ..Origin::default()
            },
            ..kind("")
        };
        let flood = (0..1000_usize).map(|n| call(u32::try_from(n % 100).unwrap(), n));
        let logged = flood.filter(|kind| lines.is_first(kind.clone())).count();
        assert_eq!(logged, MAX_CALLER_KINDS + 1);
        let rest = call(7, 0).by_reason();
        let others = 1000 - u64::try_from(logged).unwrap();
        assert_eq!(repeated(&lines, &rest), Some(others));
        tokio::time::sleep(WINDOW * 2).await;
        assert!(lines.lock().callers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_many_addresses_is_counted_by_reason() {
        let lines = RepeatedLines::default();
        let refused = |address: u32| LineKind {
            is_audited: true,
            code: Code::Unauthenticated,
            reason: Some("CREDENTIAL_MISSING".to_owned()),
            cause: None,
            origin: Origin {
                peer: Some(IpAddr::from(address.to_be_bytes())),
                ..Origin::default()
            },
        };
        for second in 0..3 {
            let flood = (0..2000).flat_map(|address| [address; 2]);
            let logged = flood.filter(|address| lines.is_first(refused(*address)));
            let expected = if second == 0 {
                MAX_ADDRESS_KINDS + 1
            } else {
                0
            };
            assert_eq!(logged.count(), expected);
            let rest = lines.take(&refused(0).of_all_addresses()).unwrap();
            let addresses = 2000 - MAX_ADDRESS_KINDS;
            assert_eq!(rest.addresses.len(), addresses);
            let first = u64::from(second == 0);
            assert_eq!(rest.repeated, 2 * addresses as u64 - first);
        }
        tokio::time::sleep(WINDOW * 3).await;
        let counts = lines.lock();
        assert!(counts.lines.is_empty() && counts.callers.is_empty());
        assert_eq!(counts.address_kinds, 0);
    }
}
