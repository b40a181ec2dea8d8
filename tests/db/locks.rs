//! Rows that other sessions lock, and items that take long.

use std::time::Duration;

use bridgebook::proto::{Rpc, v1};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::{StreamExt, future::join_all, stream};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::writes::{Writes, write_rpcs};
use crate::{
    fsm::{order_machine, put},
    support::{App, Failure, Tenant, failure},
};

/// The number of rows, and that of the locked one.
const ROWS: usize = 40;
const LOCKED: usize = 23;

/// Deletes the rows with one number in a transaction that stays open. Every other writer of
/// such a row waits, those that insert it again too.
async fn lock(app: &App, writes: &Writes) -> AsyncPgConnection {
    let tables = [
        ("workflow_executions", "id", "workflow"),
        ("fsm_entities", "entity_id", "entity"),
        ("bridge_states", "bridge_id", "bridge"),
        ("node_registrations", "node_id", "node"),
    ];
    let deletes = tables.map(|(table, key, kind)| {
        let id = writes.id(kind, LOCKED);
        format!("DELETE FROM {table} WHERE {key} = '{id}'")
    });
    let mut blocker = app.schema.connect().await;
    let begin = format!("BEGIN; {}", deletes.join("; "));
    blocker.batch_execute(&begin).await.unwrap();
    blocker
}

/// Machines have no rows in common with other writes.
fn locks_rows(rpc: &Rpc) -> bool {
    !matches!(
        rpc,
        Rpc::FsmServicePutMachine | Rpc::FsmServiceDeleteMachine
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_fails_only_the_calls_that_write_it() {
    let app = App::start().await;
    let rpcs = write_rpcs().into_iter().filter(locks_rows);
    let checks = stream::iter(rpcs).map(|rpc| check_locked_row(&app, rpc));
    // Each waits for seconds.
    checks.buffer_unordered(3).collect::<()>().await;
    let retries = app.figures().sum("bridgebook_database_retries_total", &[]);
    assert_eq!(retries, 0.0);
}

async fn check_locked_row(app: &App, rpc: Rpc) {
    let writes = Writes::new(app, ROWS).await;
    let _blocker = lock(app, &writes).await;
    let outcomes = writes.write(app, rpc, 0..ROWS).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let contended = Err((Code::Aborted, "CONTENDED".to_owned()));
        let expected = if number == LOCKED { contended } else { Ok(()) };
        assert_eq!(outcome, expected, "{rpc:?} {number}");
    }
}

#[tokio::test]
async fn a_call_about_a_locked_row_says_when_to_retry() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let mut blocker = app.schema.connect().await;
    let lock = format!(
        "BEGIN; SELECT FROM workflow_executions WHERE id = '{}' FOR UPDATE",
        workflow.id
    );
    blocker.batch_execute(&lock).await.unwrap();
    let request = tenant.to(&workflow, v1::WorkflowState::Processing);
    let mut client = tenant.client.clone();
    let refused = client.transition_workflow(request.clone()).await;
    let refused = refused.unwrap_err();
    let retry = refused.get_details_retry_info().unwrap();
    let delay = retry.retry_delay.unwrap();
    let expected = Duration::from_secs(1)..=Duration::from_millis(1250);
    assert!(expected.contains(&delay), "{delay:?}");
    assert!(refused.message().contains("holds a lock"), "{refused:?}");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert!(tenant.transition(request).await.applied);
}

/// Moves workflows, and returns which moves failed.
async fn move_all(tenant: &Tenant, workflows: &[v1::Workflow]) -> Vec<bool> {
    let moves = workflows.iter().map(|workflow| {
        let request = tenant.to(workflow, v1::WorkflowState::Processing);
        let mut client = tenant.client.clone();
        async move { client.transition_workflow(request).await.is_err() }
    });
    join_all(moves).await
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_rows_of_some_tenants_do_not_hold_up_another() {
    let app = App::start().await;
    let other = app.tenant();
    let free = join_all((0..16).map(|_| other.start())).await;
    let mut blocked = Vec::new();
    let mut blocker = app.schema.connect().await;
    blocker.batch_execute("BEGIN").await.unwrap();
    for _ in 0..4 {
        let tenant = app.tenant();
        let locked = join_all((0..16).map(|_| tenant.start())).await;
        let lock = format!(
            "SELECT FROM workflow_executions WHERE namespace = '{}' FOR UPDATE",
            tenant.namespace
        );
        blocker.batch_execute(&lock).await.unwrap();
        blocked.push((tenant, locked));
    }
    let move_blocked = async |blocked: &[(Tenant, Vec<v1::Workflow>)]| {
        let moves = blocked
            .iter()
            .map(|(tenant, locked)| move_all(tenant, locked));
        join_all(moves).await.concat()
    };
    // From the first timeouts on, the workers run the moves of these tenants apart.
    assert_eq!(move_blocked(&blocked).await, [true; 4 * 16]);
    let stuck = tokio::spawn(async move { move_blocked(&blocked).await });
    for workflow in &free {
        let request = other.to(workflow, v1::WorkflowState::Processing);
        assert!(other.transition(request).await.applied);
    }
    // Their moves wait for one lock after the other.
    assert!(!stuck.is_finished());
    assert_eq!(stuck.await.unwrap(), [true; 4 * 16]);
}

#[tokio::test]
async fn a_locked_table_fails_every_call_long_before_its_deadline() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_steps";
    blocker.batch_execute(lock).await.unwrap();
    let mut request = Request::new(v1::BatchRecordStepsRequest {
        namespace: tenant.namespace.clone(),
        steps: (0..512).map(|n| tenant.new_step(&workflow, n)).collect(),
    });
    request.set_timeout(Duration::from_secs(25));
    let answer = tenant.client.clone().batch_record_steps(request).await;
    // All items have the same error, so it is the error of the call.
    let contended = Failure::new(Code::Aborted, "CONTENDED");
    assert_eq!(failure(answer), contended);
}

/// The number of tenants that wait for a locked table at the same time.
const TENANTS: usize = 64;

/// After a few tenants that time out the others are told the same, without a statement each.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_fails_the_calls_of_many_tenants_after_a_few_timeouts() {
    let app = App::start().await;
    let tenants: Vec<_> = (0..TENANTS).map(|_| app.tenant()).collect();
    let workflows = join_all(tenants.iter().map(Tenant::start)).await;
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let move_all = async || {
        let moves = tenants.iter().zip(&workflows).map(|(tenant, workflow)| {
            let mut request = Request::new(tenant.to(workflow, v1::WorkflowState::Processing));
            request.set_timeout(Duration::from_secs(25));
            let mut client = tenant.client.clone();
            async move { client.transition_workflow(request).await }
        });
        join_all(moves).await
    };
    let contended = Failure::new(Code::Aborted, "CONTENDED");
    for outcome in move_all().await {
        assert_eq!(failure(outcome), contended);
    }
    let batches = [("pool", "batches")];
    let timeouts = app
        .figures()
        .sum("bridgebook_database_statement_failures_total", &batches);
    assert!(timeouts < TENANTS as f64, "{timeouts} statements");
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for outcome in move_all().await {
        assert!(outcome.unwrap().into_inner().applied);
    }
}

/// Each put takes statements of its own. None takes long, but together they take longer than
/// two tries of a batch may: one of the two workers has half of them at least.
#[tokio::test]
async fn items_that_together_take_too_long_all_succeed() {
    let app = App::start_with(|config| config.call_timeout = Duration::from_secs(120)).await;
    let tenant = app.tenant();
    let mut admin = app.schema.connect().await;
    let slow = "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(1.7);
            RETURN NEW;
        END $$;
        CREATE TRIGGER is_slow BEFORE INSERT ON fsm_machines
            FOR EACH ROW EXECUTE FUNCTION be_slow()";
    admin.batch_execute(slow).await.unwrap();
    let puts = (0..24).map(|number| {
        let request = v1::PutMachineRequest {
            entity_type: format!("type-{number}"),
            ..order_machine(&tenant)
        };
        put(&tenant, request)
    });
    for answer in futures_util::future::join_all(puts).await {
        let machine = answer.unwrap();
        assert!(machine.created);
        assert_eq!(machine.machine.unwrap().version, 1);
    }
}

/// A trigger of the operator takes long for one of the steps.
#[tokio::test]
async fn a_slow_item_fails_only_its_own_caller() {
    let (app, tenant) = App::with_tenant().await;
    let mut admin = app.schema.connect().await;
    let slow = "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(3600);
            RETURN NEW;
        END $$;
        CREATE TRIGGER is_slow BEFORE INSERT ON workflow_steps
            FOR EACH ROW WHEN (NEW.step_name = 'slow') EXECUTE FUNCTION be_slow()";
    admin.batch_execute(slow).await.unwrap();
    let workflow = tenant.start().await;
    let step = |order| {
        let mut step = tenant.new_step(&workflow, order);
        if order == 3 {
            step.step_name = "slow".into();
        }
        let tenant = tenant.clone();
        async move {
            let request = v1::RecordStepRequest {
                namespace: tenant.namespace.clone(),
                step: Some(step),
            };
            let mut client = tenant.client.clone();
            client.record_step(request).await.map(drop)
        }
    };
    let outcomes = join_all((0..8).map(step)).await;
    for (order, outcome) in outcomes.into_iter().enumerate() {
        if order == 3 {
            let slow = Failure::new(Code::DeadlineExceeded, "STATEMENT_TIMEOUT");
            assert_eq!(failure(outcome), slow);
        } else {
            outcome.unwrap();
        }
    }
}
