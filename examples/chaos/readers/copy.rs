//! A live copy of the states of a namespace, from a snapshot and the transitions after it.

use std::{collections::HashMap, sync::Arc};

use bridgebook::{
    client::{
        Client,
        watch::{Event, Watch},
    },
    proto::v1::{WatchTransitionsRequest, watch_transitions_request::Begin},
};
use diesel::{QueryableByName, sql_types::Text};
use diesel_async::RunQueryDsl;
use tokio::sync::Notify;
use tonic::Status;

use super::{account::Account, end::End, journal::Filter};
use crate::{
    Result,
    verdict::{Kind, Verdict},
};

/// All states of workflows. A snapshot has only those that the request names.
const WORKFLOW_STATES: [&str; 5] = ["PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"];

/// States by type and id.
type States = HashMap<(String, String), String>;

/// Keeps a copy, and loses it when it is killed.
pub struct LiveCopy {
    filter: Filter,
    end: End,
    killed: Arc<Notify>,
    account: Account,
    states: States,
}

impl LiveCopy {
    /// Creates a copy, which begins anew whenever `killed` is notified.
    pub fn new(filter: Filter, end: End, killed: Arc<Notify>) -> Self {
        LiveCopy {
            filter,
            end,
            killed,
            account: Account::new(format!("copy of {filter}")),
            states: HashMap::new(),
        }
    }

    /// Keeps the copy until the end of the journal.
    pub async fn run(mut self, client: Client) -> Self {
        let (end, killed) = (self.end.clone(), Arc::clone(&self.killed));
        loop {
            tokio::select! {
                outcome = end.limit(self.follow(&client)) => {
                    self.account.failure = outcome.err();
                    return self;
                }
                () = killed.notified() => self.account.note_kill(),
            }
        }
    }

    async fn follow(&mut self, client: &Client) -> Result<(), Status> {
        self.states.clear();
        let request = WatchTransitionsRequest {
            with_snapshot: true,
            workflow_states: WORKFLOW_STATES.map(str::to_owned).into(),
            ..self.filter.request(Begin::FromNow(true))
        };
        let mut watch = Watch::new(client, request);
        while !self.end.is_reached(self.filter, watch.position()) {
            let event = watch.next().await?;
            self.account.note(&event);
            match event {
                Event::Snapshot(states) => {
                    for it in states {
                        self.set(it.entity_type, it.entity_id, it.current_state);
                    }
                }
                Event::Transitions(rows) => {
                    self.account.rows += rows.len();
                    for it in rows {
                        self.set(it.entity_type, it.entity_id, it.to_state);
                    }
                }
                // The next stream begins with all states again.
                Event::Interrupted(_) if watch.position().is_none() => self.states.clear(),
                Event::Ready | Event::Bookmark(_) | Event::Interrupted(_) => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, entity_type: String, entity_id: String, state: String) {
        match state.as_str() {
            "DELETED" | "DEREGISTERED" => self.states.remove(&(entity_type, entity_id)),
            _ => self.states.insert((entity_type, entity_id), state),
        };
    }

    /// Compares the copy with the stored states.
    pub async fn check(self, url: &str, verdict: &mut Verdict) -> Result<Account> {
        let name = &self.account.name;
        let stored = stored(url, self.filter).await?;
        let wrong = stored.iter().filter_map(|(key, state)| {
            let copied = self.states.get(key);
            let text = || {
                let copied = copied.map_or("no state", String::as_str);
                format!("{} {}: {copied} instead of {state}", key.0, key.1)
            };
            (copied != Some(state)).then(text)
        });
        let wrong: Vec<_> = wrong.collect();
        verdict.add_rows(Kind::WrongState, &format!("{name}: wrong states"), &wrong);
        let gone = self.states.keys().filter(|key| !stored.contains_key(*key));
        let gone: Vec<_> = gone
            .map(|(entity_type, id)| format!("{entity_type} {id}"))
            .collect();
        verdict.add_rows(
            Kind::WrongState,
            &format!("{name}: states of nothing"),
            &gone,
        );
        Ok(self.account)
    }
}

#[derive(QueryableByName)]
struct Stored {
    #[diesel(sql_type = Text)]
    entity_type: String,
    #[diesel(sql_type = Text)]
    entity_id: String,
    #[diesel(sql_type = Text)]
    state: String,
}

/// Reads the states of a namespace.
async fn stored(url: &str, filter: Filter) -> Result<States> {
    let mut database = bridgebook::db::connect(&url.parse()?).await?;
    let query = diesel::sql_query(
        "SELECT entity_type, entity_id::TEXT, state FROM
            (SELECT namespace, 'workflow' AS entity_type, id AS entity_id, current_state AS state
               FROM workflow_executions
              UNION ALL SELECT namespace, entity_type, entity_id, current_state FROM fsm_entities
              UNION ALL SELECT namespace, 'bridge', bridge_id, current_fsm_state
               FROM bridge_states) it
          WHERE namespace = $1",
    );
    let query = query.bind::<Text, _>(filter.namespace);
    let rows: Vec<Stored> = query.load(&mut database).await?;
    let states = rows
        .into_iter()
        .map(|it| ((it.entity_type, it.entity_id), it.state));
    Ok(states.collect())
}
