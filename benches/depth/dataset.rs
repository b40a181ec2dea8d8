//! Defines the content of a database. Every row is a function of its number, so that the cases
//! know which rows exist without querying them.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// The tenant with half of all rows.
pub const LARGE: &str = "large";

/// The tenant with a hundred workflows in every database.
pub const SMALL: &str = "small";

/// The number of workflows of [`SMALL`].
pub const SMALL_WORKFLOWS: u64 = 100;

/// The number of nodes in every database.
pub const NODES: u64 = 10_000;

/// The number of entity types with a machine per namespace, in every database.
pub const MACHINES: u64 = 25;

/// The entity type of most entities.
pub const ORDER: &str = "order";

/// The number of days over which the rows are spread evenly.
const DAYS: i64 = 30;

/// The size and the end time of one database.
///
/// Workflow 0 is the oldest. Workflows, entities, bridges and files with an even number belong to
/// [`LARGE`]. All counts are even, so that related rows have the same tenant.
#[derive(Debug, Clone, Copy)]
pub struct Dataset {
    /// The number of workflows.
    pub workflows: u64,
    /// When the last workflow started.
    now: DateTime<Utc>,
}

/// The kinds of rows with ids.
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
    /// The correlation ids of workflows.
    Correlation,
}

impl Dataset {
    /// Defines a database with about this number of workflows.
    pub fn new(workflows: u64, now: DateTime<Utc>) -> Self {
        Dataset {
            // A multiple of twice each divisor below.
            workflows: workflows / 400 * 400,
            now,
        }
    }

    /// Returns the number of entities. Each made four moves.
    pub fn entities(&self) -> u64 {
        self.workflows / 4
    }

    /// Returns the number of bridges.
    pub fn bridges(&self) -> u64 {
        self.workflows / 40
    }

    /// Returns the number of files. Each has twenty stamps.
    pub fn files(&self) -> u64 {
        self.workflows / 20
    }

    /// Returns the start time of workflow `number`. Journal rows and stamps with this number have
    /// the same time.
    pub fn time(&self, number: u64) -> DateTime<Utc> {
        let left = self.workflows.saturating_sub(number + 1);
        let micros = u128::from(left) * (DAYS as u128 * 86_400_000_000);
        let ago = micros / u128::from(self.workflows);
        self.now - TimeDelta::microseconds(i64::try_from(ago).unwrap_or(0))
    }

    /// Returns the tenant of workflow `number`.
    pub fn namespace(&self, number: u64) -> &'static str {
        /// The tenants besides [`LARGE`] and [`SMALL`].
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

    /// Returns the id of a row with the time of `number`. Ids begin with the time, like the ids
    /// that the server generates. Ids that callers choose are random.
    pub fn id(&self, kind: Kind, number: u64, place: u64) -> Uuid {
        let noise = splitmix64(number ^ ((kind as u64) << 56) ^ (place << 48));
        match kind {
            Kind::Entity | Kind::Bridge | Kind::Correlation => random_id(noise, splitmix64(noise)),
            Kind::Workflow | Kind::Step | Kind::Stamp | Kind::Start | Kind::Move => {
                let millis = self.time(number).timestamp_millis();
                let millis = u64::try_from(millis).unwrap_or(0) + place;
                ordered_id(millis, number, noise)
            }
        }
    }
}

/// Returns a UUIDv7 of the time and the number, so that ids of one millisecond are in order.
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

/// Returns a pseudo-random number that depends on `number` only (SplitMix64).
pub fn splitmix64(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Picks a value pseudo-randomly by `number`. `shares` are percentages; `rest` gets the remainder.
pub fn pick_weighted<T: Copy>(number: u64, shares: &[(u64, T)], rest: T) -> T {
    let mut place = splitmix64(number) % 100;
    for &(percent, value) in shares {
        match place.checked_sub(percent) {
            Some(left) => place = left,
            None => return value,
        }
    }
    rest
}

/// The content hash of a file.
pub struct FileHash(pub u64);

impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = (splitmix64(self.0), splitmix64(!self.0));
        write!(f, "sha256:{high:016x}{low:016x}{high:016x}{low:016x}")
    }
}

/// The id of a node.
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{:05}", self.0)
    }
}
