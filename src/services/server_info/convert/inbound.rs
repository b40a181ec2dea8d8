//! Converts requests to domain types.

use crate::{
    proto::v1,
    rpc::{admit::FromRequest, validate::Validator},
    services::server_info::model::ServerInfoQuery,
};

impl FromRequest<v1::GetServerInfoRequest> for ServerInfoQuery {
    fn from_request(_: v1::GetServerInfoRequest, _: &mut Validator) -> Self {
        ServerInfoQuery
    }
}
