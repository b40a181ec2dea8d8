//! What a tenant has, two of each, so that lists have a next page.

use std::collections::HashMap;

use bridgebook::{domain::role::Role, proto::Rpc};
use serde_json::{Value, json};

use super::{call, requests::template};
use crate::support::{App, new_id};

pub struct World {
    namespace: String,
    /// By kind.
    ids: HashMap<&'static str, String>,
    /// The second pages of lists.
    pages: HashMap<Rpc, String>,
}

const KINDS: [&str; 9] = [
    "workflow",
    "correlation",
    "step",
    "stamp",
    "transition",
    "bridge",
    "batch",
    "entity",
    "node",
];

/// In an order in which each finds what it needs.
const MAKERS: [Rpc; 7] = [
    Rpc::WorkflowServiceStartWorkflow,
    Rpc::WorkflowServiceRecordStep,
    Rpc::WorkflowServiceRecordStamp,
    Rpc::FsmServicePutMachine,
    Rpc::FsmServiceRecordTransition,
    Rpc::BridgeStateServiceAccumulateBridgeState,
    Rpc::RegistryServiceRegisterNode,
];

/// An id that nobody has.
pub fn fresh(kind: &str) -> String {
    match kind {
        "type" => format!("type-{}", new_id()),
        "node" => format!("node-{}", new_id()),
        "page" => "AAAA".into(),
        _ => new_id(),
    }
}

impl World {
    /// Makes everything, over the contract.
    pub async fn new(app: &App, namespace: &str) -> World {
        let token = app.issue(Role::Writer, &[namespace]).await;
        let credential = Some(token.credential.as_str());
        let mut world = World {
            namespace: namespace.to_owned(),
            ids: HashMap::new(),
            pages: HashMap::new(),
        };
        for round in 0..2 {
            for kind in KINDS.into_iter().chain(["type"]) {
                // Steps, stamps and moves are of the same.
                let stays = ["workflow", "correlation", "entity", "type"].contains(&kind);
                if round == 0 || !stays {
                    world.ids.insert(kind, fresh(kind));
                }
            }
            for rpc in MAKERS {
                let request = world.exactly(&template(rpc));
                let made = call(app, rpc, credential, &request).await;
                assert!(made.is_ok(), "{rpc:?}: {made:?}");
            }
        }
        world.add_second(app, credential).await;
        for rpc in Rpc::ALL {
            let mut request = world.fill(&template(*rpc));
            if request.get("page_token").is_none() {
                continue;
            }
            request["page_token"] = "".into();
            request["page_size"] = 1.into();
            let page = call(app, *rpc, credential, &request).await.unwrap();
            let token = page.get_field_by_name("next_page_token").unwrap();
            let token = token.as_str().unwrap();
            assert!(!token.is_empty(), "{rpc:?} has one page only: {page}");
            world.pages.insert(*rpc, token.to_owned());
        }
        world
    }

    /// A second workflow, machine and entity.
    async fn add_second(&self, app: &App, credential: Option<&str>) {
        let mut other = self.ids.clone();
        for kind in ["workflow", "correlation", "transition", "entity"] {
            other.insert(kind, fresh(kind));
        }
        let mut second = World {
            namespace: self.namespace.clone(),
            ids: other,
            pages: HashMap::new(),
        };
        for rpc in [
            Rpc::WorkflowServiceStartWorkflow,
            Rpc::FsmServiceRecordTransition,
        ] {
            let request = second.exactly(&template(rpc));
            call(app, rpc, credential, &request).await.unwrap();
        }
        second.ids.insert("type", fresh("type"));
        let machine = Rpc::FsmServicePutMachine;
        let request = second.exactly(&template(machine));
        call(app, machine, credential, &request).await.unwrap();
    }

    /// A template with what there is, and new ids for what is to be made.
    pub fn fill(&self, template: &Value) -> Value {
        self.replace(template, &|mark, kind| match mark {
            '+' => fresh(kind),
            _ if kind == "page" => String::new(),
            _ => self.ids[kind].clone(),
        })
    }

    /// A template with what there is, or is to be, under its own ids.
    fn exactly(&self, template: &Value) -> Value {
        self.replace(template, &|_, kind| self.ids[kind].clone())
    }

    /// The id of something that the tenant has.
    pub fn value(&self, rpc: Rpc, kind: &str) -> String {
        match kind {
            "page" => self.pages[&rpc].clone(),
            kind => self.ids[kind].clone(),
        }
    }

    fn replace(&self, template: &Value, id: &dyn Fn(char, &str) -> String) -> Value {
        match template {
            Value::String(text) if text.starts_with(['$', '+', '@']) => {
                id(text.chars().next().unwrap(), &text[1..]).into()
            }
            Value::Array(values) => {
                let values = values.iter().map(|value| self.replace(value, id));
                values.collect()
            }
            Value::Object(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|(name, value)| match name.as_str() {
                    "namespace" => (name.clone(), json!(self.namespace)),
                    _ => (name.clone(), self.replace(value, id)),
                });
                Value::Object(entries.collect())
            }
            other => other.clone(),
        }
    }
}
