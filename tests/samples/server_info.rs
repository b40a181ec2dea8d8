//! Samples of ServerService.

use bridgebook::proto::Rpc;
use serde_json::json;

use super::Sample;

pub fn sample(rpc: Rpc) -> Option<Sample> {
    let sample = match rpc {
        Rpc::ServerServiceGetServerInfo => Sample::new(json!({})),
        _ => return None,
    };
    Some(sample)
}
