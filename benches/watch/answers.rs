//! The rows that writers number, and when each was answered.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use uuid::Uuid;

/// The first bit of the second half of a UUID, which makes it one of the usual variant.
const VARIANT: u64 = 1 << 63;

/// When the transitions of writers were answered.
pub struct Answers {
    begun: Instant,
    /// Rows that are received from then on count.
    counted_from: Duration,
    /// By the number of the row: microseconds since `begun`; 0 if there was no response yet.
    micros: Vec<AtomicU32>,
}

impl Answers {
    /// Makes room for `rows` rows. The warm-up begins now.
    pub fn new(rows: u64, warm_up: Duration) -> Self {
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        Answers {
            begun: Instant::now(),
            counted_from: warm_up,
            micros: (0..rows).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Returns the time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Returns the number of rows that there is room for.
    pub fn capacity(&self) -> u64 {
        self.micros.len() as u64
    }

    /// Notes that rows were answered.
    pub fn answered(&self, numbers: impl Iterator<Item = u64>) {
        let now = micros(self.begun.elapsed());
        for number in numbers {
            if let Some(it) = self.of(number) {
                it.store(now, Ordering::Relaxed);
            }
        }
    }

    /// Returns the number of rows that were answered within the window that counts.
    pub fn count(&self) -> usize {
        let from = micros(self.counted_from);
        let times = self.micros.iter().map(|it| it.load(Ordering::Relaxed));
        times.filter(|time| *time >= from && *time > 0).count()
    }

    /// Returns the time since the response to a row, in microseconds: 0 if there was none yet. Returns
    /// `None` during the warm-up, and for rows of others.
    pub fn lag(&self, id: Uuid, now: Instant) -> Option<u32> {
        let now = now.duration_since(self.begun);
        let answered = self.of(number_of(id))?.load(Ordering::Relaxed);
        (now >= self.counted_from).then_some(match answered {
            0 => 0,
            answered => micros(now).saturating_sub(answered),
        })
    }

    fn of(&self, number: u64) -> Option<&AtomicU32> {
        self.micros.get(usize::try_from(number).ok()?)
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Returns the id of the row with this number. Ids grow with time, like those that the service makes.
pub fn numbered_id(number: u64) -> Uuid {
    let (time, _) = Uuid::now_v7().as_u64_pair();
    Uuid::from_u64_pair(time, VARIANT | number)
}

fn number_of(id: Uuid) -> u64 {
    id.as_u64_pair().1 & !VARIANT
}
