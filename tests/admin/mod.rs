//! AdminService, a file per RPC.

mod completeness;
mod get_index_usage;
mod get_system_health;
mod get_table_scans;
mod list_migrations;
mod list_namespace_summaries;

use bridgebook::proto::v1::admin_service_client::AdminServiceClient;
use tonic::transport::Channel;

use crate::support::App;

pub fn client(app: &App) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(app.channel.clone())
}
