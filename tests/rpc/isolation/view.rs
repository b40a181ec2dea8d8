//! Everything that a tenant can read.

use bridgebook::{domain::role::Role, proto::Rpc};
use futures_util::future::join_all;
use tonic::transport::Channel;

use super::{
    Heard,
    calls::{Call, POOL, Pools, Tenant},
    send,
};
use crate::{
    samples::{fill, sample},
    support::contract,
};

/// The answers to every request that reads, with the requests.
pub type View = Vec<(Rpc, String, Heard)>;

/// Sends every request that reads.
pub async fn read_all(channel: &Channel, tenant: &Tenant, pools: &Pools) -> View {
    let reads = contract::tenant_rpcs().filter(|rpc| rpc.role() == Role::Reader);
    let requests = reads.flat_map(|rpc| requests(rpc, tenant, pools));
    let answers = requests.map(|(rpc, what, request)| async move {
        let heard = send(channel, rpc, request).await;
        (rpc, what, heard)
    });
    join_all(answers).await
}

/// Returns the first difference between two views. Errors are equal if their code and
/// text are.
pub fn difference(before: &View, after: &View) -> Option<String> {
    let content = |heard: &Heard| match heard {
        Ok(answer) => Ok(answer.clone()),
        Err(status) => Err((status.code(), status.message().to_owned())),
    };
    let mut pairs = before.iter().zip(after);
    let (old, new) = pairs.find(|(old, new)| content(&old.2) != content(&new.2))?;
    Some(format!("{old:?} is now {new:?}"))
}

/// Returns the requests of an RPC in each variant with every choice of ids.
fn requests(rpc: Rpc, tenant: &Tenant, pools: &Pools) -> Vec<(Rpc, String, Vec<u8>)> {
    let sample = sample(rpc);
    let mut requests: Vec<(Rpc, String, Vec<u8>)> = Vec::new();
    for variant in sample.each_variant() {
        if sample.is_public && !is_own(&sample.request(variant)) {
            continue;
        }
        for choice in 0..POOL * POOL {
            let call = Call {
                by: 0,
                rpc,
                parent: choice / POOL,
                child: choice % POOL,
                variant,
                token: None,
                page_size: 1000,
            };
            let request = call.request(tenant, pools);
            // Many requests have fewer ids to choose.
            if requests.iter().all(|(_, _, known)| *known != request) {
                let what = format!("{:?}", (call.parent, call.child, variant));
                requests.push((rpc, what, request));
            }
        }
    }
    requests
}

/// Returns whether a request filters by the caller's own namespace. Other requests for
/// public rows see what the other tenant does.
fn is_own(request: &serde_json::Value) -> bool {
    let mut namespaces = 0;
    fill(request, &mut |_, kind| {
        namespaces += usize::from(kind == "namespace");
        String::new()
    });
    namespaces > 1
}
