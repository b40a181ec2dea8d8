//! Defines the cases: every RPC that reads, with its common filters.

mod admin;
mod bridge_state;
mod fsm;
mod registry;
mod workflow;

use std::collections::BTreeSet;

use bridgebook::{domain::json::Struct, proto};
use prost::Message;
use prost_types::{
    Duration, FileDescriptorSet, MethodDescriptorProto, Timestamp, method_options::IdempotencyLevel,
};
use serde_json::Value;

use crate::{Result, case::Case, dataset::Dataset};

/// Returns all cases of one database, in the order of the tables.
pub fn all(dataset: Dataset) -> Vec<Case> {
    let services = [
        workflow::cases(dataset),
        fsm::cases(dataset),
        bridge_state::cases(dataset),
        registry::cases(),
        admin::cases(),
    ];
    services.into_iter().flatten().collect()
}

/// Fails unless every RPC of the contract that reads has a case.
pub fn require_complete(cases: &[Case]) -> Result<()> {
    let have: BTreeSet<&str> = cases.iter().map(|case| case.method).collect();
    let missing: Vec<String> = reads()?
        .into_iter()
        .filter(|method| !have.contains(method.as_str()))
        .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "RPCs without a case: {}; add one in benches/depth/cases",
            missing.join(", ")
        )
        .into()),
    }
}

/// Returns the methods that read, for example "WorkflowService/GetWorkflow".
fn reads() -> Result<Vec<String>> {
    let descriptors = FileDescriptorSet::decode(proto::DESCRIPTORS)?;
    let files = descriptors.file.iter();
    let files = files.filter(|file| file.package() == "bridgebook.v1");
    // ServerService describes the process and reads no table.
    let services = files
        .flat_map(|file| &file.service)
        .filter(|service| service.name() != "ServerService");
    let reads = services.flat_map(|service| {
        // The benchmark `watch` measures streams, which have no end.
        let calls = service.method.iter().filter(|it| !it.server_streaming());
        let methods = calls.filter(|method| is_read(method));
        methods.map(|method| format!("{}/{}", service.name(), method.name()))
    });
    Ok(reads.collect())
}

fn is_read(method: &MethodDescriptorProto) -> bool {
    let options = method.options.as_ref();
    options.is_some_and(|it| it.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

/// Returns a duration of whole hours.
fn hours(hours: i64) -> Option<Duration> {
    Some(Duration {
        seconds: hours * 3600,
        nanos: 0,
    })
}

/// Converts a time.
fn timestamp(time: chrono::DateTime<chrono::Utc>) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: time.timestamp(),
        nanos: time.timestamp_subsec_nanos().cast_signed(),
    })
}

fn document(value: Value) -> Option<Struct> {
    match value {
        Value::Object(fields) => Some(fields.into()),
        _ => None,
    }
}
