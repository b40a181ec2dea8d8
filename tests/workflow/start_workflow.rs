use bridgebook::proto::v1::{StartWorkflowRequest, WorkflowState};
use futures_util::future::join_all;
use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::Status;

use crate::support::{App, Failure, Tenant, document, failure, new_id, value};

async fn start(
    tenant: &Tenant,
    request: StartWorkflowRequest,
) -> Result<bridgebook::proto::v1::StartWorkflowResponse, Status> {
    let answer = tenant.client.clone().start_workflow(request).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn stores_and_returns_the_row() {
    let (_app, tenant) = App::with_tenant().await;
    let metadata = json!({"team": "red", "size": 1.5, "tags": ["a", null, true], "n": 3});
    let request = StartWorkflowRequest {
        id: new_id(),
        current_state: WorkflowState::Processing.into(),
        started_at: Some(Timestamp {
            seconds: 1_700_000_000,
            nanos: 123_456_789,
        }),
        metadata: document(metadata.clone()),
        ..tenant.new_workflow()
    };
    let answer = start(&tenant, request.clone()).await.unwrap();
    let workflow = answer.workflow.unwrap();
    assert!(answer.created);
    assert_eq!(workflow.id, request.id);
    assert_eq!(workflow.correlation_id, request.correlation_id);
    assert_eq!(workflow.namespace, tenant.namespace);
    assert_eq!(workflow.workflow_type, "test");
    assert_eq!(workflow.current_state(), WorkflowState::Processing);
    let microseconds = Timestamp {
        seconds: 1_700_000_000,
        nanos: 123_456_000,
    };
    assert_eq!(workflow.started_at, Some(microseconds));
    assert_eq!(workflow.completed_at, None);
    assert_eq!(workflow.execution_time_ms, None);
    assert_eq!(value(workflow.metadata.clone()), metadata);
    assert_eq!(tenant.get(&workflow).await.workflow.unwrap(), workflow);
}

#[tokio::test]
async fn journals_the_first_transition() {
    let (app, tenant) = App::with_tenant().await;
    let workflow = tenant.start().await;
    let rows = format!(
        "SELECT count(*) FROM fsm_transitions WHERE entity_id = '{}' AND entity_type = 'workflow'
            AND from_state IS NULL AND to_state = 'PENDING' AND transition_event = 'start'
            AND namespace = '{}'",
        workflow.id, tenant.namespace
    );
    assert_eq!(app.schema.count(&rows).await, 1);
}

#[tokio::test]
async fn a_retry_returns_the_stored_workflow_even_after_a_move() {
    let (app, tenant) = App::with_tenant().await;
    let request = tenant.new_workflow();
    let first = start(&tenant, request.clone())
        .await
        .unwrap()
        .workflow
        .unwrap();
    tenant
        .transition(tenant.to(&first, WorkflowState::Processing))
        .await;
    let again = start(&tenant, request).await.unwrap();
    assert!(!again.created);
    let workflow = again.workflow.unwrap();
    assert_eq!(workflow.id, first.id);
    assert_eq!(workflow.current_state(), WorkflowState::Processing);
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM workflow_executions")
            .await,
        1
    );
}

#[tokio::test]
async fn the_same_correlation_id_with_other_content_is_refused() {
    let (_app, tenant) = App::with_tenant().await;
    let request = StartWorkflowRequest {
        id: new_id(),
        ..tenant.new_workflow()
    };
    start(&tenant, request.clone()).await.unwrap();
    let others = [
        StartWorkflowRequest {
            workflow_type: "other".into(),
            ..request.clone()
        },
        StartWorkflowRequest {
            current_state: 2,
            ..request.clone()
        },
        StartWorkflowRequest {
            metadata: document(json!({"a": 1})),
            ..request.clone()
        },
        StartWorkflowRequest {
            started_at: Some(Timestamp::default()),
            ..request.clone()
        },
        StartWorkflowRequest {
            id: new_id(),
            ..request.clone()
        },
        StartWorkflowRequest {
            correlation_id: new_id(),
            ..request.clone()
        },
    ];
    for other in others {
        assert_eq!(failure(start(&tenant, other).await), Failure::id_conflict());
    }
}

#[tokio::test]
async fn a_conflict_reads_the_same_for_own_and_foreign_ids() {
    let (app, tenant) = App::with_tenant().await;
    let request = StartWorkflowRequest {
        id: new_id(),
        ..tenant.new_workflow()
    };
    start(&tenant, request.clone()).await.unwrap();
    let own = StartWorkflowRequest {
        workflow_type: "other".into(),
        ..request.clone()
    };
    let own = start(&tenant, own).await.unwrap_err();
    let other = StartWorkflowRequest {
        namespace: app.tenant().namespace,
        ..request
    };
    let other = start(&tenant, other).await.unwrap_err();
    assert_eq!(own.code(), other.code());
    assert_eq!(own.message(), other.message());
    assert_eq!(own.details(), other.details());
}

#[tokio::test]
async fn a_retry_may_spell_the_same_content_differently() {
    let (_app, tenant) = App::with_tenant().await;
    let request = StartWorkflowRequest {
        started_at: Some(Timestamp {
            seconds: 5,
            nanos: 1_001,
        }),
        ..tenant.new_workflow()
    };
    start(&tenant, request.clone()).await.unwrap();
    let again = StartWorkflowRequest {
        correlation_id: request.correlation_id.to_uppercase(),
        current_state: WorkflowState::Pending.into(),
        started_at: Some(Timestamp {
            seconds: 5,
            nanos: 1_999,
        }),
        metadata: document(json!({})),
        ..request
    };
    assert!(!start(&tenant, again).await.unwrap().created);
}

#[tokio::test]
async fn every_double_is_returned_unchanged() {
    let (_app, tenant) = App::with_tenant().await;
    // A multiplicative generator covers the bit patterns and repeats in every run.
    let bits = std::iter::successors(Some(0x9e37_79b9_7f4a_7c15_u64), |bits| {
        Some(bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
    });
    let doubles = bits
        .map(f64::from_bits)
        .filter(|double| double.is_finite())
        .take(2_000);
    let doubles = doubles.chain([
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        0.424_519_189_142_513_96,
    ]);
    let doubles: Vec<f64> = doubles.collect();
    let request = StartWorkflowRequest {
        metadata: document(json!({ "doubles": doubles })),
        ..tenant.new_workflow()
    };
    let stored = start(&tenant, request).await.unwrap().workflow.unwrap();
    let read = value(tenant.get(&stored).await.workflow.unwrap().metadata);
    let read = read["doubles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|double| double.as_f64().unwrap());
    for (read, sent) in read.zip(doubles) {
        assert_eq!(read, sent);
    }
}

#[tokio::test]
async fn concurrent_starts_create_one_row_and_all_get_it() {
    let (app, tenant) = App::with_tenant().await;
    let request = tenant.new_workflow();
    let answers = join_all((0..50).map(|_| start(&tenant, request.clone()))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| answer.created).count(), 1);
    let first = answers[0].workflow.clone().unwrap();
    for answer in &answers {
        assert_eq!(answer.workflow.as_ref(), Some(&first));
    }
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM fsm_transitions")
            .await,
        1
    );
}

#[tokio::test]
async fn a_conflict_does_not_fail_the_calls_that_share_its_batch() {
    let (_app, tenant) = App::with_tenant().await;
    let taken = tenant.new_workflow();
    start(&tenant, taken.clone()).await.unwrap();
    let bad = StartWorkflowRequest {
        workflow_type: "other".into(),
        ..taken
    };
    let calls = (0..200).map(|number| match number % 2 {
        0 => start(&tenant, bad.clone()),
        _ => start(&tenant, tenant.new_workflow()),
    });
    for (number, answer) in join_all(calls).await.into_iter().enumerate() {
        match number % 2 {
            0 => assert_eq!(failure(answer), Failure::id_conflict()),
            _ => assert!(answer.unwrap().created),
        }
    }
}

#[tokio::test]
async fn every_violation_is_named_at_once() {
    let (_app, tenant) = App::with_tenant().await;
    let request = StartWorkflowRequest {
        namespace: "no spaces".into(),
        correlation_id: "17".into(),
        workflow_type: String::new(),
        id: "x".into(),
        current_state: 3,
        started_at: Some(Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        metadata: document(json!({"a": "\0"})),
    };
    let fields = [
        "namespace",
        "id",
        "correlation_id",
        "current_state",
        "workflow_type",
        "started_at",
        "metadata",
    ];
    assert_eq!(
        failure(start(&tenant, request).await),
        Failure::invalid(&fields)
    );
}

/// Returns requests with one invalid field, and its name.
fn bad_requests(good: &StartWorkflowRequest) -> Vec<(&'static str, StartWorkflowRequest)> {
    let with_metadata = |metadata: Value| StartWorkflowRequest {
        metadata: document(metadata),
        ..good.clone()
    };
    let at = |seconds, nanos| StartWorkflowRequest {
        started_at: Some(Timestamp { seconds, nanos }),
        ..good.clone()
    };
    let named = |workflow_type: &str| StartWorkflowRequest {
        workflow_type: workflow_type.into(),
        ..good.clone()
    };
    let within = |namespace: &str| StartWorkflowRequest {
        namespace: namespace.into(),
        ..good.clone()
    };
    let correlated = |correlation_id: &str| StartWorkflowRequest {
        correlation_id: correlation_id.into(),
        ..good.clone()
    };
    let deep = (0..64).fold(json!(1), |inner, _| json!([inner]));
    vec![
        ("namespace", within("")),
        ("namespace", within("a\0b")),
        ("namespace", within("a*")),
        ("namespace", within(&"n".repeat(256))),
        ("workflow_type", named("a\0b")),
        ("workflow_type", named("lives ")),
        ("workflow_type", named(&"t".repeat(101))),
        ("correlation_id", correlated("")),
        ("correlation_id", correlated("not-a-uuid")),
        (
            "correlation_id",
            correlated("00000000-0000-0000-0000-000000000000"),
        ),
        (
            "current_state",
            StartWorkflowRequest {
                current_state: 99,
                ..good.clone()
            },
        ),
        (
            "current_state",
            StartWorkflowRequest {
                current_state: -1,
                ..good.clone()
            },
        ),
        (
            "current_state",
            StartWorkflowRequest {
                current_state: 4,
                ..good.clone()
            },
        ),
        ("started_at", at(253_402_300_800, 0)),
        ("started_at", at(-62_135_596_801, 0)),
        ("started_at", at(i64::MIN, 0)),
        ("started_at", at(0, -1)),
        ("started_at", at(0, 1_000_000_000)),
        ("metadata", with_metadata(json!({"a\0": 1}))),
        ("metadata", with_metadata(json!({"a": {"b": ["x\0y"]}}))),
        ("metadata", with_metadata(json!({ "a": deep }))),
        (
            "metadata",
            with_metadata(json!({ "a": "x".repeat(1024 * 1024) })),
        ),
    ]
}

#[tokio::test]
async fn invalid_fields_are_named_and_nothing_is_stored() {
    let (app, tenant) = App::with_tenant().await;
    for (number, (field, request)) in bad_requests(&tenant.new_workflow()).into_iter().enumerate() {
        let failure = failure(start(&tenant, request).await);
        assert_eq!(failure, Failure::invalid(&[field]), "request {number}");
    }
    assert_eq!(
        app.schema
            .count("SELECT count(*) FROM workflow_executions")
            .await,
        0
    );
}

#[tokio::test]
async fn extremes_within_the_limits_are_stored() {
    let (_app, tenant) = App::with_tenant().await;
    let deep = (0..63).fold(json!(1), |inner, _| json!([inner]));
    let documents = [
        json!({ "deep": deep }),
        json!({ "long": "x".repeat(1024 * 1024 - 20) }),
        json!({ "": "", "Grüße": "🦀", "big": 1e308, "small": 5e-324, "n": -9_007_199_254_740_991_i64 }),
    ];
    for metadata in documents {
        let request = StartWorkflowRequest {
            namespace: format!("N{}", "x".repeat(254)),
            workflow_type: "t".repeat(100),
            started_at: Some(Timestamp {
                seconds: -62_135_596_800,
                nanos: 0,
            }),
            metadata: document(metadata.clone()),
            ..tenant.new_workflow()
        };
        let stored = start(&tenant, request).await.unwrap().workflow.unwrap();
        let tenant = Tenant {
            namespace: stored.namespace.clone(),
            ..tenant.clone()
        };
        let read = tenant.get(&stored).await.workflow.unwrap();
        assert_eq!(value(read.metadata), metadata);
    }
}
