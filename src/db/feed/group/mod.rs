//! The readers of one scope that are at the end of the journal, and the newest rows.
//!
//! Rows stay until every reader that wants them has taken them, but for some seconds at most. Beside those
//! of the last read, at most 1 MiB stays.
//! A reader that is slower has lost its place, and reads the rows from the database.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{filters::Filters, read::ScopeRows, scope::TransitionMatch, shared_row::SharedRow};
use crate::{
    db::journal::Transition,
    domain::{page::PageRow, position::Position},
};

/// Size of the rows that a group keeps for slow readers, in bytes. Their messages may take as much again.
const KEPT_BYTES: usize = 1024 * 1024;
/// How long a group keeps rows for slow readers. Reading them from the database costs little more than
/// the memory, unless all readers of a group do so.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// How many rows, and how many bytes of rows, a reader takes at a time. They become one message.
const TAKEN_ROWS: usize = 500;
/// See [`TAKEN_ROWS`].
const TAKEN_BYTES: usize = 256 * 1024;

/// The readers of a scope, and the newest rows.
#[derive(Default)]
pub(super) struct Group {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// All rows up to this one were given to the readers.
    through: Position,
    /// The last position up to there that is not between two rows of a commit.
    settled: Position,
    /// All rows below this transaction were given to the readers.
    horizon: u64,
    rows: VecDeque<KeptRow>,
    /// The number of the first of these rows.
    first: u64,
    bytes: usize,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
    filters: Filters,
    /// How many readers have rows to take.
    behind: usize,
    /// Whether the tail has read its rows.
    is_read: bool,
    /// Whether all readers have to read pages, because the tail has lost its place.
    is_lost: bool,
}

struct KeptRow {
    row: Arc<SharedRow>,
    read_at: Instant,
}

struct Reader {
    wanted: Arc<TransitionMatch>,
    place: Place,
    woken: Arc<Notify>,
}

/// How far a reader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has taken all rows that it wants.
    End,
    /// It has not taken the row with this number.
    Row(u64),
    /// It joined while the tail read, and that read left out rows that it wants.
    Lost,
}

/// What the tail has to read for the readers of a group.
pub(super) struct Demand {
    /// The last row that they were given.
    pub after: Position,
    /// The entities whose transitions they want; `None` if they want others, too, or those of many.
    pub entity_ids: Option<Vec<Uuid>>,
    /// The number of the first reader that is not among them.
    end: u64,
}

/// For how many entities the tail reads only their transitions. It costs little more than reading those
/// of one.
const ENTITIES: usize = 100;

/// What a reader finds in its group.
pub(super) enum Taken {
    /// Rows; more may be there.
    Rows {
        /// The rows.
        rows: Vec<Arc<SharedRow>>,
        /// The last position up to there that is not between two rows of a commit; `None` if there is
        /// none after the rows before.
        settled: Option<Position>,
    },
    /// No further row.
    None(End),
    /// The rows that it has not taken are gone.
    Lagged,
    /// The tail has lost its place.
    Lost,
}

/// How far a reader has come that has no row to take.
pub(super) struct End {
    /// All rows up to this one were there.
    pub through: Position,
    /// The last position up to there that is not between two rows of a commit.
    pub settled: Position,
    /// All rows below this transaction were there.
    pub horizon: u64,
}

impl Group {
    /// Makes a group without readers that has read all rows up to `through`.
    pub(super) fn new(through: Position) -> Self {
        let group = Group::default();
        let mut state = group.lock();
        state.through = through;
        state.settled = through;
        drop(state);
        group
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the tail has to read for the present readers.
    pub(super) fn demand(&self) -> Demand {
        let state = self.lock();
        Demand {
            after: state.through,
            entity_ids: state.filters.entity_ids(ENTITIES),
            end: state.next_reader,
        }
    }

    /// Returns whether the tail has read none of its rows.
    pub(super) fn is_new(&self) -> bool {
        !self.lock().is_read
    }

    /// Adds a reader, which gets the rows after the returned position.
    pub(super) fn join(&self, wanted: Arc<TransitionMatch>) -> (u64, Arc<Notify>, Position) {
        let mut state = self.lock();
        let number = state.next_reader;
        state.next_reader += 1;
        state.filters.insert(&wanted, number);
        let woken = Arc::new(Notify::new());
        let reader = Reader {
            wanted,
            place: Place::End,
            woken: Arc::clone(&woken),
        };
        state.readers.insert(number, reader);
        (number, woken, state.through)
    }

    /// Removes a reader. Returns whether none is left.
    pub(super) fn leave(&self, number: u64) -> bool {
        let mut state = self.lock();
        if let Some(reader) = state.readers.remove(&number) {
            state.behind -= usize::from(matches!(reader.place, Place::Row(_)));
            state.filters.remove(&reader.wanted, number);
        }
        state.readers.is_empty()
    }

    /// Gives the readers the new rows that the tail read on demand, below a horizon.
    pub(super) fn give(&self, new: ScopeRows, demand: &Demand, horizon: u64) {
        let mut woken = Vec::new();
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(settled) = new.settled(state.through) {
            state.settled = settled;
        }
        if let Some(last) = new.last {
            state.through = last;
            if demand.entity_ids.is_some() {
                state.lose_readers_from(demand.end, &mut woken);
            }
        }
        if new.is_complete {
            state.horizon = horizon;
        }
        state.is_read = true;
        // Not afterwards, because many new rows would be dropped before any reader could take them.
        state.trim(now);
        for row in new.rows {
            let number = state.first + state.rows.len() as u64;
            state.wake_readers(&row, number, &mut woken);
            state.bytes += row.size();
            let row = Arc::new(SharedRow::new(row));
            state.rows.push_back(KeptRow { row, read_at: now });
        }
        state.drop_taken();
        drop(state);
        for reader in woken {
            reader.notify_one();
        }
    }

    /// Lets all readers read pages, which check that nothing was lost.
    pub(super) fn lose(&self) {
        let mut state = self.lock();
        state.is_lost = true;
        let readers = state.readers.values();
        readers.for_each(|reader| reader.woken.notify_one());
    }

    /// Drops the rows that slow readers have not taken in time.
    pub(super) fn trim(&self) {
        self.lock().trim(Instant::now());
    }

    /// Returns how far a reader has come that has no row to take; `None` if it has some, or has to read
    /// pages.
    pub(super) fn end(&self, number: u64) -> Option<End> {
        let state = self.lock();
        let place = state.readers.get(&number)?.place;
        (place == Place::End && !state.is_lost).then(|| state.end())
    }

    /// Takes rows for a reader.
    pub(super) fn take(&self, number: u64) -> Taken {
        let mut state = self.lock();
        if state.is_lost {
            return Taken::Lost;
        }
        let place = state.readers.get(&number).map(|reader| reader.place);
        match place {
            Some(Place::End) => Taken::None(state.end()),
            Some(Place::Row(next)) if next >= state.first => state.take_from(number, next),
            Some(Place::Row(_) | Place::Lost) | None => Taken::Lagged,
        }
    }
}

impl State {
    fn end(&self) -> End {
        End {
            through: self.through,
            settled: self.settled,
            horizon: self.horizon,
        }
    }

    /// Notes that a new row is the next one of the readers that want it and have taken all others.
    fn wake_readers(&mut self, row: &Transition, number: u64, woken: &mut Vec<Arc<Notify>>) {
        for reader in self.filters.take(row) {
            let reader = self.readers.get_mut(&reader);
            if let Some(reader) = reader.filter(|it| it.place == Place::End) {
                reader.place = Place::Row(number);
                self.behind += 1;
                woken.push(Arc::clone(&reader.woken));
            }
        }
    }

    /// Lets the readers from a number on read pages.
    fn lose_readers_from(&mut self, first: u64, woken: &mut Vec<Arc<Notify>>) {
        if first == self.next_reader {
            return;
        }
        let later = self
            .readers
            .iter_mut()
            .filter(|(number, _)| **number >= first);
        for (_, reader) in later {
            self.behind -= usize::from(matches!(reader.place, Place::Row(_)));
            reader.place = Place::Lost;
            woken.push(Arc::clone(&reader.woken));
        }
    }

    fn take_from(&mut self, number: u64, next: u64) -> Taken {
        let Some(reader) = self.readers.get_mut(&number) else {
            return Taken::Lagged;
        };
        let skipped = usize::try_from(next - self.first).unwrap_or(usize::MAX);
        let wanted = self.rows.iter().skip(skipped).zip(next..);
        let mut wanted = wanted.filter(|(kept, _)| reader.wanted.matches(&kept.row));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let rest = wanted.find(|(kept, number)| {
            let is_full = rows.len() >= TAKEN_ROWS || bytes >= TAKEN_BYTES;
            if !is_full {
                bytes += kept.row.size();
                rows.push((Arc::clone(&kept.row), *number));
            }
            is_full
        });
        let mut settled = Some(self.settled);
        reader.place = Place::End;
        if let Some((kept, number)) = rest {
            // The rows of a commit come together, unless they alone are as many.
            let whole = rows.iter().rposition(|(row, _)| row.xid.0 < kept.row.xid.0);
            let whole = whole.map(|last| last + 1);
            let split = rows.split_off(whole.unwrap_or(rows.len()));
            let next = split.first().map_or(number, |(_, number)| *number);
            reader.place = Place::Row(next);
            settled = rows
                .last()
                .filter(|_| whole.is_some())
                .map(|(row, _)| row.journal_position());
        } else {
            self.behind -= 1;
            self.filters.wait(&reader.wanted, number);
            self.drop_taken();
        }
        let rows = rows.into_iter().map(|(row, _)| row).collect();
        Taken::Rows { rows, settled }
    }

    /// Drops all rows if no reader has to take any.
    fn drop_taken(&mut self) {
        if self.behind == 0 {
            self.first += self.rows.len() as u64;
            self.bytes = 0;
            drop(mem::take(&mut self.rows));
        }
    }

    /// Drops the rows that no reader has to take, and those that slow readers have not taken in time.
    fn trim(&mut self, now: Instant) {
        self.drop_taken();
        while let Some(kept) = self.rows.front()
            && (self.bytes > KEPT_BYTES || now.duration_since(kept.read_at) > KEPT_FOR)
        {
            self.bytes -= kept.row.size();
            self.rows.pop_front();
            self.first += 1;
        }
    }
}
