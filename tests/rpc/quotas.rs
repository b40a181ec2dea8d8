//! Quotas of tenants and tokens.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use bridgebook::{
    config::Auth,
    domain::role::Role,
    proto::v1::{
        BatchRecordStepsRequest, DeleteQuotaRequest, GetBridgeStateRequest, ListQuotasRequest,
        NewStep, SetQuotaRequest, bridge_state_service_client::BridgeStateServiceClient,
        delete_quota_request, quota,
    },
};
use diesel_async::SimpleAsyncConnection;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::{
    admin::{
        client,
        set_quota::{of_namespace, of_token, set},
    },
    support::{
        App, Failure, Issued, Schema, Tenant, WAITING_FOR_LOCK, eventually, failure, new_id,
    },
};

const ONE: Option<NonZeroU32> = NonZeroU32::new(1);

/// The longest delay that a caller is told which has to wait for a second.
pub const WITH_JITTER: Duration = Duration::from_millis(1250);

/// Makes a call of a tenant that needs no row. Returns its error if it is not admitted.
pub async fn call(channel: &Channel, namespace: &str) -> Result<(), Status> {
    let mut bridges = BridgeStateServiceClient::new(channel.clone());
    let request = GetBridgeStateRequest {
        namespace: namespace.into(),
        bridge_id: new_id(),
    };
    let status = bridges.get_bridge_state(request).await.unwrap_err();
    (status.code() == Code::NotFound)
        .then_some(())
        .ok_or(status)
}

/// Makes such a call with a token. Returns the error of one that is not admitted.
async fn refusal(app: &App, token: &Issued, namespace: &str) -> Option<Status> {
    let request = GetBridgeStateRequest {
        namespace: namespace.into(),
        bridge_id: new_id(),
    };
    let mut bridges = token.client(&app.channel).bridges();
    let status = bridges.get_bridge_state(request).await.unwrap_err();
    (status.code() != Code::NotFound).then_some(status)
}

/// Makes calls until one is refused by a quota. Returns its status.
pub async fn until_refused(channel: &Channel, namespace: &str) -> Status {
    eventually("a call is over the quota", async || {
        call(channel, namespace).await.err()
    })
    .await
}

/// Limits the calls of a namespace, and waits until one is refused.
async fn limit_calls(app: &App, namespace: &str) {
    let quota = SetQuotaRequest {
        calls_per_second: Some(1),
        ..of_namespace(namespace)
    };
    set(app, quota).await.unwrap();
    until_refused(&app.channel, namespace).await;
}

/// Waits until a number of calls in a row are admitted.
pub async fn until_admitted(channel: &Channel, namespace: &str) {
    eventually("20 calls are within the quota", async || {
        for _ in 0..20 {
            call(channel, namespace).await.ok()?;
        }
        Some(())
    })
    .await;
}

/// Returns the metadata of the error's reason, and the delay after which to retry.
pub fn details(status: Status) -> (Vec<(String, String)>, Duration) {
    let details = status.get_error_details();
    let expected = Failure::new(Code::ResourceExhausted, "QUOTA_EXCEEDED");
    assert_eq!(failure::<()>(Err(status)), expected);
    let mut metadata = details.error_info().unwrap().metadata.clone();
    assert!(metadata.remove("request_id").is_some(), "{metadata:?}");
    let mut metadata: Vec<_> = metadata.into_iter().collect();
    metadata.sort();
    let retry = details.retry_info().unwrap();
    (metadata, retry.retry_delay.unwrap())
}

fn metadata(limit: &str, subject: (&str, &str), value: &str) -> Vec<(String, String)> {
    let pairs = [("limit", limit), subject, ("value", value)];
    pairs.map(|(key, value)| (key.into(), value.into())).into()
}

/// Returns the metadata of a limit that no operator has set.
pub fn of_default(
    limit: &str,
    subject: (&str, &str),
    value: &str,
    setting: &str,
) -> Vec<(String, String)> {
    let mut pairs = metadata(limit, subject, value);
    pairs.push(("setting".into(), setting.into()));
    pairs.sort();
    pairs
}

#[tokio::test]
async fn a_quota_is_in_force_on_every_replica_until_it_is_deleted() {
    let app = App::start().await;
    let replica = app.replica().await;
    let [limited, other] = [app.tenant(), app.tenant()].map(|it| it.namespace);
    let quota = SetQuotaRequest {
        calls_per_second: Some(1),
        ..of_namespace(&limited)
    };
    set(&app, quota).await.unwrap();
    for channel in [&app.channel, &replica.channel] {
        let status = until_refused(channel, &limited).await;
        let expected = "exceeds its quota of 1 call per second, which an operator has set;";
        assert!(status.message().contains(expected), "{status:?}");
        let (found, wait) = details(status);
        let subject = ("namespace", limited.as_str());
        assert_eq!(found, metadata("calls_per_second", subject, "1"));
        assert!(wait <= WITH_JITTER, "{wait:?}");
        for _ in 0..20 {
            call(channel, &other).await.unwrap();
        }
    }
    let subject = Some(delete_quota_request::Subject::Namespace(limited.clone()));
    let deletion = DeleteQuotaRequest { subject };
    client(&app).delete_quota(deletion).await.unwrap();
    for channel in [&app.channel, &replica.channel] {
        until_admitted(channel, &limited).await;
    }
}

#[tokio::test]
async fn the_quota_of_a_namespace_overrides_the_setting_for_all() {
    let app = App::start_with(|config| {
        config.limits.quotas.namespace.calls_per_second = ONE;
    });
    let app = app.await;
    let [limited, free] = ["limited", "free"];
    let no_limit = SetQuotaRequest {
        calls_per_second: Some(0),
        ..of_namespace(free)
    };
    set(&app, no_limit).await.unwrap();
    until_admitted(&app.channel, free).await;
    let status = until_refused(&app.channel, limited).await;
    let expected = "exceeds its quota of 1 call per second, the default of --max-namespace-rate;";
    assert!(status.message().contains(expected), "{status:?}");
}

pub fn with_tenant(app: App) -> (App, Tenant) {
    let tenant = app.tenant();
    (app, tenant)
}

#[tokio::test]
async fn a_token_has_one_quota_for_all_of_its_namespaces() {
    let app = App::guarded().await;
    let token = app.issue(Role::Writer, &["*"]).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let quota = SetQuotaRequest {
        items_per_second: Some(1),
        ..of_token(&token.id)
    };
    let mut operator = admin.client(&app.channel).admin();
    operator.set_quota(quota).await.unwrap();
    let status = eventually("the token is over its quota", async || {
        for namespace in ["red", "blue", "green"] {
            let status = refusal(&app, &token, namespace).await;
            if status.is_some() {
                return status;
            }
        }
        None
    });
    let (found, _) = details(status.await);
    let subject = ("token_id", token.id.as_str());
    assert_eq!(found, metadata("items_per_second", subject, "1"));
}

#[tokio::test]
async fn a_cancelled_call_is_no_longer_in_progress() {
    let app = App::start_with(|config| {
        config.limits.quotas.namespace.calls_in_progress = ONE;
    });
    let (app, tenant) = with_tenant(app.await);
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE workflow_executions";
    blocker.batch_execute(lock).await.unwrap();
    let (mut starter, new) = (tenant.client.clone(), tenant.new_workflow());
    let blocked = tokio::spawn(async move { starter.start_workflow(new).await });
    eventually("the call waits for the lock", async || {
        (app.schema.sessions(WAITING_FOR_LOCK).await > 0).then_some(())
    })
    .await;
    let status = until_refused(&app.channel, &tenant.namespace).await;
    let (found, _) = details(status);
    let subject = ("namespace", tenant.namespace.as_str());
    let setting = "--max-namespace-requests";
    assert_eq!(
        found,
        of_default("calls_in_progress", subject, "1", setting)
    );
    call(&app.channel, &app.tenant().namespace).await.unwrap();
    blocked.abort();
    until_admitted(&app.channel, &tenant.namespace).await;
    blocker.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn quotas_that_cannot_be_read_again_stay_in_force() {
    let app = App::start().await;
    let namespace = app.tenant().namespace;
    limit_calls(&app, &namespace).await;
    let mut database = app.schema.connect().await;
    let rename = "ALTER TABLE quotas RENAME TO hidden";
    database.batch_execute(rename).await.unwrap();
    let failures = || {
        let name = "bridgebook_database_statement_failures_total";
        app.figures().sum(name, &[("pool", "queries")])
    };
    let before = failures();
    eventually("two reads have failed", async || {
        (failures() >= before + 2.0).then_some(())
    })
    .await;
    until_refused(&app.channel, &namespace).await;
}

#[tokio::test]
async fn no_call_is_admitted_before_the_quotas_were_read() {
    let schema = Schema::create().await;
    let mut database = schema.connect().await;
    let hidden = "INSERT INTO quotas (subject_kind, subject, calls_per_second)
                  VALUES ('namespace', 'limited', 1);
                  ALTER TABLE quotas RENAME COLUMN weight TO hidden";
    database.batch_execute(hidden).await.unwrap();
    let start = App::start_on(schema.clone(), |_| {});
    tokio::pin!(start);
    let last_read = format!(
        "SELECT coalesce(max(extract(epoch FROM query_start) * 1000000), 0)
           FROM pg_stat_activity
          WHERE application_name = '{}' AND query LIKE '%\"quotas\".\"weight\"%'
            AND pid <> pg_backend_pid()",
        schema.name()
    );
    let mut reads = BTreeSet::new();
    let three_reads = async {
        // The first one is 0: none.
        while reads.len() < 4 {
            reads.insert(schema.count(&last_read).await);
        }
    };
    tokio::select! {
        _ = &mut start => panic!("the service is SERVING without quotas"),
        () = three_reads => {}
    }
    let shown = "ALTER TABLE quotas RENAME COLUMN hidden TO weight";
    database.batch_execute(shown).await.unwrap();
    let mut app = start.await;
    app.expect_errors();
    let (found, _) = details(until_refused(&app.channel, "limited").await);
    let subject = ("namespace", "limited");
    assert_eq!(found, metadata("calls_per_second", subject, "1"));
}

#[tokio::test]
async fn a_quota_for_a_subject_of_a_newer_version_stops_no_other() {
    let app = App::start().await;
    let newer = "ALTER TABLE quotas DROP CONSTRAINT quotas_subject_kind_check;
                 INSERT INTO quotas (subject_kind, subject, calls_per_second)
                 VALUES ('role', 'writer', 1)";
    let mut database = app.schema.connect().await;
    database.batch_execute(newer).await.unwrap();
    let namespace = app.tenant().namespace;
    limit_calls(&app, &namespace).await;
    let listed = client(&app).list_quotas(ListQuotasRequest::default()).await;
    let listed = listed.unwrap().into_inner().quotas;
    let subjects: Vec<_> = listed.into_iter().map(|quota| quota.subject).collect();
    let expected = quota::Subject::Namespace(namespace);
    assert_eq!(subjects, [Some(expected), None]);
}

#[tokio::test]
async fn a_call_over_the_quota_of_its_namespace_is_still_one_of_its_token() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.quotas.namespace.calls_per_second = ONE;
        config.limits.quotas.token.calls_per_second = NonZeroU32::new(5);
    });
    let app = app.await;
    let token = app.issue(Role::Reader, &["*"]).await;
    let mut refused = 0.0;
    let (found, _) = loop {
        let Some(status) = refusal(&app, &token, "limited").await else {
            continue;
        };
        refused += 1.0;
        let details = details(status);
        if details.0.iter().any(|(key, _)| key == "token_id") {
            break details;
        }
    };
    let subject = ("token_id", token.id.as_str());
    let expected = of_default("calls_per_second", subject, "5", "--max-rate");
    assert_eq!(found, expected);
    let rejected = [("reason", "QUOTA_EXCEEDED")];
    let rejected = app
        .figures()
        .sum("bridgebook_rejected_calls_total", &rejected);
    assert_eq!(rejected, refused);
}

#[tokio::test]
async fn a_call_over_the_quota_of_its_namespace_takes_no_items_of_its_token() {
    let app = App::guarded().await;
    let token = app.issue(Role::Reader, &["*"]).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let mut operator = admin.client(&app.channel).admin();
    let of_token = SetQuotaRequest {
        items_per_second: Some(100),
        ..of_token(&token.id)
    };
    let of_namespace = SetQuotaRequest {
        calls_per_second: Some(1),
        ..of_namespace("limited")
    };
    for quota in [of_token, of_namespace] {
        operator.set_quota(quota).await.unwrap();
    }
    let mut refused = 0;
    while refused < 500 {
        let Some(status) = refusal(&app, &token, "limited").await else {
            continue;
        };
        let (found, _) = details(status);
        let subject = ("namespace", "limited");
        assert_eq!(found, metadata("calls_per_second", subject, "1"));
        refused += 1;
    }
}

#[tokio::test]
async fn a_batch_with_too_many_items_is_invalid_and_charges_none() {
    let app = App::start_with(|config| {
        config.limits.quotas.namespace.items_per_second = ONE;
    });
    let (app, tenant) = with_tenant(app.await);
    let request = BatchRecordStepsRequest {
        namespace: tenant.namespace.clone(),
        steps: vec![NewStep::default(); 10_000],
    };
    let failed = tenant.client.clone().batch_record_steps(request).await;
    assert_eq!(failed.unwrap_err().code(), Code::InvalidArgument);
    call(&app.channel, &tenant.namespace).await.unwrap();
}
