//! The support code of all tests.

mod app;
mod cluster;
pub mod contract;
mod errors;
mod http;
mod node;
mod pki;
mod process;
mod raw;
mod remote_postgres;
mod status;
mod tap;
mod token;
mod wire;

pub use app::{App, Tenant, connect, tenant_on};
pub use cluster::connect as connect_database;
pub use cluster::{
    Schema, TempDir, WAITING_FOR_LOCK, count, database_address, own_cluster, temp_dir,
    use_transaction_ids,
};
pub use http::{Figures, get};
pub use node::{Node, example, root, rust_example, set_up};
pub use pki::Pki;
pub use process::{Frozen, ReservedPort, Server, bridgebook, send_signal, stderr, unused_address};
pub use raw::{call_with_timeout, raw_call, raw_call_as};
pub use remote_postgres::{Authority, FAR, Identity, RemotePostgres, authority, signed};
pub use status::{Failure, failure, overload};
pub use tap::{Ran, Tap};
pub use token::Issued;
pub use wire::{ANY_WINDOW, Wire, send_part};

use std::{future::Future, time::Duration};

use bridgebook::domain::json::Struct;
use serde_json::Value;
use uuid::Uuid;

/// The timeout of a condition. It is far longer than any machine needs, because only a
/// failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` returns a value.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let attempts = async {
        loop {
            if let Some(answer) = condition().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, attempts).await;
    answer.unwrap_or_else(|_| panic!("timed out waiting for: {what}"))
}

/// Returns a new id.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// Converts a JSON object for a request.
pub fn document(value: Value) -> Option<Struct> {
    match value {
        Value::Object(fields) => Some(fields.into()),
        other => panic!("{other} is not an object"),
    }
}

/// Converts a JSON document of a response.
pub fn value(document: Option<Struct>) -> Value {
    Value::Object(document.expect("a document").into())
}
