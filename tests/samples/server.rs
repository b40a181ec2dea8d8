//! Samples of ServerService.

use bridgebook::proto::Rpc;
use serde_json::json;

use super::Sample;

pub fn sample(rpc: Rpc) -> Option<Sample> {
    rpc.path()
        .ends_with("/GetServerInfo")
        .then(|| Sample::new(json!({})))
}
