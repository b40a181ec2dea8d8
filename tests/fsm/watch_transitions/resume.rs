//! The watch of the Rust client, which goes on after a break.

use std::time::Duration;

use bridgebook::{
    client::{
        Client,
        retry::reason,
        watch::{Event, Watch},
    },
    proto::v1::WatchTransitionsRequest,
};

use super::{after, all, ids};
use crate::{
    fsm::{history, new_order, record, transition},
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
async fn a_snapshot_comes_once_if_a_bookmark_came_before_the_break() {
    let app = App::start_with(|config| {
        config.limits.connection.max_age = Some(Duration::from_secs(1));
        config.limits.connection.check_interval = Duration::from_millis(100);
    });
    let app = app.await;
    let tenant = app.tenant();
    let order = new_order(&tenant).await;
    let request = WatchTransitionsRequest {
        with_snapshot: true,
        workflow_states: vec!["FAILED".into()],
        ..all(&tenant)
    };
    let mut watch = Watch::new(&Client::new(app.channel.clone()), request);
    let mut seen = Vec::new();
    while seen.iter().filter(|it| **it == "ready").count() < 2 {
        let (event, has_position) = match watch.next().await.unwrap() {
            Event::Snapshot(states) => {
                assert_eq!(states[0].entity_id, order);
                ("snapshot", Some(false))
            }
            Event::Ready => ("ready", None),
            Event::Transitions(_) => panic!("no transition was made"),
            Event::Bookmark(_) => ("bookmark", Some(true)),
            Event::Interrupted(_) => ("interrupted", Some(true)),
        };
        if let Some(expected) = has_position {
            assert_eq!(watch.position().is_some(), expected, "{event}");
        }
        seen.push(event);
    }
    seen.dedup();
    assert_eq!(
        seen,
        ["snapshot", "ready", "bookmark", "interrupted", "ready"]
    );
}

#[tokio::test]
async fn a_watch_returns_errors_that_do_not_pass() {
    let (app, tenant) = App::with_tenant().await;
    let mut watch = Watch::new(&Client::new(app.channel.clone()), after(&tenant, "x"));
    let status = watch.next().await.unwrap_err();
    assert_eq!(reason(&status).as_deref(), Some("INVALID_FIELD"));
}
