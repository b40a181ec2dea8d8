use bridgebook::proto::v1::{GetTransitionStatsRequest, TransitionStats};
use diesel_async::SimpleAsyncConnection;
use tonic::Status;

use super::{client, new_order, record, transition};
use crate::support::{App, Failure, Tenant, failure};

fn of_orders(tenant: &Tenant) -> GetTransitionStatsRequest {
    GetTransitionStatsRequest {
        namespace: tenant.namespace.clone(),
        entity_type: "order".into(),
        ..GetTransitionStatsRequest::default()
    }
}

async fn stats(
    tenant: &Tenant,
    request: GetTransitionStatsRequest,
) -> Result<Vec<TransitionStats>, Status> {
    let answer = client(tenant).get_transition_stats(request).await;
    answer.map(|answer| answer.into_inner().stats)
}

fn hours(hours: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: hours * 3600,
        nanos: 0,
    })
}

#[tokio::test]
async fn moves_are_counted_with_the_mean_time_before_them() {
    let (app, tenant) = App::with_tenant().await;
    let orders = [
        new_order(&tenant).await,
        new_order(&tenant).await,
        new_order(&tenant).await,
    ];
    for order in &orders[..2] {
        record(&tenant, transition(order, "pay", "PAID"))
            .await
            .unwrap();
    }
    let stranger = app.tenant();
    new_order(&stranger).await;
    // The first was NEW for 2 s, the second for 4 s, which began before the last hour.
    let sql = format!(
        "UPDATE fsm_transitions SET created_at = now() - INTERVAL '3604 s' WHERE to_state = 'NEW' AND entity_id = '{second}';
         UPDATE fsm_transitions SET created_at = now() - INTERVAL '3600 s' + INTERVAL '2 s' WHERE to_state = 'NEW' AND entity_id = '{first}';
         UPDATE fsm_transitions t SET created_at = f.created_at + CASE entity_id WHEN '{first}' THEN INTERVAL '2 s' ELSE INTERVAL '2004 s' END
           FROM (SELECT entity_id AS e, created_at FROM fsm_transitions WHERE to_state = 'NEW') f
          WHERE to_state = 'PAID' AND f.e = t.entity_id;",
        first = orders[0],
        second = orders[1],
    );
    app.schema
        .connect()
        .await
        .batch_execute(&sql)
        .await
        .unwrap();
    let rows = stats(
        &tenant,
        GetTransitionStatsRequest {
            created_within: hours(1),
            ..of_orders(&tenant)
        },
    )
    .await
    .unwrap();
    let row = |from: Option<&str>, to: &str, count, mean| TransitionStats {
        from_state: from.map(Into::into),
        to_state: to.into(),
        transition_count: count,
        mean_time_in_state_ms: mean,
    };
    let mean = Some((2_000.0 + 2_004_000.0) / 2.0);
    assert_eq!(
        rows,
        [row(None, "NEW", 2, None), row(Some("NEW"), "PAID", 2, mean)]
    );
    // The default window is one day.
    let rows = stats(&tenant, of_orders(&tenant)).await.unwrap();
    assert_eq!(
        rows,
        [row(None, "NEW", 3, None), row(Some("NEW"), "PAID", 2, mean)]
    );
    let of_one = GetTransitionStatsRequest {
        entity_id: orders[0].clone(),
        ..of_orders(&tenant)
    };
    let rows = stats(&tenant, of_one).await.unwrap();
    assert_eq!(
        rows,
        [
            row(None, "NEW", 1, None),
            row(Some("NEW"), "PAID", 1, Some(2_000.0))
        ]
    );
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let (_app, tenant) = App::with_tenant().await;
    let bad = [
        (
            "entity_type",
            GetTransitionStatsRequest {
                entity_type: "a\nb".into(),
                ..of_orders(&tenant)
            },
        ),
        (
            "entity_id",
            GetTransitionStatsRequest {
                entity_id: "x".into(),
                ..of_orders(&tenant)
            },
        ),
        (
            "created_within",
            GetTransitionStatsRequest {
                created_within: hours(0),
                ..of_orders(&tenant)
            },
        ),
        (
            "created_within",
            GetTransitionStatsRequest {
                created_within: hours(i64::MAX / 3600),
                ..of_orders(&tenant)
            },
        ),
    ];
    for (field, request) in bad {
        assert_eq!(
            failure(stats(&tenant, request).await),
            Failure::invalid(&[field])
        );
    }
    let all = GetTransitionStatsRequest {
        created_within: hours(87_660_000),
        ..of_orders(&tenant)
    };
    assert!(stats(&tenant, all).await.unwrap().is_empty());
}
