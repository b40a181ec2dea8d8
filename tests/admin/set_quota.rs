use bridgebook::{
    domain::role::Role,
    proto::v1::{Quota, SetQuotaRequest, quota, set_quota_request::Subject},
};
use tonic::{Code, Status};

use super::client;
use crate::support::{App, Failure, failure, new_id};

/// Returns a request for the quota of a namespace, in which nothing is set.
pub fn of_namespace(namespace: &str) -> SetQuotaRequest {
    SetQuotaRequest {
        subject: Some(Subject::Namespace(namespace.into())),
        ..SetQuotaRequest::default()
    }
}

/// Returns a request for the quota of a token, in which nothing is set.
pub fn of_token(id: &str) -> SetQuotaRequest {
    SetQuotaRequest {
        subject: Some(Subject::TokenId(id.into())),
        ..SetQuotaRequest::default()
    }
}

pub async fn set(app: &App, request: SetQuotaRequest) -> Result<Quota, Status> {
    let answer = client(app).set_quota(request).await?;
    Ok(answer.into_inner().quota.unwrap())
}

#[tokio::test]
async fn the_last_quota_applies_as_a_whole() {
    let app = App::start().await;
    let first = SetQuotaRequest {
        calls_per_second: Some(100),
        items_per_second: Some(0),
        calls_in_progress: Some(i32::MAX),
        weight: Some(100),
        ..of_namespace("team-a")
    };
    let first = set(&app, first).await.unwrap();
    let subject = quota::Subject::Namespace("team-a".into());
    let expected = Quota {
        subject: Some(subject),
        calls_per_second: Some(100),
        items_per_second: Some(0),
        calls_in_progress: Some(i32::MAX),
        weight: Some(100),
        created_at: first.created_at,
        updated_at: first.created_at,
    };
    assert_eq!(first, expected);
    for _ in 0..2 {
        let second = SetQuotaRequest {
            items_per_second: Some(7),
            ..of_namespace("team-a")
        };
        let second = set(&app, second).await.unwrap();
        let expected = Quota {
            calls_per_second: None,
            items_per_second: Some(7),
            calls_in_progress: None,
            weight: None,
            updated_at: second.updated_at,
            ..expected.clone()
        };
        assert_eq!(second, expected);
        assert_ne!(second.updated_at, second.created_at);
    }
    assert_eq!(app.schema.count("SELECT count(*) FROM quotas").await, 1);
}

#[tokio::test]
async fn a_token_has_a_quota_beside_that_of_a_namespace_of_the_same_name() {
    let app = App::start().await;
    let token = app.issue(Role::Reader, &["team-a"]).await;
    let stored = set(&app, of_token(&token.id)).await.unwrap();
    assert_eq!(
        stored.subject,
        Some(quota::Subject::TokenId(token.id.clone()))
    );
    set(&app, of_namespace(&token.id)).await.unwrap();
    assert_eq!(app.schema.count("SELECT count(*) FROM quotas").await, 2);
}

#[tokio::test]
async fn the_token_of_a_quota_must_exist() {
    let app = App::start().await;
    let refused = failure(set(&app, of_token(&new_id())).await);
    assert_eq!(refused, Failure::new(Code::NotFound, "TOKEN_NOT_FOUND"));
}

#[tokio::test]
async fn every_invalid_field_is_named() {
    let app = App::start().await;
    let with = |change: fn(&mut SetQuotaRequest)| {
        let mut request = of_namespace("team-a");
        change(&mut request);
        request
    };
    for (request, field) in [
        (SetQuotaRequest::default(), "subject"),
        (of_namespace(""), "namespace"),
        (of_namespace("team\0a"), "namespace"),
        (of_namespace("team-*"), "namespace"),
        (of_namespace(&"a".repeat(256)), "namespace"),
        (of_namespace("bridgebook.registry"), "namespace"),
        (of_token(""), "token_id"),
        (of_token("team-a"), "token_id"),
        (
            with(|it| it.calls_per_second = Some(-1)),
            "calls_per_second",
        ),
        (
            with(|it| it.items_per_second = Some(i32::MIN)),
            "items_per_second",
        ),
        (
            with(|it| it.calls_in_progress = Some(-1)),
            "calls_in_progress",
        ),
        (with(|it| it.weight = Some(0)), "weight"),
        (with(|it| it.weight = Some(101)), "weight"),
    ] {
        let refused = failure(set(&app, request).await);
        assert_eq!(refused, Failure::invalid(&[field]));
    }
    let weighted = SetQuotaRequest {
        weight: Some(1),
        ..of_token(&new_id())
    };
    let refused = failure(set(&app, weighted).await);
    assert_eq!(refused, Failure::invalid(&["weight"]));
}
