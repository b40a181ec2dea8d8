//! The token cache: answers which token a call is made with, mostly without a query.
//!
//! A token stays in the cache for [`TTL`], so a revocation takes effect on every replica
//! within 5 s. Tokens in use are refreshed before they expire, so their calls never wait
//! for a query. Without calls the cache neither reads nor writes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

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

/// Time for which a token stays in the cache. A revocation takes effect within it.
const TTL: Duration = Duration::from_secs(4);
/// Interval at which the tokens in use are refreshed: half of their TTL.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// Minimum time between two writes of a token's last use, in microseconds: one minute.
/// A token that has not been used for that long leaves the cache.
const LAST_USE_MICROS: i64 = 60 * 1_000_000;

/// The cache of tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenCache {
    database: Database,
    find: Arc<Batcher<FindTokens>>,
    tokens: Arc<Mutex<HashMap<TokenId, CachedToken>>>,
}

#[derive(Clone)]
struct CachedToken {
    token: Arc<Token>,
    read_at: Instant,
    usage: Arc<Usage>,
}

/// The last use of a token. Times are in microseconds since 1970.
#[derive(Default)]
struct Usage {
    last: AtomicI64,
    written: AtomicI64,
}

impl Usage {
    /// Returns the last use if it is time to write it.
    fn due(&self, now: i64) -> Option<i64> {
        let written = self.written.load(Ordering::Relaxed);
        let last = self.last.load(Ordering::Relaxed);
        (last > written && now - written >= LAST_USE_MICROS).then_some(last)
    }

    /// Returns whether the token was used within its TTL, so that a refresh is worth it.
    fn is_current(&self, now: i64) -> bool {
        now - self.last.load(Ordering::Relaxed) < TTL.as_micros() as i64
    }

    /// Returns whether the token was used within a minute, or its last use is unwritten.
    fn is_recent(&self, now: i64) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        now - last < LAST_USE_MICROS || last > self.written.load(Ordering::Relaxed)
    }
}

impl TokenCache {
    /// Makes an empty cache. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(database: Database) -> Self {
        TokenCache {
            find: Arc::new(Batcher::new(&database)),
            tokens: Arc::default(),
            database,
        }
    }

    /// Returns the token of a credential.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] and database errors.
    pub async fn by_credential(&self, credential: &Credential) -> Result<Arc<Token>> {
        let cached = self.get(credential.id).await?;
        cached.token.require_secret(&credential.secret)?;
        record_use(cached)
    }

    /// Returns the token that a client certificate is mapped to, or that a stream was opened with.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] and database errors.
    pub async fn by_id(&self, id: TokenId) -> Result<Arc<Token>> {
        record_use(self.get(id).await?)
    }

    /// Returns whether the cache has the token of a credential, and the secret is right.
    #[must_use]
    pub fn knows(&self, credential: &Credential) -> bool {
        let cached = self.lock().get(&credential.id).cloned();
        cached.is_some_and(|it| it.token.require_secret(&credential.secret).is_ok())
    }

    async fn get(&self, id: TokenId) -> Result<CachedToken> {
        let cached = self.lock().get(&id).cloned();
        if let Some(cached) = cached.filter(|cached| cached.read_at.elapsed() < TTL) {
            return Ok(cached);
        }
        // Taken before the query, because its answer may be that old.
        let read_at = Instant::now();
        let token = self.find.submit(id).await?;
        Ok(self.insert(token, read_at))
    }

    /// Inserts or replaces a token. Its usage stays.
    fn insert(&self, token: Token, read_at: Instant) -> CachedToken {
        let mut tokens = self.lock();
        let usage = tokens
            .get(&token.id)
            .map(|cached| Arc::clone(&cached.usage));
        let cached = CachedToken {
            token: Arc::new(token),
            read_at,
            usage: usage.unwrap_or_default(),
        };
        tokens.insert(cached.token.id, cached.clone());
        cached
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TokenId, CachedToken>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refreshes the tokens in use, and writes their last uses. Never completes.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(REFRESH_INTERVAL).await;
            self.refresh().await;
            self.write_last_uses().await;
        }
    }

    async fn refresh(&self) {
        let now = Utc::now().timestamp_micros();
        let ids: Vec<TokenId> = {
            let mut tokens = self.lock();
            tokens.retain(|_, cached| cached.usage.is_recent(now));
            // The next call with one of the others reads it again.
            let in_use = tokens
                .iter()
                .filter(|(_, cached)| cached.usage.is_current(now));
            in_use.map(|(id, _)| *id).collect()
        };
        let read_at = Instant::now();
        let tokens = self.find.submit_all(ids.clone()).await;
        for (id, token) in ids.into_iter().zip(tokens) {
            match token {
                Ok(token) => drop(self.insert(token, read_at)),
                Err(Error::Unauthenticated(_)) => drop(self.lock().remove(&id)),
                // Once the TTL is over, the next call reports the error.
                Err(_) => {}
            }
        }
    }

    async fn write_last_uses(&self) {
        let now = Utc::now().timestamp_micros();
        let due: Vec<(CachedToken, i64)> = {
            let tokens = self.lock();
            let due = tokens.values().cloned();
            due.filter_map(|cached| Some((cached.usage.due(now)?, cached)))
                .map(|(last, cached)| (cached, last))
                .collect()
        };
        let uses = due.iter().filter_map(|(cached, last)| {
            let at = DateTime::from_timestamp_micros(*last)?;
            Some((cached.token.id, at))
        });
        let uses = LastUses(uses.collect());
        if uses.0.is_empty() || self.database.run(&uses).await.is_err() {
            return;
        }
        for (cached, last) in due {
            cached.usage.written.store(last, Ordering::Relaxed);
        }
    }
}

/// Checks that a token is valid now, and notes the use.
fn record_use(cached: CachedToken) -> Result<Arc<Token>> {
    let now = Utc::now();
    cached.token.require_valid(now)?;
    let last = &cached.usage.last;
    last.fetch_max(now.timestamp_micros(), Ordering::Relaxed);
    Ok(cached.token)
}
