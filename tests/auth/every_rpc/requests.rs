//! A request of every RPC, as JSON in which ids have their places:
//! `$kind` is the id of something that is there, `+kind` one under which something is
//! made.

use bridgebook::proto::{self, Rpc};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor};
use serde_json::{Value, json};

use crate::support::is_tenant_call;

/// The request of an RPC. One that is added does not compile without its own.
pub fn template(rpc: Rpc) -> Value {
    let step = json!({"id": "+step", "workflow_id": "$workflow", "step_name": "s",
        "step_order": 1, "status": "STEP_STATUS_COMPLETED"});
    let stamp = json!({"id": "+stamp", "workflow_id": "$workflow", "file_hash": "ab"});
    let moved = json!({"transition_id": "+transition", "entity_type": "+type",
        "entity_id": "+entity", "to_state": "OPEN", "transition_event": "open"});
    let beat = json!({"node_id": "$node"});
    let mut request = match rpc {
        Rpc::WorkflowServiceStartWorkflow => {
            json!({"correlation_id": "+correlation", "id": "+workflow", "workflow_type": "t"})
        }
        Rpc::WorkflowServiceTransitionWorkflow => json!({"workflow_id": "$workflow",
            "to_state": "WORKFLOW_STATE_PROCESSING", "transition_id": "+transition"}),
        Rpc::WorkflowServiceGetWorkflow => json!({"id": "$workflow"}),
        Rpc::WorkflowServiceListWorkflows
        | Rpc::FsmServiceListMachines
        | Rpc::BridgeStateServiceListBridgeStates => json!({"page_token": "$page"}),
        Rpc::WorkflowServiceDeleteWorkflow => {
            json!({"workflow_id": "$workflow", "allow_missing": true})
        }
        Rpc::WorkflowServiceRecordStep => json!({"step": step}),
        Rpc::WorkflowServiceBatchRecordSteps => json!({"steps": [step]}),
        Rpc::WorkflowServiceListSteps => {
            json!({"workflow_id": "$workflow", "page_token": "$page"})
        }
        Rpc::WorkflowServiceRecordStamp => json!({"stamp": stamp}),
        Rpc::WorkflowServiceBatchRecordStamps => json!({"stamps": [stamp]}),
        Rpc::WorkflowServiceListStamps => {
            json!({"workflow_id": "$workflow", "page_token": "$page"})
        }
        Rpc::FsmServicePutMachine => json!({"entity_type": "+type", "initial_state": "OPEN",
            "terminal_states": ["DONE"],
            "moves": [{"from_state": "OPEN", "transition_event": "open", "to_state": "OPEN"},
                {"from_state": "OPEN", "transition_event": "end", "to_state": "DONE"}]}),
        Rpc::FsmServiceGetMachine => json!({"entity_type": "$type"}),
        Rpc::FsmServiceDeleteMachine => json!({"entity_type": "$type", "allow_missing": true}),
        Rpc::FsmServiceRecordTransition => json!({"transition": moved}),
        Rpc::FsmServiceBatchRecordTransitions => json!({"transitions": [moved]}),
        Rpc::FsmServiceGetEntity => json!({"entity_type": "$type", "entity_id": "$entity"}),
        Rpc::FsmServiceListEntities => json!({"entity_type": "$type", "page_token": "$page"}),
        Rpc::FsmServiceListTransitions => {
            json!({"entity_type": "$type", "entity_id": "$entity", "page_token": "$page"})
        }
        Rpc::FsmServiceGetTransitionStats => {
            json!({"entity_type": "$type", "entity_id": "$entity"})
        }
        Rpc::BridgeStateServiceUpsertBridgeState => {
            json!({"bridge_id": "+bridge", "current_fsm_state": "ACTIVE"})
        }
        Rpc::BridgeStateServiceAccumulateBridgeState => json!({"bridge_id": "+bridge",
            "batch_id": "+batch", "items_aggregated": "1", "current_fsm_state": "ACTIVE"}),
        Rpc::BridgeStateServiceGetBridgeState => json!({"bridge_id": "$bridge"}),
        Rpc::BridgeStateServiceDeleteBridgeState => {
            json!({"bridge_id": "$bridge", "allow_missing": true})
        }
        Rpc::BridgeStateServiceGetBridgeStats => json!({}),
        Rpc::RegistryServiceRegisterNode => {
            json!({"node_id": "+node", "node_type": "t", "node_version": "1"})
        }
        Rpc::RegistryServiceHeartbeat => json!({"heartbeat": beat}),
        Rpc::RegistryServiceBatchHeartbeat => json!({"heartbeats": [beat]}),
        Rpc::RegistryServiceDeregisterNode => json!({"node_id": "$node", "allow_missing": true}),
        Rpc::RegistryServiceGetNode => json!({"node_id": "@node"}),
        // The registry is everybody's, and so are its pages.
        Rpc::RegistryServiceListNodes => json!({"page_token": "$page"}),
        Rpc::RegistryServiceDiscoverNodes => json!({"node_type": "t"}),
        Rpc::AdminServiceCreateToken => json!({"name": "t", "role": "ROLE_ADMIN"}),
        Rpc::AdminServiceRevokeToken => json!({"id": "0192f0c1-7a5b-7cc3-98a1-52f3c0de4a11"}),
        Rpc::AdminServiceSetRetentionPolicy => {
            json!({"namespace": "own", "table": 2, "max_age": "3600s"})
        }
        Rpc::AdminServiceDeleteRetentionPolicy => json!({"namespace": "own", "table": 2}),
        Rpc::AdminServiceListRetentionPolicies
        | Rpc::AdminServiceGetSystemHealth
        | Rpc::AdminServiceListNamespaceSummaries
        | Rpc::AdminServiceGetIndexUsage
        | Rpc::AdminServiceGetTableScans
        | Rpc::AdminServiceListMigrations
        | Rpc::ServerServiceGetServerInfo
        | Rpc::AdminServiceListTokens => json!({}),
    };
    if is_tenant_call(rpc) {
        request["namespace"] = "own".into();
    }
    request
}

/// What another tenant's id comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The same as one that nobody has.
    Nothing,
    /// A conflict, as the keys of these tables are global.
    Taken(&'static str),
    /// What it names, which everybody may see.
    Public,
}

/// A field of a request that bears an id.
#[derive(Debug)]
pub struct Field {
    /// Where it is, as a JSON pointer.
    pointer: String,
    mark: char,
    /// What it names.
    pub kind: String,
}

impl Field {
    /// Its path without the places in lists.
    pub fn name(&self) -> String {
        let parts = self.pointer.split('/').filter(|part| !part.is_empty());
        let names = parts.filter(|part| part.parse::<usize>().is_err());
        names.collect::<Vec<_>>().join(".")
    }

    pub fn expectation(&self) -> Foreign {
        match (self.mark, self.kind.as_str()) {
            ('@', _) => Foreign::Public,
            ('+', "node") => Foreign::Taken("NODE_OWNED"),
            ('+', "entity" | "batch" | "type") | ('$', _) => Foreign::Nothing,
            _ => Foreign::Taken("ID_CONFLICT"),
        }
    }

    /// The request with this value in the field.
    pub fn set(&self, request: &Value, value: &str) -> Value {
        let mut request = request.clone();
        match request.pointer_mut(&self.pointer) {
            Some(field) => *field = value.into(),
            // The other branch of GetWorkflow's key.
            None => request = json!({"namespace": request["namespace"], "correlation_id": value}),
        }
        // A page is of the first query, whatever it was.
        if self.kind != "page" && request.get("page_token").is_some() {
            request["page_token"] = "".into();
        }
        request
    }
}

/// The fields of a template that bear ids. GetWorkflow, of whose two only one can be
/// set, has both.
pub fn fields(rpc: Rpc, template: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    collect(template, String::new(), &mut fields);
    if rpc == Rpc::WorkflowServiceGetWorkflow {
        fields.push(Field {
            pointer: "/correlation_id".into(),
            mark: '$',
            kind: "correlation".into(),
        });
    }
    fields
}

fn collect(value: &Value, pointer: String, fields: &mut Vec<Field>) {
    match value {
        Value::String(text) if text.starts_with(['$', '+', '@']) => fields.push(Field {
            pointer,
            mark: text.chars().next().unwrap(),
            kind: text[1..].to_owned(),
        }),
        Value::Array(values) => {
            for (place, value) in values.iter().enumerate() {
                collect(value, format!("{pointer}/{place}"), fields);
            }
        }
        Value::Object(entries) => {
            for (name, value) in entries {
                collect(value, format!("{pointer}/{name}"), fields);
            }
        }
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn messages(rpc: Rpc) -> [MessageDescriptor; 2] {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    let (service, method) = rpc.path().trim_start_matches('/').split_once('/').unwrap();
    let service = pool.get_service_by_name(service).unwrap();
    let mut methods = service.methods();
    let method = methods.find(|it| it.name() == method).unwrap();
    [method.input(), method.output()]
}

/// The names of the fields of an RPC's request that bear ids, by its descriptor.
pub fn id_bearing(rpc: Rpc) -> Vec<String> {
    let [input, _] = messages(rpc);
    let mut names = Vec::new();
    walk(&input, "", &mut names);
    names.sort();
    names
}

fn walk(message: &MessageDescriptor, within: &str, names: &mut Vec<String>) {
    for field in message.fields() {
        let name = field.name();
        let path = format!("{within}{name}");
        match field.kind() {
            Kind::String if name == "id" || name.ends_with("_id") => names.push(path),
            Kind::String if name == "page_token" || name == "entity_type" => names.push(path),
            Kind::Message(inner) if inner.package_name() == "bridgebook.v1" => {
                walk(&inner, &format!("{path}."), names);
            }
            _ => {}
        }
    }
}

/// A request as the wire has it.
pub fn message(rpc: Rpc, request: &Value) -> Vec<u8> {
    let [input, _] = messages(rpc);
    let message = DynamicMessage::deserialize(input, request);
    message
        .unwrap_or_else(|error| panic!("{rpc:?}: {error}"))
        .encode_to_vec()
}

/// An answer, whatever it is.
pub fn output(rpc: Rpc, answer: &[u8]) -> DynamicMessage {
    let [_, output] = messages(rpc);
    DynamicMessage::decode(output, answer).unwrap()
}
