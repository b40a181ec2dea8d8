//! Quotas of tenants and tokens: calls per second, items per second, calls in progress.
//!
//! A quota is the row of an operator (`SetQuota`), or else a default of the settings. Each replica
//! counts for itself. The [layer] checks the token's calls before any byte of the message is
//! read; `rpc::admit` checks the rest once it knows the namespace and the number of items.
//!
//! A rate allows a burst of one second's worth. A batch may be larger than that: it is admitted,
//! and the calls after it wait until the rate has caught up. Heartbeats [count apart](usage::Kind),
//! so that they do not wait for the batches of other calls.

mod bucket;
pub mod layer;
pub mod model;
mod read_log;
pub mod store;
mod table;
mod usage;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

use self::{
    model::{Quota, SubjectKind},
    read_log::ReadLog,
    store::AllQuotas,
    table::{Limited, Table},
    usage::{Charge, InProgress, Kind, Refusal},
};
use crate::{
    db::Database,
    domain::{
        error::{Error, QuotaExceeded, Result},
        id::TokenId,
        namespace::Namespace,
        quota::{QuotaDefaults, QuotaLimits, QuotaSubject},
    },
    proto::Rpc,
    util::error_chain::error_chain,
};

/// Interval at which quotas are read again. A change is in force on every replica after it and the
/// time of a query, within 5 s.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The pause before quotas are read again that could not be read at the start.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The quotas in force, and their usage. Cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    namespaces: Table<String>,
    tokens: Table<TokenId>,
    database: Database,
    read_log: ReadLog,
    /// Whether the log has named the kinds of subjects that this version does not know.
    has_logged_kinds: AtomicBool,
}

impl Quotas {
    /// Makes the quotas of the settings. Those of operators come with [`Quotas::load`].
    #[must_use]
    pub fn new(database: &Database, defaults: QuotaDefaults) -> Self {
        Quotas(Arc::new(Inner {
            namespaces: Table::new(defaults.namespace),
            tokens: Table::new(defaults.token),
            database: database.clone(),
            read_log: ReadLog::default(),
            has_logged_kinds: AtomicBool::new(false),
        }))
    }

    /// Returns the limits of namespaces and tokens without a quota of their own.
    #[must_use]
    pub fn defaults(&self) -> QuotaDefaults {
        QuotaDefaults {
            namespace: self.0.namespaces.default(),
            token: self.0.tokens.default(),
        }
    }

    /// Returns the limits in force for a token.
    #[must_use]
    pub fn token_limits(&self, token_id: TokenId) -> QuotaLimits {
        self.0.tokens.limits(&token_id)
    }

    /// Begins a call of a token, if calls have tokens. Counts it against the token's calls.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`].
    pub fn begin_call(&self, token_id: Option<TokenId>, rpc: Option<Rpc>) -> Result<CallQuota> {
        let kind = Kind::of(rpc);
        let mut call = CallQuota {
            quotas: self.clone(),
            kind,
            token_id,
            token: None,
            items: AtomicU32::new(0),
            is_rejected: AtomicBool::new(false),
            _of_token: None,
            of_namespace: OnceLock::new(),
        };
        let token = token_id.and_then(|id| Some((id, self.0.tokens.find(&id)?)));
        if let Some((id, Limited { limits, usage })) = &token {
            let now = Instant::now();
            let charge = Charge::call();
            let mut counts = usage.lock(kind);
            if let Some(refusal) = counts.refusal(limits, charge, now) {
                call.is_rejected.store(true, Ordering::Relaxed);
                return Err(exceeded(QuotaSubject::Token(*id), refusal));
            }
            counts.take(&limits.limits, charge, now);
            call._of_token = Some(Arc::clone(usage).begin_call(kind, &mut counts));
        }
        call.token = token;
        Ok(call)
    }

    /// Reads the quotas of operators for the first time. Tries again until it succeeds, because a call
    /// that is admitted before may be over its quota.
    pub async fn load(&self) {
        while !self.reload().await {
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Reads the quotas of operators again, at an interval. If that fails, those in force stay. Never
    /// completes.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            self.reload().await;
        }
    }

    /// Reads the quotas of operators. Returns whether that succeeds.
    async fn reload(&self) -> bool {
        let result = self.0.database.run(&AllQuotas).await;
        match result {
            Ok(quotas) => {
                self.apply(quotas);
                self.0.read_log.succeeded();
                true
            }
            Err(error) => {
                self.0.read_log.failed(&error_chain(&error));
                false
            }
        }
    }

    fn apply(&self, quotas: Vec<Quota>) {
        let (mut namespaces, mut tokens) = (HashMap::new(), HashMap::new());
        let (mut weights, mut unknown) = (HashMap::new(), BTreeSet::new());
        for quota in quotas {
            match quota.kind() {
                Some(SubjectKind::Namespace) => {
                    let limits = quota.values.limits(self.0.namespaces.default());
                    let weight = quota.values.weight.map(usize::try_from);
                    if let Some(Ok(weight)) = weight {
                        weights.insert(quota.subject.clone(), weight);
                    }
                    namespaces.insert(quota.subject, limits);
                }
                Some(SubjectKind::Token) => {
                    let limits = quota.values.limits(self.0.tokens.default());
                    let id = Uuid::try_parse(&quota.subject);
                    tokens.extend(id.ok().map(|id| (TokenId(id), limits)));
                }
                None => drop(unknown.insert(quota.subject_kind)),
            }
        }
        self.log_unknown(&unknown);
        self.0.namespaces.replace(namespaces);
        self.0.tokens.replace(tokens);
        self.0.database.weights().replace(weights);
    }

    /// Logs once that a newer version has set quotas which this one cannot apply.
    fn log_unknown(&self, kinds: &BTreeSet<String>) {
        if !kinds.is_empty() && !self.0.has_logged_kinds.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                subject_kinds = ?kinds,
                "quotas for subjects that this version does not know are not in force here"
            );
        }
    }
}

/// The quota of a call, which counts as in progress until this is dropped. Then the metrics count it
/// for its token.
pub struct CallQuota {
    quotas: Quotas,
    kind: Kind,
    token_id: Option<TokenId>,
    /// The token, if it has a limit.
    token: Option<(TokenId, Limited)>,
    /// The items that were admitted.
    items: AtomicU32,
    is_rejected: AtomicBool,
    _of_token: Option<InProgress>,
    of_namespace: OnceLock<InProgress>,
}

impl CallQuota {
    /// Counts the call, with a number of items, against the quota of its tenant, and the items
    /// against that of its token. A call that is refused counts against neither, but it stays one of
    /// its token's calls per second, as [`Quotas::begin_call`] has counted it. To be called once.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`], with the limit that makes the call wait longest.
    pub fn admit(&self, namespace: &Namespace, items: usize) -> Result<()> {
        let now = Instant::now();
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let metrics = self.quotas.0.database.metrics().namespaces();
        let tenant = self.quotas.0.namespaces.find(namespace.as_str());
        let token = self.token.as_ref();
        let (of_tenant, of_token) = (Charge::call_with_items(items), Charge::items(items));
        // Always in this order, so that calls do not deadlock.
        let mut tenant = tenant.as_ref().map(|it| (it, it.usage.lock(self.kind)));
        let mut token = token.map(|(id, it)| (id, it, it.usage.lock(self.kind)));
        let by_tenant = tenant.as_ref().and_then(|(it, counts)| {
            let refusal = counts.refusal(&it.limits, of_tenant, now)?;
            Some((QuotaSubject::Namespace(namespace.to_string()), refusal))
        });
        let by_token = token.as_ref().and_then(|(id, it, counts)| {
            let refusal = counts.refusal(&it.limits, of_token, now)?;
            Some((QuotaSubject::Token(**id), refusal))
        });
        let refusals = [by_tenant, by_token].into_iter().flatten();
        if let Some((subject, refusal)) = refusals.max_by_key(|(_, it)| it.wait) {
            drop((tenant, token));
            self.is_rejected.store(true, Ordering::Relaxed);
            metrics.rejected(namespace.as_str());
            return Err(exceeded(subject, refusal));
        }
        if let Some((it, counts)) = &mut tenant {
            counts.take(&it.limits.limits, of_tenant, now);
            self.of_namespace
                .get_or_init(|| Arc::clone(&it.usage).begin_call(self.kind, counts));
        }
        if let Some((_, it, counts)) = &mut token {
            counts.take(&it.limits.limits, of_token, now);
        }
        // Counting does not keep other calls of the tenant waiting.
        drop((tenant, token));
        self.items.store(items, Ordering::Relaxed);
        metrics.admitted(namespace.as_str(), items);
        Ok(())
    }
}

impl Drop for CallQuota {
    fn drop(&mut self) {
        let Some(TokenId(id)) = self.token_id else {
            return;
        };
        let metrics = self.quotas.0.database.metrics().tokens();
        match *self.is_rejected.get_mut() {
            true => metrics.rejected(&id),
            false => metrics.admitted(&id, *self.items.get_mut()),
        }
    }
}

fn exceeded(subject: QuotaSubject, refusal: Refusal) -> Error {
    Error::QuotaExceeded(Box::new(QuotaExceeded {
        subject,
        limit: refusal.limit,
        value: refusal.value.get(),
        is_default: refusal.is_default,
        wait: refusal.retry_delay(),
    }))
}
