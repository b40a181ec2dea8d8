//! A tenant with rows of every kind, made by the samples themselves.

use std::collections::{BTreeMap, HashMap};

use bridgebook::{
    domain::{id::TransitionId, position::Position},
    proto::Rpc,
};
use prost_reflect::DynamicMessage;
use serde_json::Value;
use tonic::Status;
use uuid::Uuid;

use super::{fill, sample};
use crate::support::{App, contract, new_id, raw_call_as};

/// Calls an RPC with a request in JSON.
pub async fn call(
    app: &App,
    rpc: Rpc,
    credential: Option<&str>,
    request: &Value,
) -> Result<DynamicMessage, Status> {
    let bytes = contract::encode(rpc, request);
    let response = raw_call_as(&app.channel, credential, contract::method(rpc), bytes).await?;
    Ok(contract::decode(rpc, &response))
}

/// The rows of a tenant: two of each kind, so that every list has a second page.
pub struct Rows {
    pub namespace: String,
    /// By kind.
    ids: BTreeMap<&'static str, String>,
    /// The page tokens of the second pages.
    pages: HashMap<Rpc, String>,
    /// The position of a row of the journal.
    position: String,
}

/// The kinds that keep their id in the second round, because the rows of other kinds that
/// are made in it belong to the same parent.
const PARENTS: [&str; 4] = ["workflow", "correlation", "type", "entity"];

/// Returns an id that no row has.
pub fn unused(kind: &str) -> String {
    match kind {
        "type" | "node" => format!("{kind}-{}", new_id()),
        "page" => "AAAA".into(),
        "position" => position("unused", Uuid::now_v7()),
        "origin" => origin("unused"),
        _ => new_id(),
    }
}

/// Returns the position of a row with this id in the journal of a namespace. There is none.
pub fn position(namespace: &str, id: Uuid) -> String {
    let position = Position {
        xid: 1,
        seq: 1,
        transition_id: TransitionId(id),
    };
    position.to_text(namespace)
}

/// Returns the position before all rows of a namespace.
pub fn origin(namespace: &str) -> String {
    Position::default().to_text(namespace)
}

fn makers() -> impl Iterator<Item = Rpc> {
    let all = Rpc::ALL.iter().copied();
    all.filter(|rpc| !sample(*rpc).makes.is_empty())
}

impl Rows {
    /// Returns ids of which no row exists.
    pub fn unmade(namespace: &str) -> Rows {
        let kinds = makers().flat_map(|rpc| sample(rpc).makes);
        Rows {
            namespace: namespace.to_owned(),
            ids: kinds.map(|kind| (*kind, unused(kind))).collect(),
            pages: HashMap::new(),
            position: position(namespace, Uuid::now_v7()),
        }
    }

    /// Makes the rows. The order of the contract is one in which each RPC finds the rows
    /// that it needs.
    pub async fn make(app: &App, namespace: &str, credential: Option<&str>) -> Rows {
        let mut rows = Rows::unmade(namespace);
        for round in 0..2 {
            if round == 1 {
                rows.renew(|kind| !PARENTS.contains(&kind));
            }
            for rpc in makers() {
                rows.make_one(app, rpc, credential).await;
            }
        }
        rows.make_other_parents(app, credential).await;
        for rpc in contract::tenant_rpcs().filter(|rpc| contract::has_field(*rpc, "page_token")) {
            rows.keep_second_page(app, rpc, credential).await;
        }
        rows
    }

    fn renew(&mut self, is_chosen: impl Fn(&str) -> bool) {
        for (kind, id) in &mut self.ids {
            if is_chosen(kind) {
                *id = unused(kind);
            }
        }
    }

    async fn make_one(&self, app: &App, rpc: Rpc, credential: Option<&str>) -> DynamicMessage {
        let request = self.exactly(&sample(rpc).request(0));
        let made = call(app, rpc, credential, &request).await;
        made.unwrap_or_else(|error| panic!("{rpc:?}: {error:?}"))
    }

    /// Makes a second workflow, entity and machine.
    async fn make_other_parents(&mut self, app: &App, credential: Option<&str>) {
        let mut others = Rows {
            namespace: self.namespace.clone(),
            ids: self.ids.clone(),
            pages: HashMap::new(),
            position: String::new(),
        };
        others.renew(|kind| PARENTS.contains(&kind) && kind != "type" || kind == "transition");
        let start = Rpc::WorkflowServiceStartWorkflow;
        let started = others.make_one(app, start, credential).await;
        let position = started.get_field_by_name("position").unwrap();
        self.position = position.as_str().unwrap().to_owned();
        // Its bridge is to consume it.
        app.wait_for_horizon(&self.position).await;
        let record = Rpc::FsmServiceRecordTransition;
        others.make_one(app, record, credential).await;
        others.renew(|kind| kind == "type");
        others
            .make_one(app, Rpc::FsmServicePutMachine, credential)
            .await;
    }

    async fn keep_second_page(&mut self, app: &App, rpc: Rpc, credential: Option<&str>) {
        let mut request = self.fill(&sample(rpc).request(0));
        request["page_size"] = 1.into();
        let page = call(app, rpc, credential, &request).await.unwrap();
        let token = page.get_field_by_name("next_page_token").unwrap();
        let token = token.as_str().unwrap();
        assert!(!token.is_empty(), "{rpc:?} has one page only: {page}");
        self.pages.insert(rpc, token.to_owned());
    }

    /// Returns a request that names the existing rows, and unused ids for new ones.
    pub fn fill(&self, request: &Value) -> Value {
        fill(request, &mut |mark, kind| match mark {
            '+' | '&' => unused(kind),
            mark => self.text(mark, kind),
        })
    }

    /// Returns a request with the tenant's ids for existing and new rows.
    fn exactly(&self, request: &Value) -> Value {
        fill(request, &mut |mark, kind| self.text(mark, kind))
    }

    fn text(&self, mark: char, kind: &str) -> String {
        match (mark, kind) {
            ('~', text) => text.to_owned(),
            (_, "namespace") => self.namespace.clone(),
            (_, "page") => String::new(),
            (_, "position") => self.position.clone(),
            (_, "origin") => origin(&self.namespace),
            (_, kind) => self.ids.get(kind).cloned().unwrap_or_else(|| unused(kind)),
        }
    }

    /// Returns the id of a row of the tenant, or the page token of its list.
    pub fn value(&self, rpc: Rpc, kind: &str) -> String {
        match kind {
            "page" => self.pages[&rpc].clone(),
            "position" | "origin" => self.text('$', kind),
            kind => self.ids[kind].clone(),
        }
    }

    /// Returns one id of each kind, in the order of the kinds.
    pub fn ids(&self) -> impl Iterator<Item = &String> {
        self.ids.values()
    }
}
