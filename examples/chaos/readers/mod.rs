//! Readers of the journal, while faults are injected, and what they must have read.
//!
//! * A watcher must see each row that its filter matches exactly once, in the order of the positions:
//!   over a namespace, over all of them by their prefix, over a type, and over the registry.
//! * A copy begins with a snapshot, and must equal the stored states at the end.
//! * Consumers, two for each bridge, count rows with `consumed_from` and `consumed_through`. The totals
//!   of the bridge, and the position that it has consumed, must be those of the journal.
//!
//! Streams break with the service and their connections, and go on by themselves. Copies and consumers
//! are also killed: they lose what they had in memory, and begin anew.
//!
//! No fault here loses a committed row, so RESUME_POINT_GONE is a failure like any other error that the
//! client does not retry.

mod account;
mod bridge;
mod consumer;
mod copy;
mod end;
mod journal;
mod watcher;

use std::sync::Arc;

use bridgebook::{
    client::{self, Client},
    domain::namespace::Namespace,
};
use futures_util::future::join_all;
use tokio::{sync::Notify, task::JoinHandle};

use self::{
    account::{Account, Accounts},
    bridge::Bridge,
    consumer::Consumer,
    copy::LiveCopy,
    end::Announcement,
    journal::{Filter, Journal},
    watcher::Watcher,
};
use crate::{
    Result,
    requests::{ALL_NAMESPACES, ENTITY_TYPE, NAMESPACES},
    verdict::Verdict,
};

/// The number of consumers of each bridge.
const CONSUMERS: usize = 2;

/// The readers that faults can kill.
#[derive(Clone, Default)]
pub struct Victims(Vec<(&'static str, Arc<Notify>)>);

impl Victims {
    fn add(&mut self, name: &'static str) -> Arc<Notify> {
        let killed = Arc::new(Notify::new());
        self.0.push((name, Arc::clone(&killed)));
        killed
    }

    /// Kills one of them. Returns the name of the fault.
    pub fn kill(&self, random: &mut fastrand::Rng) -> Option<&'static str> {
        let (name, killed) = random.choice(self.0.iter())?;
        killed.notify_one();
        Some(name)
    }
}

/// The running readers.
pub struct Readers {
    announcement: Announcement,
    victims: Victims,
    watchers: Vec<JoinHandle<Watcher>>,
    copies: Vec<JoinHandle<LiveCopy>>,
    consumers: Vec<JoinHandle<Account>>,
    bridges: Vec<Bridge>,
}

impl Readers {
    /// Starts all readers, each with a connection of its own to the service at `address`.
    pub async fn start(address: &str) -> Result<Self> {
        let mut readers = Readers {
            announcement: Announcement::new(),
            victims: Victims::default(),
            watchers: Vec::new(),
            copies: Vec::new(),
            consumers: Vec::new(),
            bridges: Vec::new(),
        };
        let connect = || client::connect_lazily(address);
        let filter = |namespace, entity_type| Filter {
            namespace,
            entity_type,
        };
        let [one, other] = NAMESPACES;
        for bridge in [filter(one, ""), filter(other, "workflow")] {
            let bridge = Bridge::create(&connect()?, bridge).await?;
            readers.bridges.push(bridge);
            for number in 1..=CONSUMERS {
                readers.consume(connect()?, bridge, number);
            }
        }
        for watched in [
            filter(one, ""),
            filter(ALL_NAMESPACES, ""),
            filter(other, ENTITY_TYPE),
            filter(Namespace::registry_name(), ""),
        ] {
            let watcher = Watcher::new(watched, readers.announcement.end());
            readers.watchers.push(tokio::spawn(watcher.run(connect()?)));
        }
        for namespace in NAMESPACES {
            readers.copy(connect()?, filter(namespace, ""));
        }
        Ok(readers)
    }

    fn consume(&mut self, client: Client, bridge: Bridge, number: usize) {
        let killed = self.victims.add("consumer killed");
        let consumer = Consumer::new(bridge, number, self.announcement.end(), killed);
        self.consumers.push(tokio::spawn(consumer.run(client)));
    }

    fn copy(&mut self, client: Client, filter: Filter) {
        let killed = self.victims.add("copy killed");
        let copy = LiveCopy::new(filter, self.announcement.end(), killed);
        self.copies.push(tokio::spawn(copy.run(client)));
    }

    /// Returns the readers that faults can kill.
    pub fn victims(&self) -> Victims {
        self.victims.clone()
    }

    /// Waits until the readers have come to the end of the journal, and compares what they have read
    /// with it. Called when no caller writes any more.
    pub async fn finish(self, url: &str, verdict: &mut Verdict) -> Result<Accounts> {
        let goal = Arc::new(Journal::read(url).await?);
        self.announcement.announce(Arc::clone(&goal));
        let watchers = all(self.watchers).await?;
        let copies = all(self.copies).await?;
        let consumers = all(self.consumers).await?;
        // A row before the end can have been committed after the goal was read.
        let journal = Journal::read(url).await?;
        let mut accounts = Vec::new();
        for it in watchers {
            let end = goal.end(it.filter);
            accounts.push(it.check(&journal, end, verdict));
        }
        for it in copies {
            accounts.push(it.check(url, verdict).await?);
        }
        accounts.extend(consumers);
        for it in self.bridges {
            let end = goal.end(it.filter);
            accounts.push(it.check(url, &journal, end, verdict).await?);
        }
        for it in &accounts {
            it.check(verdict);
        }
        Ok(Accounts(accounts))
    }
}

/// Waits for all readers of a kind.
async fn all<T>(tasks: Vec<JoinHandle<T>>) -> Result<Vec<T>> {
    Ok(join_all(tasks)
        .await
        .into_iter()
        .collect::<Result<_, _>>()?)
}
