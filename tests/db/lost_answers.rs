//! Writes that are committed, but whose answer is lost. The service runs them again.

use std::collections::BTreeMap;

use bridgebook::{domain::role::Role, proto::Rpc};
use diesel_async::SimpleAsyncConnection;
use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use serde_json::json;

use crate::{
    fsm::{machine, put},
    samples::{Rows, call, sample},
    support::{App, contract, eventually, failure, new_id},
};

fn is_write(rpc: Rpc) -> bool {
    let reads = ["Get", "List"];
    let (_, name) = contract::method(rpc).split_once('/').unwrap();
    rpc.role() >= Role::Writer && !reads.iter().any(|verb| name.starts_with(verb))
}

/// Returns the values of all flags of a response, such as `created`, by their paths.
fn flags(message: &DynamicMessage, within: &str, found: &mut BTreeMap<String, bool>) {
    for (field, value) in message.fields() {
        flags_of(value, &format!("{within}.{}", field.name()), found);
    }
    for field in message.descriptor().fields() {
        if let Value::Bool(value) = message.get_field(&field).as_ref() {
            found.insert(format!("{within}.{}", field.name()), *value);
        }
    }
}

fn flags_of(value: &Value, path: &str, found: &mut BTreeMap<String, bool>) {
    match value {
        Value::Message(inner) => flags(inner, path, found),
        Value::List(items) => items
            .iter()
            .enumerate()
            .for_each(|(place, item)| flags_of(item, &format!("{path}[{place}]"), found)),
        _ => {}
    }
}

/// Makes a call, and returns the flags of its response, or the reason of its error.
async fn outcome(app: &App, rpc: Rpc, rows: &Rows, bits: u8) -> BTreeMap<String, bool> {
    let mut request = rows.fill(&sample(rpc).request(bits));
    if rpc == Rpc::AdminServiceRevokeToken {
        request["id"] = new_token(app).await.into();
    }
    let response = call(app, rpc, None, &request).await;
    let mut found = BTreeMap::new();
    match response {
        Ok(response) => flags(&response, "", &mut found),
        Err(status) => {
            let reason = failure::<()>(Err(status));
            found.insert(format!("{reason:?}"), false);
        }
    }
    found
}

/// Returns whether the caller chooses the id by which a retry is recognised. Then the service
/// cannot tell whether this call or an earlier one stored the row.
fn is_id_chosen(rpc: Rpc, bits: u8) -> bool {
    let request = sample(rpc).request(bits).to_string();
    let marks = [
        "+workflow",
        "+step",
        "+stamp",
        "+transition",
        "&batch",
        "$position",
    ];
    marks.iter().any(|mark| request.contains(mark))
}

/// A call that runs twice has the outcome of a call that runs once.
#[tokio::test]
async fn a_call_that_runs_again_after_a_lost_answer_does_not_notice_it() {
    let (app, tap) = App::tapped().await;
    let mut walked = 0;
    for rpc in Rpc::ALL.iter().copied().filter(|rpc| is_write(*rpc)) {
        let [once, twice] = [app.tenant(), app.tenant()];
        let once = Rows::make(&app, &once.namespace, None).await;
        let twice = Rows::make(&app, &twice.namespace, None).await;
        for rows in [&once, &twice] {
            if rpc == Rpc::AdminServiceDeleteRetentionPolicy {
                outcome(&app, Rpc::AdminServiceSetRetentionPolicy, rows, 0).await;
            }
            if rpc == Rpc::AdminServiceDeleteQuota {
                let quota = json!({"namespace": rows.namespace});
                let set = call(&app, Rpc::AdminServiceSetQuota, None, &quota).await;
                set.unwrap();
            }
        }
        let sample = sample(rpc);
        for bits in sample.each_variant() {
            let bits = sample.always_valid(bits);
            let expected = outcome(&app, rpc, &once, bits).await;
            tap.lose_commit("");
            let found = outcome(&app, rpc, &twice, bits).await;
            let is_same_but_for_values = found.keys().eq(expected.keys());
            let looks_like_a_retry = is_id_chosen(rpc, bits) && is_same_but_for_values;
            assert!(
                found == expected || looks_like_a_retry,
                "{rpc:?} with variant {bits:b}: {found:?} and not {expected:?}"
            );
            // A call without effect writes nothing.
            walked += i32::from(tap.has_lost_commit());
            assert!(tap.has_lost_commit() || bits > 0, "{rpc:?} wrote nothing");
            tap.keep_commits();
        }
    }
    assert!(walked > 40, "only {walked} answers were lost");
}

async fn new_token(app: &App) -> String {
    let id = new_id();
    let request = json!({"id": id, "name": "operator", "role": "ROLE_ADMIN"});
    let created = call(app, Rpc::AdminServiceCreateToken, None, &request).await;
    created.unwrap();
    id
}

/// Both machines are put by one batch, and only the answer to the second commit is lost. When
/// the batch runs again, the machine of the first call is no longer the current one.
#[tokio::test]
async fn machines_that_one_batch_puts_are_not_put_twice() {
    let (app, tap) = App::tapped().await;
    let tenant = app.tenant();
    let version = |event: &str, expected| bridgebook::proto::v1::PutMachineRequest {
        expected_version: Some(expected),
        ..machine(&tenant, "NEW", &[], &[("NEW", event, "NEW")])
    };
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE fsm_machines IN SHARE MODE";
    blocker.batch_execute(lock).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_locks
        WHERE NOT granted AND relation = 'fsm_machines'::regclass";
    let mut puts = Vec::new();
    // The first put waits for the lock. The others wait in the queue and form a batch.
    for (event, expected) in [("one", 0), ("two", 1), ("three", 2)] {
        let (caller, request) = (tenant.clone(), version(event, expected));
        puts.push(tokio::spawn(async move { put(&caller, request).await }));
        eventually("the first put waits", || async {
            (app.schema.count(waiting).await > 0).then_some(())
        })
        .await;
        // A later call over the same connection is answered, so the put is in the queue.
        tenant.start().await;
    }
    tap.lose_commit("three");
    blocker.batch_execute("COMMIT").await.unwrap();
    for (put, expected) in puts.into_iter().zip(1..) {
        let answer = put.await.unwrap().unwrap();
        assert!(answer.created);
        assert_eq!(answer.machine.unwrap().version, expected);
    }
    assert!(tap.has_lost_commit());
    let versions = "SELECT count(*) FROM fsm_machines";
    assert_eq!(app.schema.count(versions).await, 3);
}
