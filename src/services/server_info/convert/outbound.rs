//! Converts domain types to responses, which cannot fail.

use crate::{
    domain::{
        limits::{ContentLimits, MAX_BATCH_BYTES},
        time,
    },
    proto::v1,
    rpc::auth::{Caller, token::Token},
    services::{
        convert::{number, saturated},
        server_info::model::{
            CAPABILITIES, CONTRACT_VERSION, CallerLimits, DatabaseInfo, ServerInfo,
        },
    },
};

impl From<ServerInfo> for v1::GetServerInfoResponse {
    fn from(info: ServerInfo) -> Self {
        v1::GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            contract_version: CONTRACT_VERSION.to_owned(),
            capabilities: CAPABILITIES.iter().map(ToString::to_string).collect(),
            limits: Some(info.limits.into()),
            database: info.database.map(Into::into),
            caller: match info.caller {
                Caller::Anyone => None,
                Caller::Token(token) => Some((&*token).into()),
            },
        }
    }
}

impl From<CallerLimits> for v1::ServerLimits {
    fn from(limits: CallerLimits) -> Self {
        let ContentLimits {
            message_bytes,
            json_bytes,
            json_depth,
            batch_items,
            page_rows,
        } = limits.content;
        v1::ServerLimits {
            max_message_bytes: saturated(message_bytes),
            max_json_bytes: saturated(json_bytes),
            max_json_depth: saturated(json_depth),
            max_batch_items: saturated(batch_items),
            max_batch_bytes: saturated(MAX_BATCH_BYTES),
            max_page_size: page_rows,
            max_call_duration: prost_types::Duration::try_from(limits.call_duration).ok(),
            max_calls_per_second: number(limits.token.calls_per_second),
            max_items_per_second: number(limits.token.items_per_second),
            max_calls_in_progress: number(limits.token.calls_in_progress),
            namespace_defaults: Some(limits.namespace_defaults.into()),
        }
    }
}

impl From<DatabaseInfo> for v1::DatabaseInfo {
    fn from(database: DatabaseInfo) -> Self {
        v1::DatabaseInfo {
            kind: "postgresql".to_owned(),
            version: database.version,
        }
    }
}

impl From<&Token> for v1::CallerInfo {
    fn from(token: &Token) -> Self {
        v1::CallerInfo {
            token_id: token.id.to_string(),
            name: token.name.clone(),
            role: token
                .role
                .known()
                .map(v1::Role::from)
                .unwrap_or_default()
                .into(),
            namespaces: token.namespaces.patterns().to_vec(),
            expires_at: token.expires_at.map(time::to_proto),
        }
    }
}
