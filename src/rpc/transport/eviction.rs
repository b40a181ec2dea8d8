//! Who is connected, so that somebody can be told to go where there are too many.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// A connection, from the moment when it is accepted.
#[derive(Debug, Default)]
pub struct Guest {
    is_known: AtomicBool,
    goes: Notify,
}

impl Guest {
    /// Notes that somebody called whom we let in.
    pub fn is_known(&self) {
        // Every call says so, and to look costs less than to write.
        if !self.is_known.load(Ordering::Relaxed) {
            self.is_known.store(true, Ordering::Relaxed);
        }
    }

    /// Ends when the connection is to make room.
    pub(super) async fn has_to_go(&self) {
        self.goes.notified().await;
    }
}

/// All connections, by their age. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Guests(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    guests: BTreeMap<u64, Arc<Guest>>,
    next: u64,
}

impl Guests {
    /// Adds one, until what is answered is dropped.
    pub(super) fn add(&self) -> Listed {
        let mut list = self.list();
        let number = list.next;
        list.next += 1;
        let guest = Arc::<Guest>::default();
        list.guests.insert(number, Arc::clone(&guest));
        Listed {
            guests: self.clone(),
            number,
            guest,
        }
    }

    /// Has the oldest connection go from which nobody called whom we let in; answers
    /// whether there is one. So who only connects can't keep others out.
    pub(super) fn make_room(&self) -> bool {
        let mut list = self.list();
        let stranger = list
            .guests
            .iter()
            .find(|(_, guest)| !guest.is_known.load(Ordering::Relaxed));
        let Some(number) = stranger.map(|(number, _)| *number) else {
            return false;
        };
        // It is on its way out, and not chosen again.
        let stranger = list.guests.remove(&number);
        stranger.is_some_and(|guest| {
            guest.goes.notify_one();
            true
        })
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the list.
pub(super) struct Listed {
    guests: Guests,
    number: u64,
    pub(super) guest: Arc<Guest>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.guests.list().guests.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_stranger_goes_once_and_those_who_are_known_stay() {
        let guests = Guests::default();
        let known = guests.add();
        let [old, young] = [guests.add(), guests.add()];
        known.guest.is_known();
        assert!(guests.make_room());
        old.guest.has_to_go().await;
        assert!(guests.make_room());
        young.guest.has_to_go().await;
        assert!(!guests.make_room());
        drop(guests.add());
        assert!(!guests.make_room());
    }
}
