//! When a caller over its quota is told to retry.

use std::{num::NonZeroU32, time::Duration};

use bridgebook::{
    config::Auth,
    domain::role::Role,
    proto::v1::{
        BatchRecordStepsRequest, GetServerInfoRequest, ListWorkflowsRequest, SetQuotaRequest,
        set_quota_request,
    },
};

use super::quotas::{
    WITH_JITTER, call, details, of_default, until_admitted, until_refused, with_tenant,
};
use crate::{
    admin::set_quota::{of_namespace, set},
    support::{App, eventually},
};

#[tokio::test]
async fn a_call_that_waits_as_long_as_it_is_told_is_admitted() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.quotas.token.calls_per_second = NonZeroU32::new(5);
    });
    let app = app.await;
    let eager = app.issue(Role::Reader, &["*"]).await;
    let other = app.issue(Role::Reader, &["*"]).await;
    let request = ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    };
    let mut workflows = eager.client(&app.channel).workflows();
    let status = eventually("it is too much", async || {
        let mut workflows = workflows.clone();
        workflows.list_workflows(request.clone()).await.err()
    })
    .await;
    let (found, wait) = details(status);
    let subject = ("token_id", eager.id.as_str());
    let expected = of_default("calls_per_second", subject, "5", "--max-rate");
    assert_eq!(found, expected);
    assert!(wait <= WITH_JITTER / 5, "{wait:?}");
    let mut others = other.client(&app.channel).workflows();
    others.list_workflows(request.clone()).await.unwrap();
    tokio::time::sleep(wait).await;
    workflows.list_workflows(request).await.unwrap();
}

#[tokio::test]
async fn a_batch_counts_as_its_items_and_may_be_larger_than_the_quota() {
    let app = App::start_with(|config| {
        config.limits.quotas.namespace.items_per_second = NonZeroU32::new(10);
    });
    let (app, tenant) = with_tenant(app.await);
    let workflow = tenant.start().await;
    let steps = (0..1000).map(|order| tenant.new_step(&workflow, order));
    tenant.record_steps(steps.collect()).await;
    let status = call(&app.channel, &tenant.namespace).await.unwrap_err();
    let (found, _) = details(status);
    let subject = ("namespace", tenant.namespace.as_str());
    let setting = "--max-namespace-item-rate";
    let expected = of_default("items_per_second", subject, "10", setting);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn after_a_large_batch_callers_are_told_to_ask_again_within_seconds() {
    let app = App::start().await;
    let tenant = app.tenant();
    let quota = |items| SetQuotaRequest {
        items_per_second: Some(items),
        ..of_namespace(&tenant.namespace)
    };
    set(&app, quota(1)).await.unwrap();
    until_refused(&app.channel, &tenant.namespace).await;
    let steps: Vec<_> = eventually("the batch is within the quota", async || {
        let mut workflows = tenant.client.clone();
        let started = workflows.start_workflow(tenant.new_workflow()).await;
        let workflow = started.ok()?.into_inner().workflow?;
        Some(
            (0..500)
                .map(|order| tenant.new_step(&workflow, order))
                .collect(),
        )
    })
    .await;
    eventually("the batch is within the quota", async || {
        let request = BatchRecordStepsRequest {
            namespace: tenant.namespace.clone(),
            steps: steps.clone(),
        };
        tenant.client.clone().batch_record_steps(request).await.ok()
    })
    .await;
    // The rate needs more than eight minutes to catch up.
    let status = call(&app.channel, &tenant.namespace).await.unwrap_err();
    assert!(status.message().contains("retry in 5 s"), "{status:?}");
    let (_, wait) = details(status);
    assert!(wait >= Duration::from_secs(5), "{wait:?}");
    assert!(wait <= Duration::from_secs(6), "{wait:?}");
    set(&app, quota(0)).await.unwrap();
    until_admitted(&app.channel, &tenant.namespace).await;
}

#[tokio::test]
async fn an_operator_can_lift_the_quota_of_a_token_that_exceeds_it() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.quotas.token.calls_per_second = NonZeroU32::new(1);
    });
    let app = app.await;
    let token = app.issue(Role::Admin, &["*"]).await;
    let client = token.client(&app.channel);
    eventually("it is too much", async || {
        let mut server = client.server();
        server.get_server_info(GetServerInfoRequest {}).await.err()
    })
    .await;
    let quota = SetQuotaRequest {
        subject: Some(set_quota_request::Subject::TokenId(token.id.clone())),
        calls_per_second: Some(0),
        ..SetQuotaRequest::default()
    };
    client.admin().set_quota(quota).await.unwrap();
}
