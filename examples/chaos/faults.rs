//! What is done to the service, and how soon it is back.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use diesel_async::SimpleAsyncConnection;

use crate::{Result, process::World, proxy::Fate};

/// How long after one fault the next may come: cuts come often, so that some of them
/// meet every moment of a call.
const PAUSE_MILLIS: std::ops::Range<u64> = 20..200;
/// How long between two kills: most of the time it serves, so that there is something
/// to lose.
const KILL_MILLIS: std::ops::Range<u64> = 2000..5000;

/// Makes faults, and counts them.
pub struct Faults {
    random: fastrand::Rng,
    counts: BTreeMap<&'static str, usize>,
    recoveries: Recoveries,
}

impl Faults {
    /// The seed chooses which ones, and when.
    pub fn new(seed: u64, recoveries: Recoveries) -> Self {
        Faults {
            random: fastrand::Rng::with_seed(seed),
            counts: BTreeMap::new(),
            recoveries,
        }
    }

    /// Makes faults for so long, and ends when the service serves again.
    pub async fn make(&mut self, world: &mut World, time: Duration) -> Result<()> {
        let begun = Instant::now();
        let mut next_kill = self.next_kill();
        let mut kills = 0;
        while begun.elapsed() < time {
            tokio::time::sleep(Duration::from_millis(self.random.u64(PAUSE_MILLIS))).await;
            if Instant::now() < next_kill {
                self.strike(world).await;
                continue;
            }
            // One after the other, and each at least once in a short run.
            kills += 1;
            let begun = Instant::now();
            match kills % 2 {
                0 => {
                    self.count("PostgreSQL killed");
                    world.kill_postgres().await?;
                    self.recoveries.await_next("PostgreSQL", begun);
                }
                _ => {
                    self.count("service killed");
                    world.kill_service().await?;
                    self.recoveries.await_next("service", begun);
                }
            }
            next_kill = self.next_kill();
        }
        world.serves().await
    }

    fn next_kill(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.random.u64(KILL_MILLIS))
    }

    /// A small one.
    async fn strike(&mut self, world: &World) {
        let (name, is_struck) = match self.random.u8(0..5) {
            0 => (
                "connection of a caller cut",
                world.front.strike(&mut self.random, Fate::Cut),
            ),
            1 => (
                "answer to a caller lost",
                world.front.strike(&mut self.random, Fate::LosesAnswer),
            ),
            2 => (
                "connection to PostgreSQL cut",
                world.back.strike(&mut self.random, Fate::Cut),
            ),
            3 => (
                "answer of PostgreSQL lost",
                world.back.strike(&mut self.random, Fate::LosesAnswer),
            ),
            _ => (
                "backend ended",
                end_a_backend(&world.database_url()).await.is_ok(),
            ),
        };
        if is_struck {
            self.count(name);
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }
}

/// Ends one of the service's backends, as an administrator would.
async fn end_a_backend(url: &str) -> Result<()> {
    let mut connection = bridgebook::db::connect(url).await?;
    let end = "SELECT pg_terminate_backend(pid) FROM
                   (SELECT pid FROM pg_stat_activity
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
                     ORDER BY random() LIMIT 1) it";
    Ok(connection.batch_execute(end).await?)
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

/// How long it took after each kill until a call that began after it was acknowledged.
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Recoveries(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    waiting: Option<(&'static str, Instant)>,
    took: BTreeMap<&'static str, Vec<Duration>>,
}

impl Recoveries {
    fn await_next(&self, what: &'static str, since: Instant) {
        self.lock().waiting = Some((what, since));
    }

    /// Notes that a call was acknowledged that began at this time.
    pub fn acknowledged(&self, begun: Instant) {
        let mut known = self.lock();
        if let Some((what, since)) = known.waiting.take_if(|(_, since)| begun > *since) {
            known.took.entry(what).or_default().push(since.elapsed());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Recoveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| first success after a kill of | kills | shortest | median | longest |\n|---|--:|--:|--:|--:|"
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
