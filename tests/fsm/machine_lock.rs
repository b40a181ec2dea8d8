//! What PutMachine waits for, and what waits for it.

use bridgebook::proto::v1::PutMachineRequest;
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use tonic::Code;

use super::{machine, new_order, order_machine, put, record, transition};
use crate::{
    bridge_state,
    support::{App, Failure, Tenant, count, eventually, failure, new_id},
};

fn bridge_machine(tenant: &Tenant) -> PutMachineRequest {
    PutMachineRequest {
        entity_type: "bridge".into(),
        ..machine(tenant, "ACTIVE", &[], &[("ACTIVE", "stay", "ACTIVE")])
    }
}

/// Another tenant's transaction has written an entity and a bridge, and does not end.
#[tokio::test]
async fn a_machine_is_put_while_other_types_and_tenants_write() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.tenant();
    let moving = format!(
        "BEGIN;
         INSERT INTO fsm_entities (namespace, entity_type, entity_id, current_state, revision,
             state_since, created_at)
         VALUES ('{0}', 'order', '{1}', 'NEW', 1, now(), now());
         INSERT INTO bridge_states (bridge_id, namespace, current_fsm_state, revision)
         VALUES ('{1}', '{0}', 'ACTIVE', 1)",
        other.namespace,
        new_id()
    );
    let mut writer = app.schema.connect().await;
    writer.batch_execute(&moving).await.unwrap();
    assert!(put(&tenant, order_machine(&tenant)).await.unwrap().created);
    assert!(put(&tenant, bridge_machine(&tenant)).await.unwrap().created);
    writer.batch_execute("ROLLBACK").await.unwrap();
}

/// A put waits in the middle of its transaction.
#[tokio::test]
async fn other_types_and_tenants_write_while_a_machine_is_put() {
    let (app, tenant) = App::with_tenant().await;
    let other = app.tenant();
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let order = new_order(&tenant).await;
    let mut blocker = app.schema.connect().await;
    let waiting = "SELECT count(*) FROM pg_locks
        WHERE NOT granted AND relation = 'fsm_machines'::regclass";
    let small = machine(&tenant, "NEW", &["PAID"], &[("NEW", "pay", "PAID")]);
    for request in [small, bridge_machine(&tenant)] {
        let lock = "BEGIN; LOCK TABLE fsm_machines IN SHARE MODE";
        blocker.batch_execute(lock).await.unwrap();
        let put = tokio::spawn({
            let tenant = tenant.clone();
            async move { put(&tenant, request).await }
        });
        eventually("the put waits", || async {
            (app.schema.count(waiting).await > 0).then_some(())
        })
        .await;
        new_order(&other).await;
        bridge_state::new_bridge(&other).await;
        let parcel = bridgebook::proto::v1::NewTransition {
            entity_type: "parcel".into(),
            ..transition(&new_id(), "create", "SOMEWHERE")
        };
        record(&tenant, parcel).await.unwrap();
        blocker.batch_execute("COMMIT").await.unwrap();
        assert!(put.await.unwrap().unwrap().created);
    }
    // The moves of the type follow the new machine.
    record(&tenant, transition(&order, "pay", ""))
        .await
        .unwrap();
    assert!(
        record(&tenant, transition(&order, "ship", ""))
            .await
            .is_err()
    );
}

/// Without a machine, entities may move to any state. The first machine is put while they do,
/// on another replica, and so is a machine after a deletion.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_machine_of_a_type_strands_no_entity() {
    let (app, tenant) = App::with_tenant().await;
    let replica = app.replica().await;
    let elsewhere = Tenant {
        channel: replica.channel.clone(),
        ..tenant.clone()
    };
    let mut stored = 0;
    for round in 0..20 {
        let entity_type = format!("type-{round}");
        let moves = (0..8).map(|_| {
            let transition = bridgebook::proto::v1::NewTransition {
                entity_type: entity_type.clone(),
                ..transition(&new_id(), "create", "LEGACY")
            };
            record(&tenant, transition)
        });
        let request = PutMachineRequest {
            entity_type: entity_type.clone(),
            ..machine(&tenant, "NEW", &[], &[("NEW", "stay", "NEW")])
        };
        let (put, moved) = tokio::join!(put(&elsewhere, request), join_all(moves));
        let moved = moved.iter().filter(|it| it.is_ok()).count() as i64;
        let legacy =
            format!("SELECT count(*) FROM fsm_entities WHERE entity_type = '{entity_type}'");
        assert_eq!(app.schema.count(&legacy).await, moved);
        match put {
            Ok(_) => assert_eq!(moved, 0, "stranded"),
            Err(_) => assert!(moved > 0),
        }
        stored += moved;
    }
    assert!(stored > 0, "no entity was ever first");
}

/// Counts the sessions that wait for a session, or for one that waits for it.
fn waiting_for(pid: i64) -> String {
    format!(
        "WITH RECURSIVE waiting AS (
            SELECT pid FROM pg_stat_activity WHERE {pid} = ANY (pg_blocking_pids(pid))
             UNION
            SELECT a.pid FROM waiting w JOIN pg_stat_activity a
                ON w.pid = ANY (pg_blocking_pids(a.pid)))
         SELECT count(*) FROM waiting"
    )
}

/// Makes the moves of an order wait, before they commit, for an advisory lock of the test's.
fn hold_moves(order: &str, key: i64) -> String {
    format!(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$ BEGIN
             PERFORM pg_advisory_xact_lock_shared({key});
             RETURN NEW;
         END $$;
         CREATE TRIGGER holds BEFORE INSERT ON fsm_transitions
             FOR EACH ROW WHEN (NEW.entity_id = '{order}') EXECUTE FUNCTION hold()"
    )
}

/// A put waits for a move in progress. A move that comes later, on another replica, does not
/// overtake it.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_comes_after_a_put_waits_for_its_turn() {
    let (app, tenant) = App::with_tenant().await;
    let replica = app.replica().await;
    let elsewhere = Tenant {
        channel: replica.channel.clone(),
        ..tenant.clone()
    };
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let [held, later] = [new_order(&tenant).await, new_order(&tenant).await];
    let mut blocker = app.schema.connect().await;
    let key = 4_172_663_009_120_551_337;
    let hold = format!("{}; SELECT pg_advisory_lock({key})", hold_moves(&held, key));
    blocker.batch_execute(&hold).await.unwrap();
    let waiting = waiting_for(count(&mut blocker, "SELECT pg_backend_pid()").await);
    let waits = async |sessions: i64| {
        eventually("sessions wait", || async {
            (app.schema.count(&waiting).await >= sessions).then_some(())
        })
        .await;
    };
    let moved = |tenant: &Tenant, order: &str| {
        let (tenant, pay) = (tenant.clone(), transition(order, "pay", ""));
        tokio::spawn(async move { record(&tenant, pay).await })
    };
    let first = moved(&tenant, &held);
    waits(1).await;
    let without_pay = machine(&tenant, "NEW", &["PAID"], &[("NEW", "settle", "PAID")]);
    let put = tokio::spawn({
        let tenant = tenant.clone();
        async move { put(&tenant, without_pay).await }
    });
    waits(2).await;
    let second = moved(&elsewhere, &later);
    waits(3).await;
    blocker
        .batch_execute("SELECT pg_advisory_unlock_all()")
        .await
        .unwrap();
    assert!(first.await.unwrap().unwrap().applied);
    assert!(put.await.unwrap().unwrap().created);
    let refused = Failure::new(Code::FailedPrecondition, "MOVE_NOT_ALLOWED");
    assert_eq!(failure(second.await.unwrap()), refused);
}

/// Moves of the type never pause, on two replicas.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_put_while_entities_of_its_type_move_without_pause() {
    let (app, tenant) = App::with_tenant().await;
    let replica = app.replica().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stop = std::sync::Arc::new(stop);
    let writers: Vec<_> = (0..16)
        .map(|number| {
            let channel = [&app, &replica][number % 2].channel.clone();
            let tenant = Tenant {
                channel,
                ..tenant.clone()
            };
            let stop = stop.clone();
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    new_order(&tenant).await;
                }
            })
        })
        .collect();
    for number in 0..20 {
        let stay = format!("stay{number}");
        let request = machine(&tenant, "NEW", &[], &[("NEW", &stay, "NEW")]);
        assert!(put(&tenant, request).await.unwrap().created);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}
