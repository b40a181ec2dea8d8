//! What a tenant may ask for, with names that the other uses too.

use bridgebook::{domain::json::Struct, proto::Rpc};
use proptest::sample::Index;
use prost::Message;
use serde_json::json;

use super::{Page, requests::Asked};
use crate::support::{document, new_id};

/// The entity types that may have a machine.
pub const TYPES: [&str; 3] = ["order", "parcel", "bridge"];

/// One of the two.
pub struct Tenant {
    pub namespace: String,
    /// It is in every text of the tenant, and in no other.
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

    pub fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.mark)
    }

    pub fn state(&self, number: usize) -> String {
        self.name(&format!("S{number}"))
    }

    pub fn document(&self, number: usize) -> Option<Struct> {
        document(json!({ "text": self.mark, "number": number }))
    }
}

/// The names that both tenants use, and the page tokens that either got.
pub struct Pools {
    pub ids: [String; 3],
    pub nodes: [String; 3],
    /// The ids of moves, whatever moves: they stay taken.
    pub moves: [String; 5],
    pub tokens: Vec<String>,
}

impl Pools {
    pub fn new() -> Pools {
        Pools {
            ids: [(); 3].map(|()| new_id()),
            nodes: [(); 3].map(|()| new_id()),
            moves: [(); 5].map(|()| new_id()),
            tokens: vec![String::new()],
        }
    }

    /// Keeps the page token of an answer for both tenants.
    pub fn keep_token(&mut self, rpc: Rpc, answer: &[u8]) {
        if rpc.path().contains("/List") {
            let page = Page::decode(answer);
            self.tokens.extend(page.map(|page| page.next_page_token));
        }
    }
}

/// A call: who makes it, and with which of the shared names.
#[derive(Debug, Clone)]
pub struct Call {
    pub by: usize,
    pub rpc: Rpc,
    pub thing: usize,
    pub other: usize,
    pub state: usize,
    pub variant: u8,
    /// Which of the page tokens that were handed out so far; none: the first page.
    pub token: Option<Index>,
    pub page_size: i32,
}

impl Call {
    /// Makes things of every kind, each tenant under other names, and deletes what
    /// is not there.
    pub fn first_things(by: usize) -> Vec<Call> {
        let calls = writes().into_iter().map(|rpc| {
            let deletes = ["/Delete", "/Deregister"];
            let deletes = deletes.iter().any(|name| rpc.path().contains(name));
            Call {
                thing: if deletes { 2 } else { by },
                // That something is missing is a success.
                variant: deletes.into(),
                ..Call::on(by, by, rpc)
            }
        });
        calls.collect()
    }

    /// Does everything with what the other tenant has made first.
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

    fn on(by: usize, thing: usize, rpc: Rpc) -> Call {
        Call {
            by,
            rpc,
            thing,
            other: thing,
            state: 1,
            variant: 0,
            token: None,
            page_size: 1,
        }
    }

    /// The request; none for what is of no tenant.
    pub fn request(&self, by: &Tenant, pools: &Pools) -> Option<Vec<u8>> {
        let asked = Asked {
            call: self,
            by,
            pools,
        };
        asked.request()
    }
}

/// The RPCs that do more than look, and those that look at the nodes of others.
pub fn writes() -> Vec<Rpc> {
    let looks = |rpc: &Rpc| {
        let looks = ["/Get", "/List"];
        looks.iter().any(|name| rpc.path().contains(name)) && !rpc.path().ends_with("/GetNode")
    };
    Rpc::ALL.iter().copied().filter(|rpc| !looks(rpc)).collect()
}
