//! The readers of one scope that are at the end of the journal, and the newest rows.
//!
//! Rows stay until every reader that wants them has taken them, but at most 1 MiB and for some seconds.
//! A reader that is slower has lost its place, and reads the rows from the database.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{read::ScopeRows, scope::TransitionMatch, shared_row::SharedRow};
use crate::{
    db::journal::{Transition, Xid},
    domain::{error::Error, page::PageRow, position::Position},
};

/// Size of the rows that a group keeps for slow readers, in bytes.
const KEPT_BYTES: usize = 1024 * 1024;
/// How long a group keeps rows for slow readers. Reading them from the database costs little more than
/// the memory, unless all readers of a group do so.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// How many rows, and how many bytes of rows, a reader takes at a time. They become one message.
pub const TAKEN_ROWS: usize = 500;
/// See [`TAKEN_ROWS`].
pub const TAKEN_BYTES: usize = 256 * 1024;

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
    rows: VecDeque<KeptRow>,
    /// The number of the first of these rows.
    first: u64,
    bytes: usize,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
    /// The readers that want the transitions of one entity, by its id.
    by_entity: HashMap<Uuid, Vec<u64>>,
    /// The other readers.
    of_many: Vec<u64>,
    /// How many readers have rows to take.
    behind: usize,
    /// Whether the tail has read its rows.
    is_read: bool,
    /// Why all readers have to end.
    failure: Option<Error>,
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
    None {
        /// All rows up to this one were there.
        through: Position,
        /// The last position up to there that is not between two rows of a commit.
        settled: Position,
    },
    /// The rows that it has not taken are gone.
    Lagged,
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
        let is_small = state.of_many.is_empty() && state.by_entity.len() <= ENTITIES;
        Demand {
            after: state.through,
            entity_ids: is_small.then(|| state.by_entity.keys().copied().collect()),
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
        match wanted.entity_id {
            Some(id) => state.by_entity.entry(id).or_default().push(number),
            None => state.of_many.push(number),
        }
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
            match reader.wanted.entity_id {
                Some(id) => {
                    let readers = state.by_entity.entry(id).or_default();
                    readers.retain(|it| *it != number);
                    if readers.is_empty() {
                        state.by_entity.remove(&id);
                    }
                }
                None => state.of_many.retain(|it| *it != number),
            }
        }
        state.readers.is_empty()
    }

    /// Gives the readers the new rows that the tail read on demand.
    pub(super) fn give(&self, new: ScopeRows, demand: &Demand) {
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
        state.is_read = true;
        for row in new.rows {
            let number = state.first + state.rows.len() as u64;
            state.wake_readers(&row, number, &mut woken);
            state.bytes += row.size();
            let row = Arc::new(SharedRow::new(row));
            state.rows.push_back(KeptRow { row, read_at: now });
        }
        state.trim(now);
        drop(state);
        for reader in woken {
            reader.notify_one();
        }
    }

    /// Lets all readers read pages, which check that nothing was lost.
    pub(super) fn lose(&self) {
        let mut state = self.lock();
        state.is_lost = true;
        state.wake_all();
    }

    /// Drops the rows that slow readers have not taken in time.
    pub(super) fn trim(&self) {
        self.lock().trim(Instant::now());
    }

    /// Ends all readers.
    pub(super) fn fail(&self, error: &Error) {
        let mut state = self.lock();
        state.failure = Some(error.clone());
        state.wake_all();
    }

    /// Returns how far a reader has come that has no row to take: all rows up to the first position, and
    /// all commits up to the second. `None` if it has rows to take, or has to end.
    pub(super) fn end(&self, number: u64) -> Option<(Position, Position)> {
        let state = self.lock();
        let reader = state.readers.get(&number)?;
        let is_at_end = reader.place == Place::End && state.failure.is_none() && !state.is_lost;
        is_at_end.then_some((state.through, state.settled))
    }

    /// Takes rows for a reader.
    ///
    /// # Errors
    /// The reason for which the readers have to end.
    pub(super) fn take(&self, number: u64) -> Result<Taken, Error> {
        let mut state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let State {
            first,
            through,
            settled,
            ..
        } = *state;
        let place = state.readers.get(&number).map(|reader| reader.place);
        match place.filter(|_| !state.is_lost) {
            Some(Place::End) => Ok(Taken::None { through, settled }),
            Some(Place::Row(next)) if next >= first => Ok(state.take_from(number, next)),
            Some(Place::Row(_) | Place::Lost) | None => Ok(Taken::Lagged),
        }
    }
}

impl State {
    fn wake_all(&self) {
        let readers = self.readers.values();
        readers.for_each(|reader| reader.woken.notify_one());
    }

    /// Notes that a new row is the next one of the readers that want it and have taken all others.
    fn wake_readers(&mut self, row: &Transition, number: u64, woken: &mut Vec<Arc<Notify>>) {
        let of_entity = self.by_entity.get(&row.entity_id).into_iter().flatten();
        for reader in of_entity.chain(&self.of_many) {
            let Some(reader) = self.readers.get_mut(reader) else {
                continue;
            };
            if reader.place == Place::End && reader.wanted.matches(row) {
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
        let wanted = wanted.filter(|(kept, _)| reader.wanted.matches(&kept.row));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let mut settled = Some(self.settled);
        reader.place = Place::End;
        for (kept, number) in wanted {
            if rows.len() >= TAKEN_ROWS || bytes >= TAKEN_BYTES {
                reader.place = Place::Row(number);
                settled = last_before(&rows, kept.row.xid);
                break;
            }
            bytes += kept.row.size();
            rows.push(Arc::clone(&kept.row));
        }
        self.behind -= usize::from(reader.place == Place::End);
        Taken::Rows { rows, settled }
    }

    /// Drops the rows that no reader has to take, and those that slow readers have not taken in time.
    fn trim(&mut self, now: Instant) {
        if self.behind == 0 {
            self.first += self.rows.len() as u64;
            self.bytes = 0;
            drop(mem::take(&mut self.rows));
        }
        while let Some(kept) = self.rows.front()
            && (self.bytes > KEPT_BYTES || now.duration_since(kept.read_at) > KEPT_FOR)
        {
            self.bytes -= kept.row.size();
            self.rows.pop_front();
            self.first += 1;
        }
    }
}

/// Returns the position of the last row that another transaction wrote than that of the next row.
fn last_before(rows: &[Arc<SharedRow>], next: Xid) -> Option<Position> {
    let last = rows.iter().rev().find(|row| row.xid.0 < next.0);
    last.map(|row| row.journal_position())
}
