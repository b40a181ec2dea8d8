//! The calls of two tenants that share all ids.

use bridgebook::{domain::role::Role, proto::Rpc};
use proptest::sample::Index;
use prost::Message;
use serde_json::Value;

use super::Page;
use crate::{
    samples::{self, sample},
    support::{contract, new_id},
};

/// The entity types that may have a machine.
const TYPES: [&str; 3] = ["order", "parcel", "bridge"];

/// The number of ids in each pool.
pub const POOL: usize = 3;

/// One of the two tenants.
pub struct Tenant {
    pub namespace: String,
    /// Part of every text of this tenant, and of no text of the other one.
    pub mark: String,
}

impl Tenant {
    pub fn new(name: &str) -> Tenant {
        let id = new_id().replace('-', "");
        Tenant {
            namespace: format!("{name}-{id}"),
            mark: name.into(),
        }
    }
}

/// The ids that both tenants use, and the page tokens that either of them received.
pub struct Pools {
    ids: [String; POOL],
    nodes: [String; POOL],
    /// The ids of transitions: once used, an id stays taken. Workflows use the first three,
    /// other entities the last three.
    transitions: [String; 5],
    tokens: Vec<String>,
}

impl Pools {
    pub fn new() -> Pools {
        Pools {
            ids: [(); POOL].map(|()| new_id()),
            nodes: [(); POOL].map(|()| new_id()),
            transitions: [(); 5].map(|()| new_id()),
            tokens: vec![String::new()],
        }
    }

    /// Keeps the page token of a list's answer for both tenants.
    pub fn keep_token(&mut self, rpc: Rpc, answer: &[u8]) {
        if rpc.path().contains("/List") {
            let page = Page::decode(answer);
            self.tokens.extend(page.map(|page| page.next_page_token));
        }
    }
}

/// A call: its caller, the variant of the sample, and the choices from the pools.
#[derive(Debug, Clone)]
pub struct Call {
    pub by: usize,
    pub rpc: Rpc,
    /// The choice of a workflow, a bridge, a node or an entity type.
    pub parent: usize,
    /// The choice of every other id.
    pub child: usize,
    /// The bits of the sample's variants.
    pub variant: u8,
    /// The choice of a page token; None for the first page.
    pub token: Option<Index>,
    pub page_size: i32,
}

impl Call {
    /// Returns one call of every RPC that writes. Each tenant makes rows under other ids,
    /// and deletes only what is missing.
    pub fn first_rows(by: usize) -> Vec<Call> {
        let calls = writes().into_iter().map(|rpc| {
            let deletes = ["/Delete", "/Deregister"];
            let deletes = deletes.iter().any(|name| rpc.path().contains(name));
            Call {
                parent: if deletes { 2 } else { by },
                // With allow_missing, so that the answer is OK.
                variant: deletes.into(),
                ..Call::on(by, by, rpc)
            }
        });
        calls.collect()
    }

    /// Returns calls that name what the other tenant's first calls made.
    pub fn trespasses(by: usize) -> Vec<Call> {
        let writes = writes().into_iter();
        let calls = writes.flat_map(|rpc| {
            [0, 1].map(|variant| Call {
                variant,
                ..Call::on(by, 1 - by, rpc)
            })
        });
        calls.collect()
    }

    fn on(by: usize, chosen: usize, rpc: Rpc) -> Call {
        Call {
            by,
            rpc,
            parent: chosen,
            child: chosen,
            variant: 0,
            token: None,
            page_size: 1,
        }
    }

    /// Returns the request.
    pub fn request(&self, by: &Tenant, pools: &Pools) -> Vec<u8> {
        let mut request = sample(self.rpc).request(self.variant);
        for items in request.as_object_mut().unwrap().values_mut() {
            repeat_item(items, POOL);
        }
        let mut request = self.fill(&request, by, pools);
        if contract::has_field(self.rpc, "page_size") {
            request["page_size"] = self.page_size.into();
        }
        contract::encode(self.rpc, &request)
    }

    /// Fills in the marks. Each item of a batch chooses the next ids of the pools.
    fn fill(&self, request: &Value, by: &Tenant, pools: &Pools) -> Value {
        let fields = request.as_object().unwrap().iter();
        let fields = fields.map(|(name, field)| {
            let filled = match field {
                Value::Array(items) => {
                    let items = items.iter().enumerate();
                    items
                        .map(|(place, item)| self.fill_item(item, place, by, pools))
                        .collect()
                }
                field => self.fill_item(field, 0, by, pools),
            };
            (name.clone(), filled)
        });
        Value::Object(fields.collect())
    }

    fn fill_item(&self, item: &Value, place: usize, by: &Tenant, pools: &Pools) -> Value {
        samples::fill(item, &mut |mark, kind| match (mark, kind) {
            ('~', text) => format!("{text}-{}", by.mark),
            (_, "namespace") => by.namespace.clone(),
            (_, "page") => self.page_token(pools),
            // No position of a row, so both tenants are refused.
            (_, "position") => {
                let id = pools.ids[self.child].parse().unwrap();
                samples::position(&by.namespace, id)
            }
            (_, "origin") => samples::origin(&by.namespace),
            (_, kind) => self.id(kind, place, pools),
        })
    }

    fn id(&self, kind: &str, place: usize, pools: &Pools) -> String {
        let parent = (self.parent + place) % POOL;
        let child = (self.child + place) % POOL;
        let is_of_fsm = self.rpc.path().contains("FsmService");
        match kind {
            "workflow" | "correlation" | "bridge" => pools.ids[parent].clone(),
            "node" => pools.nodes[parent].clone(),
            // Bridges have machines, but only BridgeStateService moves them.
            "type" if self.rpc.path().ends_with("Machine") => TYPES[parent].into(),
            "type" => TYPES[self.parent % 2].into(),
            "transition" if is_of_fsm => pools.transitions[2 + child].clone(),
            "transition" => pools.transitions[child].clone(),
            _ => pools.ids[child].clone(),
        }
    }

    fn page_token(&self, pools: &Pools) -> String {
        let token = self.token.as_ref();
        let token = token.map(|token| token.get(&pools.tokens).clone());
        token.unwrap_or_default()
    }
}

/// Repeats the item of a batch that has one item. Lists that are no batches stay.
fn repeat_item(items: &mut Value, times: usize) {
    if let Value::Array(items) = items
        && let [Value::Object(item)] = items.as_slice()
    {
        *items = vec![Value::Object(item.clone()); times];
    }
}

/// Returns the RPCs of tenants that write, and those that read the nodes of other tenants.
pub fn writes() -> Vec<Rpc> {
    let node_reads = [
        Rpc::RegistryServiceGetNode,
        Rpc::RegistryServiceDiscoverNodes,
    ];
    contract::tenant_rpcs()
        .filter(|rpc| rpc.role() == Role::Writer || node_reads.contains(rpc))
        .collect()
}
