//! FsmService/WatchTransitions: what a stream contains, where it begins, and how it ends.

mod begin;
mod ends;
mod horizon;
mod lost;
mod notify;
mod order;
mod resume;
mod slow;
mod snapshot;
mod tokens;

use std::time::Duration;

use bridgebook::proto::v1::{
    self, FsmTransition, WatchTransitionsRequest, watch_transitions_request::Begin,
    watch_transitions_response::Message,
};
use diesel_async::SimpleAsyncConnection;
use serde_json::json;
use tonic::{Status, Streaming};

use super::{client, new_order, record, transition};
use crate::support::{App, Tenant, document, new_id};

/// How long a message may take on a machine that runs many tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open stream.
pub struct Watching {
    stream: Streaming<v1::WatchTransitionsResponse>,
    /// The position of the first message.
    ready: String,
    /// The position of the last message.
    position: String,
}

impl Watching {
    /// Opens a stream, and waits until it is ready.
    pub async fn open(tenant: &Tenant, request: WatchTransitionsRequest) -> Result<Self, Status> {
        // In a box, because the futures of tests with many streams exceed the stack otherwise.
        Box::pin(Self::begin(tenant, request)).await
    }

    /// Takes a stream that was opened, before its first message.
    pub fn on(stream: Streaming<v1::WatchTransitionsResponse>) -> Self {
        Watching {
            stream,
            ready: String::new(),
            position: String::new(),
        }
    }

    async fn begin(tenant: &Tenant, request: WatchTransitionsRequest) -> Result<Self, Status> {
        let stream = client(tenant).watch_transitions(request).await?;
        let mut watching = Watching::on(stream.into_inner());
        match watching.message().await? {
            Message::Ready(ready) => watching.ready = ready.position,
            other => panic!("not ready: {other:?}"),
        }
        watching.position.clone_from(&watching.ready);
        Ok(watching)
    }

    /// Waits for a message.
    pub async fn message(&mut self) -> Result<Message, Status> {
        let next = tokio::time::timeout(PATIENCE, self.stream.message()).await;
        let next = next.expect("a message")?.expect("the stream goes on");
        let message = next.message.expect("a message with content");
        match &message {
            Message::Ready(it) => self.position.clone_from(&it.position),
            Message::Bookmark(it) => {
                assert!(it.position >= self.position, "a bookmark never goes back");
                self.position.clone_from(&it.position);
            }
            // A part may be empty.
            Message::Snapshot(_) => {}
            Message::Transitions(it) => {
                let last = it.transitions.last().expect("no empty message");
                self.position.clone_from(&last.position);
            }
        }
        Ok(message)
    }

    /// Waits for a number of transitions.
    pub async fn transitions(&mut self, count: usize) -> Vec<FsmTransition> {
        let mut rows = Vec::new();
        while rows.len() < count {
            if let Message::Transitions(it) = self.message().await.expect("the stream goes on") {
                rows.extend(it.transitions);
            }
        }
        assert_eq!(rows.len(), count, "more than expected: {rows:?}");
        rows
    }

    /// Waits for the next bookmark. No transition may come before.
    pub async fn bookmark(&mut self) -> String {
        match self.message().await {
            Ok(Message::Bookmark(bookmark)) => bookmark.position,
            other => panic!("no bookmark: {other:?}"),
        }
    }

    /// Waits for the end, and returns its status. Returns the messages before it, too.
    pub async fn end(mut self) -> (Vec<Message>, Status) {
        let mut messages = Vec::new();
        loop {
            match self.message().await {
                Ok(message) => messages.push(message),
                Err(status) => return (messages, status),
            }
        }
    }
}

/// Returns the request to watch all of a tenant from now on.
pub fn all(tenant: &Tenant) -> WatchTransitionsRequest {
    WatchTransitionsRequest {
        namespace: tenant.namespace.clone(),
        ..WatchTransitionsRequest::default()
    }
}

pub fn from_start(tenant: &Tenant) -> WatchTransitionsRequest {
    WatchTransitionsRequest {
        begin: Some(Begin::FromStart(true)),
        ..all(tenant)
    }
}

pub fn after(tenant: &Tenant, position: &str) -> WatchTransitionsRequest {
    WatchTransitionsRequest {
        begin: Some(Begin::After(position.to_owned())),
        ..all(tenant)
    }
}

pub fn ids(rows: &[FsmTransition]) -> Vec<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

/// Writes rows to the journal, in one commit.
pub async fn commit_rows(app: &App, tenant: &Tenant, count: usize) {
    let insert = format!(
        "INSERT INTO fsm_transitions (id, entity_id, entity_type, to_state, transition_event, namespace)
         SELECT gen_random_uuid(), gen_random_uuid(), 'bulk', 'X', 'bulk', '{}'
           FROM generate_series(1, {count})",
        tenant.namespace
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&insert).await.unwrap();
}

/// Makes an order, and lets each query of the entities take some seconds.
pub async fn delay_entities(app: &App, tenant: &Tenant, seconds: u32) {
    let delay = format!(
        "INSERT INTO fsm_entities VALUES
             ('{}', 'order', gen_random_uuid(), 'NEW', 1, now(), now());
         ALTER TABLE fsm_entities RENAME TO entities;
         CREATE VIEW fsm_entities AS SELECT it.* FROM entities it, pg_sleep({seconds})",
        tenant.namespace
    );
    let mut connection = app.schema.connect().await;
    connection.batch_execute(&delay).await.unwrap();
}

/// Makes moves of a new order. Returns them as the journal has them.
pub async fn make_moves(tenant: &Tenant, count: usize) -> Vec<FsmTransition> {
    make_moves_of(tenant, &new_id(), count).await
}

/// Makes moves of an order. Returns all of its moves as the journal has them.
pub async fn make_moves_of(tenant: &Tenant, id: &str, count: usize) -> Vec<FsmTransition> {
    // In a box, as a stream is.
    let moves = Box::pin(async {
        for number in 0..count {
            let state = format!("S{number}");
            let made = record(tenant, transition(id, "step", &state)).await;
            made.expect("a move");
        }
        super::history(tenant, id).await
    });
    moves.await
}

#[tokio::test]
async fn a_stream_has_what_the_list_has() {
    let (_app, tenant) = App::with_tenant().await;
    let mut watching = Watching::open(&tenant, all(&tenant)).await.unwrap();
    let id = new_id();
    let made = record(
        &tenant,
        v1::NewTransition {
            transition_data: document(json!({"by": "hand"})),
            ..transition(&id, "create", "NEW")
        },
    );
    made.await.unwrap();
    let rows = watching.transitions(1).await;
    assert_eq!(rows, super::history(&tenant, &id).await);
    assert_eq!(rows[0].position.len(), 48);
    assert!(rows[0].position > watching.ready);
}

#[tokio::test]
async fn every_filter_selects() {
    let (_app, tenant) = App::with_tenant().await;
    let order = new_order(&tenant).await;
    let other = new_order(&tenant).await;
    for (id, event, to) in [
        (&order, "pay", "PAID"),
        (&other, "pay", "PAID"),
        (&order, "ship", "SHIPPED"),
    ] {
        record(&tenant, transition(id, event, to)).await.unwrap();
    }
    let workflow = tenant.start().await;
    let watch = async |change: fn(&mut WatchTransitionsRequest, String), value: &str, count| {
        let mut request = from_start(&tenant);
        change(&mut request, value.to_owned());
        let mut watching = Watching::open(&tenant, request).await.unwrap();
        watching.transitions(count).await
    };
    let rows = watch(|it, value| it.entity_type = value, "workflow", 1).await;
    assert_eq!(rows[0].entity_id, workflow.id);
    let rows = watch(|it, value| it.entity_id = value, &order, 3).await;
    assert!(rows.iter().all(|row| row.entity_id == order));
    let rows = watch(|it, value| it.transition_event = value, "pay", 2).await;
    assert!(rows.iter().all(|row| row.to_state == "PAID"));
    let rows = watch(|it, value| it.to_state = value, "SHIPPED", 1).await;
    assert_eq!(rows[0].entity_id, order);
    let rows = watch(|it, value| it.entity_id = value.to_uppercase(), &order, 3).await;
    assert_eq!(rows.len(), 3, "ids in capitals are the same");
}

#[tokio::test]
async fn bookmarks_go_past_transitions_that_do_not_match() {
    let (_app, tenant) = App::with_tenant().await;
    let narrow = |request| WatchTransitionsRequest {
        to_state: "NEVER".into(),
        ..request
    };
    let mut live = Watching::open(&tenant, narrow(all(&tenant))).await.unwrap();
    let last = make_moves(&tenant, 3).await.pop().unwrap().position;
    assert_eq!(live.bookmark().await, last);
    // One that reads old rows does the same.
    let mut late = Watching::open(&tenant, narrow(from_start(&tenant)))
        .await
        .unwrap();
    assert_eq!(late.bookmark().await, last);
    let mut resumed = Watching::open(&tenant, after(&tenant, &last))
        .await
        .unwrap();
    let next = make_moves(&tenant, 1).await;
    assert_eq!(ids(&resumed.transitions(1).await), ids(&next));
}

#[tokio::test]
async fn a_prefix_stands_for_all_namespaces_that_begin_so() {
    let app = App::start().await;
    let family = format!("family-{}", new_id());
    let member = |name: &str| Tenant {
        namespace: format!("{family}-{name}"),
        ..app.tenant()
    };
    let (first, second, stranger) = (member("a"), member("b"), app.tenant());
    make_moves(&first, 2).await;
    make_moves(&stranger, 1).await;
    make_moves(&second, 2).await;
    let request = |begin| WatchTransitionsRequest {
        namespace: format!("{family}*"),
        begin: Some(begin),
        ..WatchTransitionsRequest::default()
    };
    let mut watching = Watching::open(&first, request(Begin::FromStart(true)))
        .await
        .unwrap();
    let old = watching.transitions(4).await;
    let third = member("c");
    make_moves(&third, 1).await;
    make_moves(&stranger, 1).await;
    make_moves(&first, 1).await;
    let new = watching.transitions(2).await;
    let rows = [old, new].concat();
    let namespaces: Vec<_> = rows.iter().map(|row| row.namespace.as_str()).collect();
    let [a, b, c] = [&first, &second, &third].map(|it| it.namespace.as_str());
    assert_eq!(namespaces, [a, a, b, b, c, a]);
    assert!(
        rows.is_sorted_by_key(|row| &row.position),
        "one order for all"
    );
    for (index, row) in rows.iter().enumerate() {
        let begin = Begin::After(row.position.clone());
        let mut resumed = Watching::open(&first, request(begin)).await.unwrap();
        let rest = &rows[index + 1..];
        if !rest.is_empty() {
            assert_eq!(ids(&resumed.transitions(rest.len()).await), ids(rest));
        }
    }
}
