//! What every RPC answers to whoever asks for nothing special. That callers from
//! other machines are refused is tested beside `admit_operator`: tests stay on loopback.

use bridgebook::proto::v1;

use super::client;
use crate::support::{App, assert_complete};

/// What every RPC answers to an empty request.
async fn answers(
    mut client: v1::admin_service_client::AdminServiceClient<tonic::transport::Channel>,
) -> Vec<(&'static str, Result<(), tonic::Status>)> {
    vec![
        (
            "GetSystemHealth",
            client
                .get_system_health(v1::GetSystemHealthRequest::default())
                .await
                .map(drop),
        ),
        (
            "ListNamespaceSummaries",
            client
                .list_namespace_summaries(v1::ListNamespaceSummariesRequest::default())
                .await
                .map(drop),
        ),
        (
            "GetIndexUsage",
            client
                .get_index_usage(v1::GetIndexUsageRequest::default())
                .await
                .map(drop),
        ),
        (
            "GetTableScans",
            client
                .get_table_scans(v1::GetTableScansRequest::default())
                .await
                .map(drop),
        ),
        (
            "ListMigrations",
            client
                .list_migrations(v1::ListMigrationsRequest {})
                .await
                .map(drop),
        ),
    ]
}

#[tokio::test]
async fn an_empty_request_is_answered() {
    let app = App::start().await;
    let answers = answers(client(&app)).await;
    assert_complete("AdminService", answers.iter().map(|(rpc, _)| *rpc));
    for (rpc, answer) in answers {
        answer.unwrap_or_else(|status| panic!("{rpc}: {status:?}"));
    }
}
