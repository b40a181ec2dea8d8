//! What a database holds. Everything follows from numbers, so that the reads
//! know what is there without asking.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// The tenant with half of all rows.
pub const LARGE: &str = "large";

/// The tenant with a hundred workflows, however many the others have.
pub const SMALL: &str = "small";

/// How many workflows [`SMALL`] has.
pub const SMALL_WORKFLOWS: u64 = 100;

/// How many nodes there are, in every database.
pub const NODES: u64 = 10_000;

/// How many entity types each namespace has machines for, in every database.
pub const MACHINES: u64 = 25;

/// The entity type of most entities.
pub const ORDER: &str = "order";

/// Over so many days everything happened, at an even pace.
const DAYS: i64 = 30;

/// The numbers of one database.
///
/// Workflow 0 is the oldest. Those with an even number are [`LARGE`]'s, which
/// goes for entities, bridges and files too; all counts are even, so that what
/// belongs together has the same tenant.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// How many workflows there are.
    pub workflows: u64,
    /// When the last one began.
    now: DateTime<Utc>,
}

/// Kinds of rows that have ids of their own.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// workflow_executions.
    Workflow,
    /// workflow_steps.
    Step,
    /// metadata_stamps.
    Stamp,
    /// fsm_transitions of workflows.
    Start,
    /// fsm_transitions of entities.
    Move,
    /// fsm_entities.
    Entity,
    /// bridge_states.
    Bridge,
    /// The caller's own name of a workflow.
    Correlation,
}

impl World {
    /// Makes the numbers for so many workflows.
    pub fn new(workflows: u64, now: DateTime<Utc>) -> Self {
        World {
            // A multiple of all the divisors below, times two.
            workflows: workflows / 400 * 400,
            now,
        }
    }

    /// How many entities there are; each made four moves.
    pub fn entities(&self) -> u64 {
        self.workflows / 4
    }

    /// How many bridges there are.
    pub fn bridges(&self) -> u64 {
        self.workflows / 40
    }

    /// How many files there are; each has twenty stamps.
    pub fn files(&self) -> u64 {
        self.workflows / 20
    }

    /// When workflow `number` began, and whatever else has this number in the
    /// journal or among the stamps.
    pub fn time(&self, number: u64) -> DateTime<Utc> {
        let left = self.workflows.saturating_sub(number + 1);
        let micros = u128::from(left) * (DAYS as u128 * 86_400_000_000);
        let ago = micros / u128::from(self.workflows);
        self.now - TimeDelta::microseconds(i64::try_from(ago).unwrap_or(0))
    }

    /// The tenant of workflow `number`.
    pub fn namespace(&self, number: u64) -> &'static str {
        /// Those beside [`LARGE`] and [`SMALL`].
        const OTHERS: [&str; 4] = ["team-1", "team-2", "team-3", "team-4"];
        if number.is_multiple_of(2) {
            return LARGE;
        }
        if number % (self.workflows / SMALL_WORKFLOWS) == 1 {
            return SMALL;
        }
        OTHERS
            .get((number / 2 % 4) as usize)
            .copied()
            .unwrap_or(LARGE)
    }

    /// The id of a row whose time is that of `number`. Ids begin with the time,
    /// as those do that the server makes, but for the names that are the
    /// caller's own, which are random.
    pub fn id(&self, kind: Kind, number: u64, place: u64) -> Uuid {
        let noise = mixed(number ^ ((kind as u64) << 56) ^ (place << 48));
        match kind {
            Kind::Entity | Kind::Bridge | Kind::Correlation => random_id(noise, mixed(noise)),
            Kind::Workflow | Kind::Step | Kind::Stamp | Kind::Start | Kind::Move => {
                let millis = self.time(number).timestamp_millis();
                let millis = u64::try_from(millis).unwrap_or(0) + place;
                ordered_id(millis, number, noise)
            }
        }
    }
}

/// A UUIDv7: the time, then the number, so that ids of one millisecond are in order.
fn ordered_id(millis: u64, number: u64, noise: u64) -> Uuid {
    let bits = (u128::from(number & 0xfff) << 64) | u128::from(noise);
    let mut rest = [0; 10];
    let bytes = bits.to_be_bytes();
    rest.iter_mut()
        .rev()
        .zip(bytes.iter().rev())
        .for_each(|(to, from)| *to = *from);
    uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid()
}

fn random_id(high: u64, low: u64) -> Uuid {
    let bits = (u128::from(high) << 64) | u128::from(low);
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

/// Splitmix64: numbers that look random and are always the same.
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What happens so often in a hundred, by a number that looks random.
pub fn share<T: Copy>(number: u64, shares: &[(u64, T)], rest: T) -> T {
    let mut place = mixed(number) % 100;
    for &(percent, value) in shares {
        match place.checked_sub(percent) {
            Some(left) => place = left,
            None => return value,
        }
    }
    rest
}

/// The hash of a file's content.
pub struct FileHash(pub u64);

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (mixed(self.0), mixed(!self.0));
        write!(f, "sha256:{high:016x}{low:016x}{high:016x}{low:016x}")
    }
}

/// The name of a node.
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{:05}", self.0)
    }
}
