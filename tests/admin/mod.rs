//! AdminService, one file per RPC. A unit test beside `admit_operator` covers callers from
//! other machines, because these tests use loopback.

mod create_token;
mod delete_quota;
mod delete_retention_policy;
mod get_index_usage;
mod get_system_health;
mod get_table_scans;
mod list_migrations;
mod list_namespace_summaries;
mod list_quotas;
mod list_retention_policies;
mod list_tokens;
mod revoke_token;
pub mod set_quota;
mod set_retention_policy;

use bridgebook::proto::v1::admin_service_client::AdminServiceClient;
use tonic::transport::Channel;

use crate::support::App;

pub fn client(app: &App) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(app.channel.clone())
}
