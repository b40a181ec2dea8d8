//! Notifications between replicas.

use futures_util::{StreamExt, future, stream};
use tokio_postgres::{AsyncMessage, NoTls};

use super::{PATIENCE, Watching, all, make_moves};
use crate::support::{App, Tenant};

/// Returns the payloads of the notifications on a channel of the journal.
async fn listen(
    app: &App,
    name: &str,
) -> (tokio_postgres::Client, stream::BoxStream<'static, String>) {
    let (client, mut connection) = tokio_postgres::connect(&app.schema.url(), NoTls)
        .await
        .unwrap();
    let messages = stream::poll_fn(move |context| connection.poll_message(context));
    let payloads = messages.filter_map(|message| {
        future::ready(match message {
            Ok(AsyncMessage::Notification(it)) => Some(it.payload().to_owned()),
            _ => None,
        })
    });
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(payloads.for_each(move |payload| {
        let _ = sender.send(payload);
        future::ready(())
    }));
    let table = client
        .query_one("SELECT 'fsm_transitions'::regclass::oid", &[])
        .await
        .unwrap();
    let table: u32 = table.get(0);
    client
        .batch_execute(&format!("LISTEN bridgebook_{table}_{name}"))
        .await
        .unwrap();
    let payloads = stream::unfold(receiver, async |mut receiver| {
        let payload = receiver.recv().await?;
        Some((payload, receiver))
    });
    (client, payloads.boxed())
}

#[tokio::test]
async fn a_replica_tells_others_of_changes_while_they_watch() {
    let writer = App::start().await;
    let watcher = writer.replica().await;
    let tenant = writer.tenant();
    let (_client, mut changes) = listen(&writer, "changes").await;
    make_moves(&tenant, 3).await;
    let of_watcher = Tenant {
        channel: watcher.channel.clone(),
        ..tenant.clone()
    };
    let mut watching = Watching::open(&of_watcher, all(&of_watcher)).await.unwrap();
    // The writer has to hear that the other one watches.
    let writing = tokio::spawn({
        let tenant = tenant.clone();
        async move {
            loop {
                make_moves(&tenant, 1).await;
            }
        }
    });
    let heard = tokio::time::timeout(PATIENCE, changes.next()).await;
    writing.abort();
    assert_eq!(heard.unwrap().unwrap(), tenant.namespace, "none before");
    watching.message().await.unwrap();
}
