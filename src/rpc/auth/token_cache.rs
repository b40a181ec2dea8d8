//! Which token a credential stands for, without asking the database each time.
//!
//! A token that was read is taken for what it was for [`FRESH`], so a revocation is
//! known everywhere within 5 s. Tokens in use are read again before that, so their
//! callers never wait for it. Nothing is read or written while nobody calls.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::{
    credential::Credential,
    store::{FindTokens, LastUses},
    token::Token,
};
use crate::{
    db::{Database, batch::Batcher},
    domain::{
        error::{Error, Result},
        id::TokenId,
    },
};

/// For how long a token that was read is believed in, and how often those in use
/// are read again. A revocation ends what it is to end within the first of them.
const FRESH: Duration = Duration::from_secs(4);
const ROUND: Duration = Duration::from_secs(2);

/// How often the last use of a token is written at most, in microseconds: once a
/// minute. A token that was not used for so long is not kept in memory.
const USES_MICROS: i64 = 60 * 1_000_000;

/// Tells who has which token. Cheap to clone.
#[derive(Clone)]
pub struct TokenCache {
    database: Database,
    find: Arc<Batcher<FindTokens>>,
    known: Arc<Mutex<HashMap<TokenId, Known>>>,
    rate: Option<NonZeroU32>,
}

/// A token that was read.
#[derive(Clone)]
struct Known {
    token: Arc<Token>,
    read_at: Instant,
    uses: Arc<Uses>,
}

/// When a token was used, in microseconds since 1970, and whether it may be again.
struct Uses {
    last: AtomicI64,
    written: AtomicI64,
    rate: Option<DefaultDirectRateLimiter>,
}

impl Uses {
    /// None so far; `rate` is how many there may be in a second.
    fn new(rate: Option<NonZeroU32>) -> Self {
        Uses {
            last: AtomicI64::new(0),
            written: AtomicI64::new(0),
            rate: rate.map(|rate| RateLimiter::direct(Quota::per_second(rate))),
        }
    }

    /// Makes sure that there may be another one now.
    fn require_rate(&self) -> Result<()> {
        let Some(Err(early)) = self.rate.as_ref().map(RateLimiter::check) else {
            return Ok(());
        };
        Err(Error::RateLimited(
            early.wait_time_from(DefaultClock::default().now()),
        ))
    }

    /// The last use, if it is time to write it.
    fn due(&self, now: i64) -> Option<i64> {
        let written = self.written.load(Ordering::Relaxed);
        let last = self.last.load(Ordering::Relaxed);
        (last > written && now - written >= USES_MICROS).then_some(last)
    }

    /// Whether it was used within the time for which a token is believed in.
    fn is_current(&self, now: i64) -> bool {
        now - self.last.load(Ordering::Relaxed) < FRESH.as_micros() as i64
    }

    /// Whether it was used within a minute, or its last use is still to be written.
    fn is_recent(&self, now: i64) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        now - last < USES_MICROS || last > self.written.load(Ordering::Relaxed)
    }
}

impl TokenCache {
    /// Makes one that knows nobody yet, and lets nobody call more often in a second
    /// than `rate`. Has to be called within a tokio runtime.
    #[must_use]
    pub fn new(database: Database, rate: Option<NonZeroU32>) -> Self {
        TokenCache {
            rate,
            find: Arc::new(Batcher::new(&database)),
            known: Arc::default(),
            database,
        }
    }

    /// The token that a credential stands for, if it is good.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], and those of the database.
    pub async fn by_credential(&self, credential: &Credential) -> Result<Arc<Token>> {
        let known = self.known(credential.id).await?;
        known.token.require_secret(&credential.secret)?;
        used(known)
    }

    /// The token that a certificate stands for, if it is good.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], and those of the database.
    pub async fn by_certificate(&self, id: TokenId) -> Result<Arc<Token>> {
        used(self.known(id).await?)
    }

    async fn known(&self, id: TokenId) -> Result<Known> {
        let known = self.lock().get(&id).cloned();
        if let Some(known) = known.filter(|known| known.read_at.elapsed() < FRESH) {
            return Ok(known);
        }
        // Before the question: the answer may be as old as that.
        let read_at = Instant::now();
        let token = self.find.submit(id).await?;
        Ok(self.keep(token, read_at))
    }

    fn keep(&self, token: Token, read_at: Instant) -> Known {
        let mut tokens = self.lock();
        let uses = tokens.get(&token.id).map(|known| Arc::clone(&known.uses));
        let known = Known {
            token: Arc::new(token),
            read_at,
            uses: uses.unwrap_or_else(|| Arc::new(Uses::new(self.rate))),
        };
        tokens.insert(known.token.id, known.clone());
        known
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TokenId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the tokens in use again and again, and writes when they were used.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(ROUND).await;
            self.read_again().await;
            self.write_uses().await;
        }
    }

    async fn read_again(&self) {
        let now = Utc::now().timestamp_micros();
        let ids: Vec<TokenId> = {
            let mut tokens = self.lock();
            tokens.retain(|_, known| known.uses.is_recent(now));
            // The others are read when somebody calls with them again.
            let in_use = tokens
                .iter()
                .filter(|(_, known)| known.uses.is_current(now));
            in_use.map(|(id, _)| *id).collect()
        };
        let read_at = Instant::now();
        let tokens = self.find.submit_all(ids.clone()).await;
        for (id, token) in ids.into_iter().zip(tokens) {
            match token {
                Ok(token) => drop(self.keep(token, read_at)),
                Err(Error::Unauthenticated(_)) => drop(self.lock().remove(&id)),
                // Callers are told, once it is not fresh any more.
                Err(_) => {}
            }
        }
    }

    async fn write_uses(&self) {
        let now = Utc::now().timestamp_micros();
        let due: Vec<(Known, i64)> = {
            let tokens = self.lock();
            let due = tokens.values().cloned();
            due.filter_map(|known| Some((known.uses.due(now)?, known)))
                .map(|(last, known)| (known, last))
                .collect()
        };
        let uses = due.iter().filter_map(|(known, last)| {
            let at = DateTime::from_timestamp_micros(*last)?;
            Some((known.token.id, at))
        });
        let uses = LastUses(uses.collect());
        if uses.0.is_empty() || self.database.run(&uses).await.is_err() {
            return;
        }
        for (known, last) in due {
            known.uses.written.store(last, Ordering::Relaxed);
        }
    }
}

/// Notes that a token is used, if it is good and not used too often.
fn used(known: Known) -> Result<Arc<Token>> {
    let now = Utc::now();
    known.token.require_good(now)?;
    let last = &known.uses.last;
    last.fetch_max(now.timestamp_micros(), Ordering::Relaxed);
    known.uses.require_rate()?;
    Ok(known.token)
}
