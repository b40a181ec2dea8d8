use bridgebook::proto::v1::{
    self, BatchRecordTransitionsRequest, NewTransition, RecordTransitionResponse,
    record_transition_result::Result as Item,
};
use futures_util::future::join_all;
use tonic::Code;

use super::{client, get, machine, order_machine, put, record, states, transition};
use crate::support::{App, Failure, Tenant, eventually, failure, new_id};

async fn batch(
    tenant: &Tenant,
    transitions: Vec<NewTransition>,
) -> Vec<Result<RecordTransitionResponse, i32>> {
    let request = BatchRecordTransitionsRequest {
        namespace: tenant.namespace.clone(),
        transitions,
    };
    let answer = client(tenant)
        .batch_record_transitions(request)
        .await
        .unwrap();
    let results = answer.into_inner().results.into_iter();
    results
        .map(|it| match it.result.unwrap() {
            Item::Response(response) => Ok(response),
            Item::Error(status) => Err(status.code),
        })
        .collect()
}

#[tokio::test]
async fn moves_of_one_entity_are_applied_in_order() {
    let (_app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let orders = [new_id(), new_id()];
    let moves = [("create", "NEW"), ("pay", ""), ("ship", "")];
    let moves = moves
        .iter()
        .flat_map(|(event, to)| orders.iter().map(|order| transition(order, event, to)));
    let answers = batch(&tenant, moves.collect()).await;
    let revisions: Vec<_> = answers
        .into_iter()
        .map(|it| it.unwrap().entity.unwrap().revision)
        .collect();
    assert_eq!(revisions, [1, 1, 2, 2, 3, 3]);
    for order in &orders {
        assert_eq!(states(&tenant, order).await, ["NEW", "PAID", "SHIPPED"]);
        assert_eq!(
            get(&tenant, order).await.unwrap().entity.unwrap().revision,
            3
        );
    }
}

/// Only the operation finds the fault, because it depends on whether there is a machine.
#[tokio::test]
async fn a_missing_to_state_is_named_with_the_index_of_its_item() {
    let (_app, tenant) = App::with_tenant().await;
    let request = BatchRecordTransitionsRequest {
        namespace: tenant.namespace.clone(),
        transitions: ["A", "", "B"]
            .map(|to| transition(&new_id(), "go", to))
            .into(),
    };
    let answer = client(&tenant).batch_record_transitions(request).await;
    let answer = answer.unwrap().into_inner();
    let [first, second, third] = answer.results.try_into().unwrap();
    for moved in [first, third] {
        assert!(matches!(moved.result, Some(Item::Response(_))), "{moved:?}");
    }
    let Some(Item::Error(refused)) = second.result else {
        panic!("{second:?}");
    };
    let expected =
        "transitions[1].to_state is required, because the namespace has no machine for order";
    assert_eq!(refused.message, expected);
}

#[tokio::test]
async fn each_item_succeeds_or_fails_by_itself() {
    let (app, tenant) = App::with_tenant().await;
    put(&tenant, order_machine(&tenant)).await.unwrap();
    let taken = NewTransition {
        transition_id: new_id(),
        ..transition(&new_id(), "create", "NEW")
    };
    record(&app.tenant(), taken.clone()).await.unwrap();
    let order = new_id();
    let answers = batch(
        &tenant,
        vec![
            transition(&order, "create", "NEW"),
            transition(&order, "ship", ""),
            transition("not a UUID", "create", "NEW"),
            taken,
            transition(&order, "pay", ""),
            NewTransition {
                from_state: Some("NEW".into()),
                ..transition(&order, "ship", "")
            },
        ],
    )
    .await;
    let codes: Vec<_> = answers
        .iter()
        .map(|it| it.as_ref().err().copied().map(Code::from))
        .collect();
    assert_eq!(
        codes,
        [
            None,
            Some(Code::FailedPrecondition),
            Some(Code::InvalidArgument),
            Some(Code::AlreadyExists),
            None,
            Some(Code::Aborted)
        ]
    );
    assert_eq!(states(&tenant, &order).await, ["NEW", "PAID"]);
}

#[tokio::test]
async fn a_transition_id_twice_in_one_batch_is_one_move() {
    let (_app, tenant) = App::with_tenant().await;
    let wanted = NewTransition {
        transition_id: new_id(),
        ..transition(&new_id(), "create", "NEW")
    };
    let other = NewTransition {
        entity_id: new_id(),
        ..wanted.clone()
    };
    let answers = batch(&tenant, vec![wanted.clone(), wanted.clone(), other.clone()]).await;
    let applied: Vec<_> = answers
        .iter()
        .map(|it| it.as_ref().map(|it| it.applied))
        .collect();
    // The other entity may go to another worker and come first. Only one of them gets
    // the id.
    let refused = Err(&Code::AlreadyExists.into());
    let of_the_first = states(&tenant, &wanted.entity_id).await;
    let of_the_other = states(&tenant, &other.entity_id).await;
    if applied[2] == Ok(true) {
        assert_eq!(applied[..2], [refused, refused]);
        assert_eq!((of_the_first.len(), of_the_other.len()), (0, 1));
    } else {
        assert_eq!(applied, [Ok(true), Ok(false), refused]);
        assert_eq!((of_the_first.len(), of_the_other.len()), (1, 0));
    }
}

/// The moves share batches of the server, but each uses its tenant's machine.
#[tokio::test]
async fn each_tenant_moves_by_its_own_machine() {
    let (app, tenant) = App::with_tenant().await;
    let stranger = app.tenant();
    put(&tenant, machine(&tenant, "A", &[], &[("A", "go", "B")]))
        .await
        .unwrap();
    put(&stranger, machine(&stranger, "A", &[], &[("A", "go", "C")]))
        .await
        .unwrap();
    let calls = (0..200).map(|number| {
        let (tenant, expected) = match number % 2 {
            0 => (&tenant, "B"),
            _ => (&stranger, "C"),
        };
        async move {
            let order = new_id();
            record(tenant, transition(&order, "begin", "A"))
                .await
                .unwrap();
            let moved = record(tenant, transition(&order, "go", "")).await.unwrap();
            assert_eq!(moved.entity.unwrap().current_state, expected);
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn a_batch_has_at_most_1000_moves() {
    let (app, tenant) = App::with_tenant().await;
    let moves = |count| {
        (0..count)
            .map(|_| transition(&new_id(), "create", "NEW"))
            .collect()
    };
    let answers = batch(&tenant, moves(1000)).await;
    assert_eq!(answers.iter().filter(|it| it.is_ok()).count(), 1000);
    for count in [0, 1001] {
        let request = BatchRecordTransitionsRequest {
            namespace: tenant.namespace.clone(),
            transitions: moves(count),
        };
        let failed = failure(client(&tenant).batch_record_transitions(request).await);
        assert_eq!(failed, Failure::invalid(&["transitions"]));
    }
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM fsm_transitions")
            .await,
        1000
    );
}

/// The number of machines that are together larger than what a batch reads.
const LARGE_MACHINES: usize = 100;

/// Puts machines of different types, which have 60 KiB of names each. Returns their types.
async fn put_large_machines(tenant: &Tenant) -> Vec<String> {
    let moves: Vec<_> = (0..600)
        .map(|number| format!("{number}-{}", "x".repeat(90)))
        .collect();
    let moves: Vec<_> = moves
        .iter()
        .map(|event| ("NEW", event.as_str(), "DONE"))
        .collect();
    let types = (0..LARGE_MACHINES).map(|number| format!("type-{number}"));
    let puts = types.map(async |entity_type| {
        let request = v1::PutMachineRequest {
            entity_type: entity_type.clone(),
            ..machine(tenant, "NEW", &["DONE"], &moves)
        };
        put(tenant, request).await.unwrap();
        entity_type
    });
    join_all(puts).await
}

#[tokio::test]
async fn moves_by_large_machines_are_applied_once_in_batches_of_bounded_memory() {
    let (app, tenant) = App::with_tenant().await;
    let types = put_large_machines(&tenant).await;
    let waits = || {
        let operation = [("operation", "RecordTransitions")];
        app.figures()
            .sum("bridgebook_batch_wait_seconds_count", &operation)
    };
    let entity_id = new_id();
    for (to, revision) in [("NEW", 1), ("DONE", 2)] {
        let event = match to {
            "NEW" => "create".to_owned(),
            _ => format!("7-{}", "x".repeat(90)),
        };
        let moves = types.iter().map(|entity_type| NewTransition {
            entity_type: entity_type.clone(),
            ..transition(&entity_id, &event, to)
        });
        // All are moves of one worker, because they have the same entity id.
        for answer in batch(&tenant, moves.collect()).await {
            let moved = answer.unwrap();
            assert!(moved.applied);
            assert_eq!(moved.entity.unwrap().revision, revision);
        }
    }
    // The items of each call wait in two parts. Those that are not read at first wait again.
    assert!(waits() > 4.0);
    let journal = "SELECT count(*) FROM fsm_transitions WHERE entity_type LIKE 'type-%'";
    assert_eq!(app.schema.count(journal).await, 2 * LARGE_MACHINES as i64);
    eventually("no memory is reserved", || async {
        let reserved = app.figures().sum("bridgebook_read_memory_bytes", &[]);
        (reserved == 0.0).then_some(())
    })
    .await;
}
