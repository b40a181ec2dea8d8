//! A watcher: reads each row of the journal once, in order, however often its stream breaks.

use std::collections::HashSet;

use bridgebook::{
    client::{
        Client,
        watch::{Event, Watch},
    },
    domain::position::Position,
    proto::v1::{FsmTransition, watch_transitions_request::Begin},
};
use tonic::Status;
use uuid::Uuid;

use super::{
    account::Account,
    end::End,
    journal::{Filter, Journal, at, parse},
};
use crate::verdict::{Kind, Verdict};

/// Follows the journal from its begin on.
pub struct Watcher {
    /// What it follows.
    pub filter: Filter,
    end: End,
    account: Account,
    /// The positions of the rows, in the order of their arrival.
    seen: Vec<Position>,
}

impl Watcher {
    /// Creates a watcher.
    pub fn new(filter: Filter, end: End) -> Self {
        Watcher {
            filter,
            end,
            account: Account::new(format!("watcher of {filter}")),
            seen: Vec::new(),
        }
    }

    /// Watches until the end of the journal.
    pub async fn run(mut self, client: Client) -> Self {
        let end = self.end.clone();
        self.account.failure = end.limit(self.watch(&client)).await.err();
        self
    }

    async fn watch(&mut self, client: &Client) -> Result<(), Status> {
        let mut watch = Watch::new(client, self.filter.request(Begin::FromStart(true)));
        while !self.end.is_reached(self.filter, watch.position()) {
            let event = watch.next().await?;
            self.account.note(&event);
            if let Event::Transitions(rows) = event {
                self.seen.extend(rows.iter().map(position));
            }
        }
        Ok(())
    }

    /// Compares what the watcher has seen, up to a position, with the journal.
    pub fn check(mut self, journal: &Journal, end: Position, verdict: &mut Verdict) -> Account {
        self.seen.retain(|it| *it <= end);
        let name = &self.account.name;
        let rows = journal.rows(self.filter, end);
        let mut stored = HashSet::new();
        let mut missed = Vec::new();
        let seen: HashSet<_> = self.seen.iter().copied().collect();
        for row in rows {
            stored.insert(row.position());
            if !seen.contains(&row.position()) {
                missed.push(row.to_string());
            }
        }
        verdict.add_rows(Kind::Missed, &format!("{name}: missed"), &missed);
        let mut places = HashSet::new();
        let (mut repeated, mut late, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let mut last = Position::default();
        for it in &self.seen {
            if !stored.contains(it) {
                unknown.push(at(*it));
            } else if !places.insert(*it) {
                repeated.push(at(*it));
            } else if *it < last {
                late.push(format!("{} after {}", at(*it), at(last)));
            }
            last = last.max(*it);
        }
        verdict.add_rows(Kind::Repeated, &format!("{name}: read again"), &repeated);
        verdict.add_rows(Kind::OutOfOrder, &format!("{name}: read too late"), &late);
        verdict.add_rows(
            Kind::Unknown,
            &format!("{name}: read unknown rows"),
            &unknown,
        );
        self.account.rows = self.seen.len();
        self.account
    }
}

/// Returns the position of a row. If it names another row, that is no position of the journal, and will
/// be found as such.
fn position(transition: &FsmTransition) -> Position {
    let id: Uuid = transition.id.parse().unwrap_or_default();
    Position {
        transition_id: id.into(),
        ..parse(&transition.position)
    }
}
