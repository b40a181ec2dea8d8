//! Defines the scenarios, one file per service, and what they share.

mod bridge;
mod fsm;
mod registry;
mod workflow;

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use bridgebook::domain::json::Struct;
use serde_json::Value;
use uuid::Uuid;

use crate::Result;

pub use bridge::Accumulate;
pub use fsm::{ALL_ENTITIES, HOT_ENTITIES, Record};
pub use registry::{BatchHeartbeat, Discover, Heartbeat};
pub use workflow::{FEW_TENANTS, Get, MANY_TENANTS, Start, Steps, Transition};

/// The tenant of all rows. The scripts use the same one.
pub const NAMESPACE: &str = "bench";

/// A generator of random numbers and ids that many callers share.
#[derive(Default)]
struct Random {
    state: RandomState,
    count: AtomicU64,
}

impl Random {
    fn number(&self) -> u64 {
        self.state
            .hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns a number from 1 to `last`.
    fn up_to(&self, last: u64) -> u64 {
        1 + self.number() % last
    }

    /// Returns a random UUID, like gen_random_uuid().
    fn id(&self) -> String {
        let bits = (u128::from(self.number()) << 64) | u128::from(self.number());
        uuid::Builder::from_random_bytes(bits.to_be_bytes())
            .into_uuid()
            .to_string()
    }
}

/// Returns the id of the row with this number.
fn numbered_id(number: u64) -> String {
    Uuid::from_u128(number.into()).to_string()
}

fn document(value: Value) -> Option<Struct> {
    match value {
        Value::Object(fields) => Some(fields.into()),
        _ => None,
    }
}

/// Fails with `problem` unless the response is as expected.
fn expect(is_expected: bool, problem: &str) -> Result<()> {
    match is_expected {
        true => Ok(()),
        false => Err(format!("unexpected response: {problem}").into()),
    }
}
