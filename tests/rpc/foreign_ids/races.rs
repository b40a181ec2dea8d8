//! Ids that another caller takes during a call.

use std::future::Future;

use bridgebook::proto::v1::{self, WorkflowState};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};

use super::{Case, case, outcomes, requests};
use crate::{
    bridge_state, fsm,
    support::{App, Failure, Tenant, eventually, failure, new_id},
};

/// Runs a call during another transaction that inserts a row with the call's id.
async fn raced<T>(
    app: &App,
    insert: &str,
    call: impl Future<Output = T> + Send + 'static,
    end: &str,
) -> T
where
    T: Send + 'static,
{
    let mut other: AsyncPgConnection = app.schema.connect().await;
    let begin = format!("BEGIN; {insert}");
    other.batch_execute(&begin).await.unwrap();
    let call = tokio::spawn(call);
    let waiting = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND a.query LIKE 'WITH item AS%'
          AND l.locktype = 'transactionid'
          AND l.transactionid IN (SELECT o.transactionid FROM pg_locks o
                JOIN pg_stat_activity b ON b.pid = o.pid
                WHERE o.granted AND b.query LIKE '%<a race>%')";
    eventually("the call waits for the row", || async {
        (app.schema.count(waiting).await > 0).then_some(())
    })
    .await;
    other.batch_execute(end).await.unwrap();
    call.await.unwrap()
}

/// Returns an INSERT of a tenant's row with this id. Its comment identifies the race.
fn row(table: &str, tenant: &Tenant, id: &str) -> String {
    let namespace = &tenant.namespace;
    match table {
        "metadata_stamps" => format!(
            "INSERT /* <a race> */ INTO metadata_stamps (id, namespace, file_hash)
             VALUES ('{id}', '{namespace}', 'b')"
        ),
        "bridge_states" => format!(
            "INSERT /* <a race> */ INTO bridge_states (bridge_id, namespace, current_fsm_state, revision)
             VALUES ('{id}', '{namespace}', 'ACTIVE', 1)"
        ),
        _ => format!(
            "INSERT /* <a race> */ INTO fsm_transitions
                (id, namespace, entity_id, entity_type, to_state, transition_event)
             VALUES ('{id}', '{namespace}', '{id}', 'valve', 'OPEN', 'turn')"
        ),
    }
}

/// Returns a call that stores a row of this table under the id.
fn racer(table: &str, tenant: &Tenant, mine: &v1::Workflow, id: &str) -> Case {
    match table {
        "metadata_stamps" => {
            let stamp = v1::NewStamp {
                id: id.into(),
                file_hash: "a".into(),
                ..v1::NewStamp::default()
            };
            let request = requests::stamp(tenant, stamp);
            case(
                "stamp",
                "WorkflowService/RecordStamp",
                request,
                &[&id.into()],
            )
        }
        "bridge_states" => {
            let request = bridge_state::bridge(tenant, id);
            case(
                "bridge",
                "BridgeStateService/UpsertBridgeState",
                request,
                &[&id.into()],
            )
        }
        _ => {
            let request = v1::TransitionWorkflowRequest {
                transition_id: id.into(),
                ..tenant.to(mine, WorkflowState::Processing)
            };
            case(
                "move",
                "WorkflowService/TransitionWorkflow",
                request,
                &[&id.into()],
            )
        }
    }
}

#[tokio::test]
async fn a_concurrent_conflict_gives_the_same_answer() {
    let (app, tap) = App::tapped().await;
    for table in ["metadata_stamps", "fsm_transitions", "bridge_states"] {
        let mut seen = Vec::new();
        for is_own in [true, false] {
            if is_own && table == "bridge_states" {
                continue;
            }
            let caller = app.tenant();
            let holder = if is_own { caller.clone() } else { app.tenant() };
            let mine = caller.start().await;
            for end in ["COMMIT", "ROLLBACK"] {
                let id = new_id();
                let case = Case {
                    stores: true,
                    ..racer(table, &caller, &mine, &id)
                };
                let (caller, tap) = (caller.clone(), tap.clone());
                let call = async move { outcomes(&caller, &tap, vec![case]).await.remove(0) };
                let outcome = raced(&app, &row(table, &holder, &id), call, end).await;
                let expected = if end == "COMMIT" {
                    "ID_CONFLICT"
                } else {
                    "stored"
                };
                assert!(outcome.answer.contains(expected), "{table} {outcome:?}");
                seen.push((end, outcome));
            }
        }
        if let [own_taken, own_free, taken, free] = seen.as_slice() {
            assert_eq!((own_taken, own_free), (taken, free));
        }
    }
}

/// Sends calls so that they form one batch: a table stays locked until all of them wait
/// behind the first one.
async fn together<F>(app: &App, table: &str, calls: Vec<F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let witness = app.tenant();
    let workflow = witness.start().await;
    let mut blocker = app.schema.connect().await;
    let lock = format!("BEGIN; LOCK TABLE {table}");
    blocker.batch_execute(&lock).await.unwrap();
    let waiting = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass"
    );
    let mut tasks = Vec::new();
    for call in calls {
        tasks.push(tokio::spawn(call));
        eventually("the first is at the lock", || async {
            (app.schema.count(&waiting).await > 0).then_some(())
        })
        .await;
        // The call is in the queue once a later call over the same channel is answered.
        witness.get(&workflow).await;
    }
    blocker.batch_execute("COMMIT").await.unwrap();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn tenants_with_the_same_ids_in_one_batch_stay_separate() {
    let (app, owner) = App::with_tenant().await;
    let stranger = app.tenant();
    let order = new_id();
    let create = v1::NewTransition {
        transition_id: new_id(),
        ..fsm::transition(&order, "create", "NEW")
    };
    fsm::record(&owner, create.clone()).await.unwrap();
    let first = (&owner, fsm::transition(&order, "pay", "PAID"));
    let retry = (&owner, create.clone());
    let foreign = (&stranger, create);
    // In different positions of the batch.
    let calls = [first, foreign.clone(), retry, foreign];
    let calls = calls.map(|(tenant, transition)| {
        let tenant = tenant.clone();
        async move { fsm::record(&tenant, transition).await }
    });
    let answers = together(&app, "fsm_entities", calls.into()).await;
    let applied = answers.into_iter().map(|answer| match answer {
        Ok(moved) => Some(moved.applied),
        Err(status) => {
            assert_eq!(failure::<()>(Err(status)), Failure::id_conflict());
            None
        }
    });
    let expected = [Some(true), None, Some(false), None];
    assert_eq!(applied.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn tenants_with_the_same_bridge_in_one_batch_stay_separate() {
    let (app, owner) = App::with_tenant().await;
    let stranger = app.tenant();
    // A bridge that exists, and one that the batch itself creates.
    for bridge_id in [bridge_state::new_bridge(&owner).await, new_id()] {
        let batch = |tenant: &Tenant, bridge_id: &str| v1::AccumulateBridgeStateRequest {
            current_fsm_state: "ACTIVE".into(),
            ..bridge_state::batch(tenant, bridge_id, 1)
        };
        // Enough other calls to block every worker.
        let others = (0..6).map(|_| batch(&owner, &new_id()));
        let tenants = [&owner, &stranger, &owner, &stranger];
        let same = tenants.map(|tenant| batch(tenant, &bridge_id));
        let calls = others.chain(same).map(|request| {
            let tenant = owner.clone();
            async move { bridge_state::accumulate(&tenant, request).await }
        });
        let mut answers = together(&app, "bridge_states", calls.collect()).await;
        for (answer, tenant) in answers.split_off(6).into_iter().zip(tenants) {
            if tenant.namespace == owner.namespace {
                assert!(answer.unwrap().applied);
            } else {
                assert_eq!(failure(answer), Failure::id_conflict());
            }
        }
        let totals = bridge_state::totals(&owner, &bridge_id).await;
        assert_eq!(totals, (2, 2));
    }
}
