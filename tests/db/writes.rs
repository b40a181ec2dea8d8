//! Every RPC that writes, about rows with a number: made from the samples of all RPCs, so a
//! new RPC is among them.

use std::collections::{BTreeMap, BTreeSet};

use bridgebook::{domain::role::Role, proto::Rpc};
use futures_util::future::join_all;
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    samples::{call, fill, sample, unused},
    support::{App, failure, new_id},
};

/// The kinds of rows that other rows belong to, or that change.
const PARENTS: [&str; 6] = [
    "workflow",
    "correlation",
    "type",
    "entity",
    "bridge",
    "node",
];

/// The kinds of rows that are appended.
const CHILDREN: [&str; 4] = ["transition", "step", "stamp", "batch"];

/// The RPCs that make the rows of [`PARENTS`], but for machines.
const MAKERS: [Rpc; 4] = [
    Rpc::WorkflowServiceStartWorkflow,
    Rpc::FsmServiceRecordTransition,
    Rpc::BridgeStateServiceAccumulateBridgeState,
    Rpc::RegistryServiceRegisterNode,
];

/// Returns all RPCs that write rows of a tenant.
pub fn write_rpcs() -> Vec<Rpc> {
    let all = Rpc::ALL.iter().copied();
    all.filter(|rpc| rpc.role() == Role::Writer).collect()
}

/// Returns the kinds of rows that the request of an RPC names.
pub fn kinds(rpc: Rpc) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    fill(&sample(rpc).request(0), &mut |mark, kind| {
        if mark != '~' && kind != "namespace" {
            kinds.insert(kind.to_owned());
        }
        String::new()
    });
    kinds
}

/// Numbered rows of a tenant. The order of their ids is that of their numbers.
pub struct Writes {
    namespace: String,
    ids: BTreeMap<(&'static str, usize), String>,
}

/// The outcome of a write: nothing, or code and reason of the error.
pub type Outcome = Result<(), (Code, String)>;

impl Writes {
    /// Makes `count` rows of each kind in [`PARENTS`].
    pub async fn new(app: &App, count: usize) -> Writes {
        let mut writes = Writes {
            namespace: app.tenant().namespace,
            ids: BTreeMap::new(),
        };
        writes.renew(&PARENTS, count);
        writes.renew(&CHILDREN, count);
        for rpc in MAKERS {
            for outcome in writes.write(app, rpc, 0..count).await {
                assert_eq!(outcome, Ok(()), "{rpc:?}");
            }
        }
        writes.renew(&CHILDREN, count);
        writes
    }

    fn renew(&mut self, kinds: &[&'static str], count: usize) {
        for (kind, number) in kinds
            .iter()
            .flat_map(|kind| (0..count).map(move |n| (*kind, n)))
        {
            let id = match kind {
                "type" | "node" => unused(kind),
                _ => new_id(),
            };
            self.ids.insert((kind, number), id);
        }
    }

    /// Returns the id of a row.
    pub fn id(&self, kind: &'static str, number: usize) -> &str {
        &self.ids[&(kind, number)]
    }

    /// Writes rows in the given order, concurrently or as one batch. Returns their outcomes.
    pub async fn write(
        &self,
        app: &App,
        rpc: Rpc,
        numbers: impl Iterator<Item = usize>,
    ) -> Vec<Outcome> {
        let requests: Vec<Value> = numbers.map(|number| self.request(rpc, number)).collect();
        if rpc.path().contains("/Batch") {
            let count = requests.len();
            let response = match call(app, rpc, None, &merged(requests)).await {
                Ok(response) => response,
                // All items have the same error.
                Err(status) => return vec![outcome(Err(status)); count],
            };
            let results = response.get_field_by_name("results").unwrap();
            let results = results.as_list().unwrap().iter();
            let results = results.map(|result| item_outcome(result.as_message().unwrap()));
            return results.collect();
        }
        let calls = requests.iter().map(|request| call(app, rpc, None, request));
        let answers = join_all(calls).await.into_iter();
        answers.map(|answer| outcome(answer.map(drop))).collect()
    }

    fn request(&self, rpc: Rpc, number: usize) -> Value {
        // Without its variant it would not change the bridge.
        let variant = u8::from(rpc == Rpc::BridgeStateServiceUpsertBridgeState);
        fill(&sample(rpc).request(variant), &mut |mark, kind| {
            let kinds = PARENTS.iter().chain(&CHILDREN);
            match (mark, kind) {
                ('~', text) => text.to_owned(),
                (_, "namespace") => self.namespace.clone(),
                (_, kind) => {
                    let kind = kinds.clone().find(|known| **known == kind);
                    self.id(kind.expect("a kind of row"), number).to_owned()
                }
            }
        })
    }
}

/// Returns one request with the items of all, which have one item each.
fn merged(requests: Vec<Value>) -> Value {
    let mut requests = requests.into_iter();
    let mut all = requests.next().expect("a request");
    for request in requests {
        for (name, items) in all.as_object_mut().unwrap() {
            if let Value::Array(items) = items {
                items.extend(request[name].as_array().unwrap().iter().cloned());
            }
        }
    }
    all
}

fn outcome(answer: Result<(), Status>) -> Outcome {
    match answer {
        Ok(()) => Ok(()),
        Err(_) => {
            let failure = failure(answer);
            Err((failure.code, failure.reason))
        }
    }
}

fn item_outcome(result: &DynamicMessage) -> Outcome {
    if !result.has_field_by_name("error") {
        return Ok(());
    }
    let error = result.get_field_by_name("error").unwrap();
    let error: tonic_types::Status = error.as_message().unwrap().transcode_to().unwrap();
    outcome(Err(Status::with_details(
        error.code.into(),
        error.message.clone(),
        error.encode_to_vec().into(),
    )))
}
