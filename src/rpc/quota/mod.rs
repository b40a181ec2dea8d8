//! Quotas of tenants and tokens: calls per second, items per second, calls in progress.
//!
//! A quota is the row of an operator (`SetQuota`), or else a default of the settings. Each replica
//! counts for itself. The [layer] checks the token's calls before any byte of the message is
//! read; `rpc::admit` checks the rest once it knows the namespace and the number of items.
//!
//! A rate allows a burst of one second's worth. A batch may be larger than that: it is admitted,
//! and the calls after it wait until it is paid for.

mod bucket;
pub mod layer;
pub mod model;
pub mod store;
mod table;
mod usage;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use uuid::Uuid;

use self::{
    model::{Quota, SubjectKind},
    store::AllQuotas,
    table::{Limited, Table},
    usage::{Charge, InProgress, Refusal},
};
use crate::{
    db::Database,
    domain::{
        error::{Error, QuotaExceeded, Result},
        id::TokenId,
        namespace::Namespace,
        quota::{QuotaDefaults, QuotaLimits, QuotaSubject},
    },
    util::error_chain::error_chain,
};

/// Interval at which quotas are read again. A change is in force on every replica after it and the
/// time of a query, within 5 s.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The quotas in force, and their usage. Cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Inner>);

struct Inner {
    namespaces: Table<String>,
    tokens: Table<TokenId>,
    database: Database,
}

impl Quotas {
    /// Makes the quotas of the settings. Those of operators come with the first
    /// [`Quotas::reload`].
    #[must_use]
    pub fn new(database: &Database, defaults: QuotaDefaults) -> Self {
        Quotas(Arc::new(Inner {
            namespaces: Table::new(defaults.namespace),
            tokens: Table::new(defaults.token),
            database: database.clone(),
        }))
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
    pub fn begin_call(&self, token_id: Option<TokenId>) -> Result<CallQuota> {
        let mut call = CallQuota {
            quotas: self.clone(),
            token: None,
            _of_token: None,
            of_namespace: OnceLock::new(),
        };
        let token = token_id.and_then(|id| Some((id, self.0.tokens.find(&id)?)));
        if let Some((id, Limited { limits, usage })) = &token {
            let now = Instant::now();
            let charge = Charge {
                call: true,
                items: 0,
            };
            let mut counts = usage.lock();
            if let Some(refusal) = counts.refusal(limits, charge, now) {
                return Err(exceeded(QuotaSubject::Token(*id), refusal));
            }
            counts.take(limits, charge, now);
            call._of_token = Some(Arc::clone(usage).begin_call(&mut counts));
        }
        call.token = token;
        Ok(call)
    }

    /// Reads the quotas of operators again, at an interval. If that fails, those in force stay. Never
    /// completes.
    pub async fn run(&self) {
        let mut is_failing = false;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let result = self.reload().await;
            if let (Err(error), false) = (&result, is_failing) {
                let cause = error_chain(error);
                tracing::warn!(cause, "cannot read quotas, those in force stay");
            }
            is_failing = result.is_err();
            let now = Instant::now();
            self.0.namespaces.forget_idle(now);
            self.0.tokens.forget_idle(now);
        }
    }

    /// Reads the quotas of operators.
    ///
    /// # Errors
    /// Database errors. The quotas in force stay.
    pub async fn reload(&self) -> Result<()> {
        self.apply(self.0.database.run(&AllQuotas).await?);
        Ok(())
    }

    fn apply(&self, quotas: Vec<Quota>) {
        let (mut namespaces, mut tokens) = (HashMap::new(), HashMap::new());
        let mut weights = HashMap::new();
        for quota in quotas {
            match quota.subject_kind {
                SubjectKind::Namespace => {
                    let limits = quota.values.limits(self.0.namespaces.default());
                    let weight = quota.values.weight.map(usize::try_from);
                    if let Some(Ok(weight)) = weight {
                        weights.insert(quota.subject.clone(), weight);
                    }
                    namespaces.insert(quota.subject, limits);
                }
                SubjectKind::Token => {
                    let limits = quota.values.limits(self.0.tokens.default());
                    let id = Uuid::try_parse(&quota.subject);
                    tokens.extend(id.ok().map(|id| (TokenId(id), limits)));
                }
            }
        }
        self.0.namespaces.replace(namespaces);
        self.0.tokens.replace(tokens);
        self.0.database.weights().replace(weights);
    }
}

/// The quota of a call, which counts as in progress until this is dropped.
pub struct CallQuota {
    quotas: Quotas,
    token: Option<(TokenId, Limited)>,
    _of_token: Option<InProgress>,
    of_namespace: OnceLock<InProgress>,
}

impl CallQuota {
    /// Counts the call, with a number of items, against the quota of its tenant, and the items
    /// against that of its token. A call that is refused here counts against neither, except that
    /// [`Quotas::begin_call`] has counted it as one of the token's calls.
    ///
    /// # Errors
    /// [`Error::QuotaExceeded`], with the limit that makes the call wait longest.
    pub fn admit(&self, namespace: &Namespace, items: usize) -> Result<()> {
        let now = Instant::now();
        let items = u32::try_from(items).unwrap_or(u32::MAX);
        let metrics = self.quotas.0.database.metrics().tenants();
        let tenant = self.quotas.0.namespaces.find(namespace.as_str());
        let token = self.token.as_ref();
        let of_tenant = Charge { call: true, items };
        let of_token = Charge { call: false, items };
        // Always in this order, so that calls do not deadlock.
        let mut tenant = tenant.as_ref().map(|it| (it, it.usage.lock()));
        let mut token = token.map(|(id, it)| (id, it, it.usage.lock()));
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
            metrics.rejected(namespace.as_str());
            return Err(exceeded(subject, refusal));
        }
        if let Some((it, counts)) = &mut tenant {
            counts.take(&it.limits, of_tenant, now);
            self.of_namespace
                .get_or_init(|| Arc::clone(&it.usage).begin_call(counts));
        }
        if let Some((_, it, counts)) = &mut token {
            counts.take(&it.limits, of_token, now);
        }
        // Counting does not keep other calls of the tenant waiting.
        drop((tenant, token));
        metrics.admitted(namespace.as_str(), items);
        Ok(())
    }
}

fn exceeded(subject: QuotaSubject, refusal: Refusal) -> Error {
    Error::QuotaExceeded(Box::new(QuotaExceeded {
        subject,
        limit: refusal.limit,
        value: refusal.value.get(),
        wait: refusal.wait,
    }))
}
