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

/// A request that reads: its RPC, the choice of ids and the variant, and its bytes.
pub type Read = (Rpc, String, Vec<u8>);

/// The answers to every request that reads, with the requests.
pub type View = Vec<(Rpc, String, Heard)>;

/// Returns every request that reads.
pub fn reads(tenant: &Tenant, pools: &Pools) -> Vec<Read> {
    contract::tenant_rpcs()
        .filter(|rpc| rpc.role() == Role::Reader)
        .flat_map(|rpc| requests(rpc, tenant, pools))
        .collect()
}

/// Sends the requests.
pub async fn read_all(channel: &Channel, reads: &[Read]) -> View {
    let answers = reads.iter().map(|(rpc, what, request)| async move {
        let heard = send(channel, *rpc, request.clone()).await;
        (*rpc, what.clone(), heard)
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
fn requests(rpc: Rpc, tenant: &Tenant, pools: &Pools) -> Vec<Read> {
    let sample = sample(rpc);
    let mut requests: Vec<Read> = Vec::new();
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
