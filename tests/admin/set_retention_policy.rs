use bridgebook::proto::v1::{
    DeleteRetentionPolicyRequest, RetainedTable, RetentionPolicy, SetRetentionPolicyRequest,
};
use prost_types::Duration;
use tonic::Status;

use super::client;
use crate::support::{App, Failure, failure};

/// Returns a request that keeps a namespace's journal for some seconds.
pub fn wanted(namespace: &str, seconds: Option<i64>) -> SetRetentionPolicyRequest {
    SetRetentionPolicyRequest {
        namespace: namespace.into(),
        table: RetainedTable::FsmTransitions.into(),
        max_age: seconds.map(|seconds| Duration { seconds, nanos: 0 }),
    }
}

pub async fn set(app: &App, request: SetRetentionPolicyRequest) -> Result<RetentionPolicy, Status> {
    let answer = client(app).set_retention_policy(request).await?;
    Ok(answer.into_inner().policy.unwrap())
}

#[tokio::test]
async fn the_last_policy_applies() {
    let app = App::start().await;
    let first = set(&app, wanted("team-a", Some(7200))).await.unwrap();
    assert_eq!(first.max_age.unwrap().seconds, 7200);
    assert_eq!(first.created_at, first.updated_at);
    let second = set(&app, wanted("team-a", None)).await.unwrap();
    assert_eq!(second.max_age, None);
    assert_eq!(second.created_at, first.created_at);
    let again = set(&app, wanted("team-a", None)).await.unwrap();
    assert_eq!(again.max_age, None);
    let count = "SELECT count(*) FROM retention_policies";
    assert_eq!(app.schema.count(count).await, 1);
}

#[tokio::test]
async fn every_invalid_field_is_named() {
    let app = App::start().await;
    for (request, field) in [
        (wanted("", Some(7200)), "namespace"),
        (wanted("team a", Some(7200)), "namespace"),
        (wanted("bridgebook.x", Some(7200)), "namespace"),
        (wanted("bridgebook.", Some(7200)), "namespace"),
        (wanted("team-a", Some(3599)), "max_age"),
        (wanted("team-a", Some(-1)), "max_age"),
        (wanted("team-a", Some(i64::MAX)), "max_age"),
        (
            SetRetentionPolicyRequest {
                max_age: Some(Duration {
                    seconds: 7200,
                    nanos: 1,
                }),
                ..wanted("team-a", None)
            },
            "max_age",
        ),
        (
            SetRetentionPolicyRequest {
                table: 0,
                ..wanted("team-a", None)
            },
            "table",
        ),
        (
            SetRetentionPolicyRequest {
                table: 99,
                ..wanted("team-a", None)
            },
            "table",
        ),
    ] {
        let refused = failure(set(&app, request).await);
        assert_eq!(refused, Failure::invalid(&[field]));
    }
}

/// An earlier version accepted policies for other tables, so they can still be deleted.
#[tokio::test]
async fn the_registry_has_a_policy_for_its_journal_only() {
    let app = App::start().await;
    for table in [
        RetainedTable::WorkflowExecutions,
        RetainedTable::FsmTransitions,
        RetainedTable::BridgeBatches,
        RetainedTable::MetadataStamps,
    ] {
        let request = SetRetentionPolicyRequest {
            table: table.into(),
            ..wanted("bridgebook.registry", Some(7200))
        };
        match (set(&app, request).await, table) {
            (answer, RetainedTable::FsmTransitions) => drop(answer.unwrap()),
            (answer, _) => assert_eq!(failure(answer), Failure::invalid(&["table"])),
        }
        let request = DeleteRetentionPolicyRequest {
            namespace: "bridgebook.registry".into(),
            table: table.into(),
        };
        client(&app).delete_retention_policy(request).await.unwrap();
    }
}
