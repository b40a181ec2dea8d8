//! A consumer: one of several processes that count the journal in the same bridge, each row once.

use std::{mem, sync::Arc, time::Duration};

use bridgebook::{
    client::{
        Client,
        retry::{reason, with_retries},
        watch::{Event, Watch},
    },
    proto::v1::{
        AccumulateBridgeStateRequest, GetBridgeStateRequest, watch_transitions_request::Begin,
    },
};
use tokio::sync::Notify;
use tonic::Status;

use super::{
    account::Account,
    bridge::{Bridge, Totals},
    end::End,
    journal::parse,
};

/// The number of rows after which a batch is sent; each consumer draws its own up to this. So none of
/// them is always the first.
const BATCH_ROWS: i64 = 200;

/// Counts rows in a bridge, and loses what it has not sent when it is killed.
pub struct Consumer {
    bridge: Bridge,
    end: End,
    killed: Arc<Notify>,
    account: Account,
}

/// Why a consumer begins anew or not.
enum Outcome {
    /// The bridge has consumed the journal to its end.
    Finished,
    /// The bridge is not where the consumer believes.
    Overtaken,
}

impl Consumer {
    /// Creates a consumer, which begins anew whenever `killed` is notified.
    pub fn new(bridge: Bridge, number: usize, end: End, killed: Arc<Notify>) -> Self {
        let filter = bridge.filter;
        Consumer {
            bridge,
            end,
            killed,
            account: Account::new(format!("consumer {number} of {filter}")),
        }
    }

    /// Consumes until the end of the journal.
    pub async fn run(mut self, client: Client) -> Account {
        let (end, killed) = (self.end.clone(), Arc::clone(&self.killed));
        loop {
            let outcome = tokio::select! {
                outcome = end.limit(self.consume(&client)) => outcome,
                () = killed.notified() => {
                    self.account.note_kill();
                    continue;
                }
            };
            match outcome {
                Ok(Outcome::Finished) => break,
                Ok(Outcome::Overtaken) => {}
                Err(failure) => {
                    self.account.failure = Some(failure);
                    break;
                }
            }
        }
        self.account
    }

    /// Follows the journal after what the bridge has consumed.
    async fn consume(&mut self, client: &Client) -> Result<Outcome, Status> {
        let mut consumed = self.consumed(client).await?;
        let begin = Begin::AfterBridge(self.bridge.id.to_string());
        let mut watch = Watch::new(client, self.bridge.filter.request(begin));
        let mut batch = Totals::default();
        let rows = fastrand::i64(1..=BATCH_ROWS);
        while !self.end.is_reached(self.bridge.filter, Some(&consumed)) {
            let event = watch.next().await?;
            self.account.note(&event);
            match event {
                Event::Transitions(transitions) => {
                    batch.add(&transitions);
                    if batch.rows < rows {
                        continue;
                    }
                }
                // Nothing more is waiting.
                Event::Bookmark(_) => {}
                // Another consumer was faster than the beginning of the stream.
                Event::Ready if batch.rows == 0 && !is_at(&watch, &consumed) => {
                    return Ok(Outcome::Overtaken);
                }
                Event::Ready | Event::Snapshot(_) | Event::Interrupted(_) => continue,
            }
            if is_at(&watch, &consumed) {
                continue;
            }
            let through = watch.position().unwrap_or_default().to_owned();
            if !self
                .send(client, mem::take(&mut batch), &consumed, &through)
                .await?
            {
                return Ok(Outcome::Overtaken);
            }
            consumed = through;
        }
        Ok(Outcome::Finished)
    }

    /// Returns the position through which the bridge has consumed.
    async fn consumed(&self, client: &Client) -> Result<String, Status> {
        let request = GetBridgeStateRequest {
            namespace: self.bridge.filter.namespace.into(),
            bridge_id: self.bridge.id.to_string(),
        };
        let bridges = client.bridges();
        let call = move || {
            let (mut bridges, request) = (bridges.clone(), request.clone());
            async move { bridges.get_bridge_state(request).await }
        };
        let response = with_retries(Duration::MAX, call).await?;
        Ok(response.bridge_state.unwrap_or_default().consumed_through)
    }

    /// Adds a batch to the bridge. Returns false if the bridge has consumed something else meanwhile.
    async fn send(
        &mut self,
        client: &Client,
        batch: Totals,
        from: &str,
        through: &str,
    ) -> Result<bool, Status> {
        let request = AccumulateBridgeStateRequest {
            namespace: self.bridge.filter.namespace.into(),
            bridge_id: self.bridge.id.to_string(),
            workflows_processed: batch.rows,
            items_aggregated: batch.sum,
            consumed_from: from.to_owned(),
            consumed_through: through.to_owned(),
            ..AccumulateBridgeStateRequest::default()
        };
        let bridges = client.bridges();
        let call = move || {
            let (mut bridges, request) = (bridges.clone(), request.clone());
            async move { bridges.accumulate_bridge_state(request).await }
        };
        match with_retries(Duration::MAX, call).await {
            Ok(response) => {
                // Otherwise an earlier attempt has, or another consumer with the same batch.
                if response.applied {
                    self.account.rows += usize::try_from(batch.rows).unwrap_or_default();
                }
                Ok(true)
            }
            Err(status) if reason(&status).as_deref() == Some("STATE_CHANGED") => {
                self.account.overtaken += 1;
                Ok(false)
            }
            Err(status) => Err(status),
        }
    }
}

/// Returns whether a watch has come just as far as a bridge. Nothing is removed from this journal, so one
/// after a bridge that has consumed nothing begins before all rows.
fn is_at(watch: &Watch, consumed: &str) -> bool {
    let position = watch.position().map(parse);
    position.unwrap_or_default() == parse(consumed)
}
