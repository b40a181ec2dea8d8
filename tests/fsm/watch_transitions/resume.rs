//! The watch of the Rust client, which goes on after a break.

use std::time::Duration;

use bridgebook::client::{
    Client,
    retry::reason,
    watch::{Event, Watch},
};

use super::{after, all, ids};
use crate::{
    fsm::{history, record, transition},
    support::{App, new_id},
};

#[tokio::test]
async fn a_watch_goes_on_when_its_connections_close_and_repeats_nothing() {
    let app = App::start_with(|config| {
        config.limits.connection.max_age = Some(Duration::from_secs(1));
        config.limits.connection.check_interval = Duration::from_millis(100);
    });
    let app = app.await;
    let tenant = app.tenant();
    let mut watch = Watch::new(&Client::new(app.channel.clone()), all(&tenant));
    assert_eq!(watch.position(), None);
    let order = new_id();
    let step = async |number: usize| {
        let made = record(&tenant, transition(&order, "step", &format!("S{number}")));
        Box::pin(made).await.unwrap();
    };
    let (mut rows, mut made, mut breaks) = (Vec::new(), 0, 0);
    while breaks < 3 || rows.len() < made {
        match watch.next().await.unwrap() {
            // A row for each stream, and one between two streams.
            Event::Ready if breaks < 3 => {
                step(made).await;
                made += 1;
            }
            Event::Interrupted(_) => {
                breaks += 1;
                step(made).await;
                made += 1;
            }
            Event::Transitions(transitions) => {
                let last = transitions.last().unwrap().position.clone();
                assert_eq!(watch.position(), Some(&*last));
                rows.extend(transitions);
            }
            Event::Bookmark(position) => assert!(watch.position() >= Some(&*position)),
            Event::Ready => {}
            Event::Snapshot(_) => panic!("no snapshot was asked for"),
        }
    }
    assert_eq!(ids(&rows), ids(&history(&tenant, &order).await));
}

#[tokio::test]
async fn a_watch_returns_errors_that_do_not_pass() {
    let (app, tenant) = App::with_tenant().await;
    let mut watch = Watch::new(&Client::new(app.channel.clone()), after(&tenant, "x"));
    let status = watch.next().await.unwrap_err();
    assert_eq!(reason(&status).as_deref(), Some("INVALID_FIELD"));
}
