//! Injects faults and measures how soon calls succeed again.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use diesel_async::SimpleAsyncConnection;

use crate::{Result, environment::Environment, proxy::Fate, readers::Victims};

/// The pause between two faults: short, so that cuts hit every phase of a call.
const PAUSE_MILLIS: std::ops::Range<u64> = 20..200;
/// The time between two kills: long enough for the service to accept writes in between.
const KILL_MILLIS: std::ops::Range<u64> = 2000..5000;

/// The duration of the faults, if neither it nor the number of kills is chosen.
const DEFAULT_SECONDS: u64 = 60;

/// When the faults end: as soon as one of the limits is reached.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    seconds: Option<u64>,
    kills: Option<usize>,
}

impl Limit {
    /// Limits the time, in seconds, and the number of kills of the service or PostgreSQL.
    pub fn new(seconds: Option<u64>, kills: Option<usize>) -> Self {
        let default = kills.is_none().then_some(DEFAULT_SECONDS);
        Limit {
            seconds: seconds.or(default),
            kills,
        }
    }

    fn is_reached(self, begun: Instant, kills: usize) -> bool {
        let elapsed = begun.elapsed();
        let is_over = |seconds| elapsed >= Duration::from_secs(seconds);
        self.seconds.is_some_and(is_over) || self.kills.is_some_and(|limit| kills >= limit)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.seconds, self.kills) {
            (Some(seconds), None) => write!(f, "{seconds} s of faults"),
            (Some(seconds), Some(kills)) => write!(f, "{seconds} s or {kills} kills"),
            (None, kills) => write!(f, "{} kills", kills.unwrap_or_default()),
        }
    }
}

/// Injects faults and counts them.
pub struct Faults {
    random: fastrand::Rng,
    counts: BTreeMap<&'static str, usize>,
    recoveries: Recoveries,
    victims: Victims,
}

impl Faults {
    /// Creates the injector. The seed determines the faults and their times.
    pub fn new(seed: u64, recoveries: Recoveries, victims: Victims) -> Self {
        Faults {
            random: fastrand::Rng::with_seed(seed),
            counts: BTreeMap::new(),
            recoveries,
            victims,
        }
    }

    /// Injects faults and then waits until the service is SERVING. Fails at once if the service
    /// exits without being killed.
    pub async fn inject(&mut self, environment: &mut Environment, limit: Limit) -> Result<()> {
        let begun = Instant::now();
        let mut next_kill = self.next_kill();
        let mut kills = 0;
        while !limit.is_reached(begun, kills) {
            tokio::time::sleep(Duration::from_millis(self.random.u64(PAUSE_MILLIS))).await;
            environment.require_service().await?;
            if Instant::now() < next_kill {
                self.inject_small(environment).await;
                continue;
            }
            // Alternates, so that a short run has both kinds.
            kills += 1;
            let begun = Instant::now();
            match kills % 2 {
                0 => {
                    self.count("PostgreSQL killed");
                    environment.kill_postgres().await?;
                    self.recoveries.start_timer("PostgreSQL", begun);
                }
                _ => {
                    self.count("service killed");
                    environment.kill_service().await?;
                    self.recoveries.start_timer("service", begun);
                }
            }
            next_kill = self.next_kill();
        }
        environment.wait_until_serving().await
    }

    fn next_kill(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.random.u64(KILL_MILLIS))
    }

    /// Cuts a connection, kills a reader or terminates a backend.
    async fn inject_small(&mut self, environment: &Environment) {
        let (name, is_injected) = match self.random.u8(0..6) {
            0 => (
                "caller connection cut",
                environment.front.decide(&mut self.random, Fate::Cut),
            ),
            1 => (
                "response to a caller lost",
                environment
                    .front
                    .decide(&mut self.random, Fate::LosesResponse),
            ),
            2 => (
                "PostgreSQL connection cut",
                environment.back.decide(&mut self.random, Fate::Cut),
            ),
            3 => (
                "response of PostgreSQL lost",
                environment
                    .back
                    .decide(&mut self.random, Fate::LosesResponse),
            ),
            4 => match self.victims.kill(&mut self.random) {
                Some(name) => (name, true),
                None => return,
            },
            _ => (
                "backend terminated",
                terminate_backend(&environment.database_url()).await.is_ok(),
            ),
        };
        if is_injected {
            self.count(name);
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }
}

/// Terminates one of the service's backends.
async fn terminate_backend(url: &str) -> Result<()> {
    let mut connection = bridgebook::db::connect(&url.parse()?).await?;
    let terminate = "SELECT pg_terminate_backend(pid) FROM
                   (SELECT pid FROM pg_stat_activity
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                     ORDER BY random() LIMIT 1) it";
    Ok(connection.batch_execute(terminate).await?)
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| fault | times |\n|---|--:|")?;
        for (name, count) in &self.counts {
            writeln!(f, "| {name} | {count} |")?;
        }
        Ok(())
    }
}

/// Measures the time from each kill to the first acknowledgement of a call that started after it.
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Recoveries(Arc<Mutex<Times>>);

#[derive(Default)]
struct Times {
    waiting: Option<(&'static str, Instant)>,
    took: BTreeMap<&'static str, Vec<Duration>>,
}

impl Recoveries {
    fn start_timer(&self, what: &'static str, since: Instant) {
        self.lock().waiting = Some((what, since));
    }

    /// Notes an acknowledged call that started at `begun`.
    pub fn acknowledged(&self, begun: Instant) {
        let mut times = self.lock();
        if let Some((what, since)) = times.waiting.take_if(|(_, since)| begun > *since) {
            times.took.entry(what).or_default().push(since.elapsed());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Recoveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| first success after a kill of | kills | minimum | median | maximum |\n|---|--:|--:|--:|--:|"
        )?;
        for (what, took) in &mut self.lock().took {
            took.sort_unstable();
            let at = |place: usize| took.get(place).map_or(0, Duration::as_millis);
            writeln!(
                f,
                "| {what} | {} | {} ms | {} ms | {} ms |",
                took.len(),
                at(0),
                at(took.len() / 2),
                at(took.len() - 1),
            )?;
        }
        Ok(())
    }
}
