use std::{num::NonZeroU32, time::Duration};

use bridgebook::{
    config::Auth,
    domain::role::Role,
    embedded::{Embedded, Settings},
    proto::v1::{
        self, GetServerInfoRequest, GetServerInfoResponse, QuotaLimits, ServerLimits,
        SetQuotaRequest, server_service_client::ServerServiceClient,
    },
};
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use tonic::transport::Channel;

use crate::{
    admin::set_quota::of_token,
    support::{App, Server, eventually, temp_dir},
};

async fn info(channel: &Channel) -> GetServerInfoResponse {
    let mut client = ServerServiceClient::new(channel.clone());
    let answer = client.get_server_info(GetServerInfoRequest {}).await;
    answer.expect("an answer").into_inner()
}

#[tokio::test]
async fn the_server_tells_its_version_and_its_database() {
    let app = App::start().await;
    let info = info(&app.channel).await;
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.contract_version, "1.0");
    let database = info.database.expect("a database");
    assert_eq!(database.kind, "postgresql");
    let versions = "SELECT count(*) WHERE current_setting('server_version') LIKE";
    let is_version = format!("{versions} '{}%'", database.version);
    assert_eq!(app.schema.count(&is_version).await, 1, "{database:?}");
    assert!(
        database
            .version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.')
    );
}

/// A burst shares a query, while lists of others leave no connection for more.
#[tokio::test]
async fn a_burst_of_calls_takes_one_connection() {
    let app = App::start_with(|config| config.database_connections = 2).await;
    let calls = (0..500).map(|_| info(&app.channel));
    for info in join_all(calls).await {
        assert!(info.database.is_some());
    }
}

#[tokio::test]
async fn the_capabilities_are_those_of_the_contract() {
    let app = App::start().await;
    let capabilities = info(&app.channel).await.capabilities;
    let documented = [
        "batch_heartbeat",
        "batch_record",
        "bridge_machines",
        "quotas",
        "retention_policies",
    ];
    assert_eq!(capabilities, documented);
}

#[tokio::test]
async fn without_tokens_there_is_no_caller() {
    let app = App::start().await;
    assert_eq!(info(&app.channel).await.caller, None);
}

#[tokio::test]
async fn the_limits_are_those_in_force() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.call_timeout = Duration::from_secs(7);
        config.limits.quotas.token.calls_per_second = NonZeroU32::new(5_000);
        config.limits.quotas.namespace.items_per_second = NonZeroU32::new(6_000);
        config.limits.content.json_depth = 12;
        config.limits.content.batch_items = 34;
        config.limits.content.page_rows = 56;
    })
    .await;
    let token = app.issue(Role::Reader, &["red"]).await;
    let mut client = token.client(&app.channel).server();
    let answer = client.get_server_info(GetServerInfoRequest {}).await;
    let limits = answer.unwrap().into_inner().limits.expect("limits");
    let expected = ServerLimits {
        max_message_bytes: 4 * 1024 * 1024,
        max_json_bytes: 1024 * 1024,
        max_json_depth: 12,
        max_batch_items: 34,
        max_batch_bytes: 3 * 1024 * 1024,
        max_page_size: 56,
        max_call_duration: Some(prost_types::Duration {
            seconds: 7,
            nanos: 0,
        }),
        max_calls_per_second: Some(5_000),
        max_items_per_second: None,
        max_calls_in_progress: None,
        namespace_defaults: Some(QuotaLimits {
            calls_per_second: None,
            items_per_second: Some(6_000),
            calls_in_progress: None,
        }),
    };
    assert_eq!(limits, expected);
}

#[tokio::test]
async fn a_token_learns_its_own_quota() {
    let app = App::guarded().await;
    let token = app.issue(Role::Reader, &["red"]).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let quota = SetQuotaRequest {
        calls_per_second: Some(7_000),
        items_per_second: Some(8_000),
        calls_in_progress: Some(90),
        ..of_token(&token.id)
    };
    let mut operator = admin.client(&app.channel).admin();
    operator.set_quota(quota).await.unwrap();
    eventually("the quota is in force", async || {
        let mut client = token.client(&app.channel).server();
        let answer = client.get_server_info(GetServerInfoRequest {}).await;
        let limits = answer.unwrap().into_inner().limits.unwrap();
        let rates = (limits.max_calls_per_second, limits.max_items_per_second);
        let is_own =
            (rates, limits.max_calls_in_progress) == ((Some(7_000), Some(8_000)), Some(90));
        is_own.then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_unlimited_rate_is_unset() {
    let app = App::start().await;
    let limits = info(&app.channel).await.limits.expect("limits");
    assert_eq!(limits.max_calls_per_second, None);
}

#[tokio::test]
async fn a_token_of_any_role_learns_about_itself_without_a_namespace() {
    let app = App::guarded().await;
    let expires_at = Utc::now() + TimeDelta::days(1);
    for (role, expected) in [
        (Role::Reader, v1::Role::Reader),
        (Role::Writer, v1::Role::Writer),
        (Role::Admin, v1::Role::Admin),
    ] {
        let token = app
            .issue_until(role, &["red", "red/*"], Some(expires_at))
            .await;
        let mut client = token.client(&app.channel).server();
        let answer = client.get_server_info(GetServerInfoRequest {}).await;
        let caller = answer.unwrap().into_inner().caller.expect("a caller");
        assert_eq!(caller.token_id, token.id);
        assert_eq!(caller.name, "test");
        assert_eq!(caller.role(), expected);
        assert_eq!(caller.namespaces, ["red", "red/*"]);
        let seconds = caller.expires_at.expect("an end").seconds;
        assert_eq!(seconds, expires_at.timestamp());
    }
}

#[tokio::test]
async fn during_an_outage_the_database_is_unset() {
    let dir = temp_dir();
    let cluster = Embedded::start(Settings::new(&dir.0)).await.unwrap();
    let server = Server::spawn(&["--database-url", &cluster.database_url(), "--migrate"]);
    let channel = server.serving().await;
    assert!(info(&channel).await.database.is_some());
    cluster.stop().await.unwrap();
    let info = info(&channel).await;
    assert_eq!(info.database, None);
    assert!(info.limits.is_some());
}
