//! The connections with an authenticated call, and which of them makes room for another one.
//!
//! Tokens have equal shares of the limit. A connection belongs to the token of its latest call, also
//! that of a proxy. Without tokens all connections have one owner.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};

use tokio::sync::Notify;

use super::{RESERVE, slot::Slot};
use crate::domain::id::TokenId;

/// The connections with an authenticated call.
#[derive(Default)]
pub(super) struct Authenticated {
    slots: HashMap<u64, Weak<Slot>>,
    /// The connections that were told to close, with their ids, in this order, until they are closed.
    /// They do not count against the limit.
    closing: VecDeque<(u64, Arc<Notify>)>,
}

/// A connection, as it is when another one needs room.
struct Candidate {
    slot: Arc<Slot>,
    owner: Option<TokenId>,
    /// How many connections the owner has.
    held: usize,
    is_busy: bool,
    last_call: u64,
}

impl Candidate {
    /// Returns the order in which connections make room. Idle ones come first, then those of the
    /// owner that has the most, then the one whose last call ended first.
    fn rank(&self) -> (bool, Reverse<usize>, u64, u64) {
        let Candidate { slot, held, .. } = self;
        (self.is_busy, Reverse(*held), self.last_call, slot.id)
    }
}

impl Authenticated {
    /// Returns the number of connections that count against the limit.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a connection.
    pub(super) fn insert(&mut self, slot: &Arc<Slot>) {
        self.slots.insert(slot.id, Arc::downgrade(slot));
    }

    /// Removes a connection, if it is there.
    pub(super) fn remove(&mut self, slot: &Slot) {
        self.slots.remove(&slot.id);
        self.closing.retain(|(id, _)| *id != slot.id);
    }

    /// Tells a connection to close, because one of `owner` needs its slot of `limit`. Returns false if
    /// none has to.
    ///
    /// An owner below its share takes a slot of one above, idle or not. Others take idle slots: of
    /// their own, or of an owner above its share.
    pub(super) fn make_room(&mut self, owner: Option<TokenId>, limit: usize) -> bool {
        let mut held = HashMap::from([(owner, 0)]);
        let candidates = self.candidates(&mut held);
        let share = (limit / held.len()).max(1);
        let is_below = held.get(&owner).is_some_and(|held| *held < share);
        let may_close = |it: &&Candidate| match is_below {
            true => it.held > share,
            false => !it.is_busy && (it.held > share || it.owner == owner),
        };
        let chosen = candidates
            .iter()
            .filter(may_close)
            .min_by_key(|it| it.rank());
        match chosen {
            Some(chosen) => self.retire(&chosen.slot, chosen.is_busy),
            // There are more owners than slots.
            None if is_below => return self.retire_idle(),
            None => return false,
        }
        true
    }

    /// Tells the connection that has been idle for longest to close. Returns false if all have calls
    /// in progress.
    pub(super) fn retire_idle(&mut self) -> bool {
        let candidates = self.candidates(&mut HashMap::new());
        let idle = candidates.iter().filter(|it| !it.is_busy);
        let Some(longest) = idle.min_by_key(|it| (it.last_call, it.slot.id)) else {
            return false;
        };
        self.retire(&longest.slot, false);
        true
    }

    /// Evicts the connection that was told first to close. Returns false if there is none.
    pub(super) fn evict_closing(&mut self) -> bool {
        let first = self.closing.pop_front();
        first.is_some_and(|(_, evicted)| {
            evicted.notify_one();
            true
        })
    }

    /// Returns all connections, and adds the number of each owner's to `held`.
    fn candidates(&self, held: &mut HashMap<Option<TokenId>, usize>) -> Vec<Candidate> {
        let slots: Vec<_> = self.slots.values().filter_map(Weak::upgrade).collect();
        for slot in &slots {
            *held.entry(slot.owner()).or_default() += 1;
        }
        let candidates = slots.into_iter().map(|slot| Candidate {
            owner: slot.owner(),
            held: held.get(&slot.owner()).copied().unwrap_or_default(),
            is_busy: slot.is_busy(),
            last_call: slot.last_call(),
            slot,
        });
        candidates.collect()
    }

    fn retire(&mut self, slot: &Slot, is_busy: bool) {
        if self.closing.len() >= RESERVE {
            self.evict_closing();
        }
        self.slots.remove(&slot.id);
        self.closing.push_back((slot.id, slot.evicted()));
        slot.retire(is_busy);
    }
}
