//! Valid requests of every RPC, made from the descriptors.

use std::{collections::HashSet, sync::LazyLock};

use bridgebook::proto::{self, Rpc};
use fastrand::Rng;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};

use crate::support::new_id;

/// The tenant that sends the requests.
pub const NAMESPACE: &str = "mutations";

/// How many ids there are to name things by: few enough that requests meet.
const IDS: u32 = 12;

/// The contract.
static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).unwrap());

/// The full names of all fields whose comment begins with "Required."
static REQUIRED: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let fields = CONTRACT
        .all_messages()
        .flat_map(|message| message.fields().collect::<Vec<_>>());
    let required = fields.filter(|field| comment(field).trim_start().starts_with("Required."));
    required.map(|field| field.full_name().to_owned()).collect()
});

fn comment(field: &FieldDescriptor) -> String {
    let file = field.parent_file();
    let locations = &file.file_descriptor_proto().source_code_info;
    let mut locations = locations.iter().flat_map(|info| &info.location);
    let location = locations.find(|location| location.path == field.path());
    location
        .map(|location| location.leading_comments().to_owned())
        .unwrap_or_default()
}

/// The messages that an RPC takes and answers.
pub fn messages(rpc: Rpc) -> [MessageDescriptor; 2] {
    let path = rpc.path().trim_start_matches('/');
    let (service, method) = path.split_once('/').unwrap();
    let service = CONTRACT.get_service_by_name(service).unwrap();
    let method = service.methods().find(|known| known.name() == method);
    let method = method.unwrap();
    [method.input(), method.output()]
}

/// A request that is accepted, or is refused for what there is or is not.
pub fn seed(rpc: Rpc, rng: &mut Rng) -> DynamicMessage {
    let [input, _] = messages(rpc);
    let mut request = fill(&input, rng);
    settle(rpc, &mut request, rng);
    request
}

/// Mends what the descriptors do not say. A new RPC does not compile until it is
/// here; see whether its field names mean in [`text`] what they mean in it.
fn settle(rpc: Rpc, request: &mut DynamicMessage, rng: &mut Rng) {
    match rpc {
        Rpc::WorkflowServiceStartWorkflow => {
            set(request, "current_state", Value::EnumNumber(rng.i32(0..=2)));
            // Under one name, so that others find it.
            let id = request.get_field_by_name("correlation_id").unwrap();
            set(request, "id", id.into_owned());
        }
        Rpc::WorkflowServiceTransitionWorkflow => settle_move(request, rng),
        Rpc::FsmServicePutMachine => settle_machine(request),
        Rpc::FsmServiceGetMachine => set(request, "version", Value::I32(0)),
        Rpc::FsmServiceListTransitions | Rpc::FsmServiceGetTransitionStats => {
            let types = ["order", "workflow", "bridge", "node"];
            let entity_type = rng.choice(types).unwrap_or("order");
            set(request, "entity_type", Value::String(entity_type.into()));
        }
        Rpc::RegistryServiceBatchHeartbeat => settle_heartbeats(request),
        Rpc::AdminServiceCreateToken => settle_token(request),
        Rpc::WorkflowServiceGetWorkflow
        | Rpc::WorkflowServiceListWorkflows
        | Rpc::WorkflowServiceDeleteWorkflow
        | Rpc::WorkflowServiceRecordStep
        | Rpc::WorkflowServiceBatchRecordSteps
        | Rpc::WorkflowServiceListSteps
        | Rpc::WorkflowServiceRecordStamp
        | Rpc::WorkflowServiceBatchRecordStamps
        | Rpc::WorkflowServiceListStamps
        | Rpc::FsmServiceListMachines
        | Rpc::FsmServiceDeleteMachine
        | Rpc::FsmServiceRecordTransition
        | Rpc::FsmServiceBatchRecordTransitions
        | Rpc::FsmServiceGetEntity
        | Rpc::FsmServiceListEntities
        | Rpc::BridgeStateServiceUpsertBridgeState
        | Rpc::BridgeStateServiceAccumulateBridgeState
        | Rpc::BridgeStateServiceGetBridgeState
        | Rpc::BridgeStateServiceListBridgeStates
        | Rpc::BridgeStateServiceDeleteBridgeState
        | Rpc::BridgeStateServiceGetBridgeStats
        | Rpc::RegistryServiceRegisterNode
        | Rpc::RegistryServiceHeartbeat
        | Rpc::RegistryServiceDeregisterNode
        | Rpc::RegistryServiceGetNode
        | Rpc::RegistryServiceListNodes
        | Rpc::RegistryServiceDiscoverNodes
        | Rpc::AdminServiceGetSystemHealth
        | Rpc::AdminServiceListNamespaceSummaries
        | Rpc::AdminServiceGetIndexUsage
        | Rpc::AdminServiceGetTableScans
        | Rpc::AdminServiceListMigrations
        | Rpc::AdminServiceListTokens
        | Rpc::AdminServiceRevokeToken
        | Rpc::AdminServiceSetRetentionPolicy
        | Rpc::AdminServiceListRetentionPolicies
        | Rpc::ServerServiceGetServerInfo
        | Rpc::AdminServiceDeleteRetentionPolicy => {}
    }
}

fn set(message: &mut DynamicMessage, field: &str, value: Value) {
    message.set_field_by_name(field, value);
}

/// Only what ends badly has an error message.
fn settle_move(request: &mut DynamicMessage, rng: &mut Rng) {
    // Mostly between PROCESSING and FAILED, which goes on and on.
    let to_state = *rng.choice(&[2, 2, 2, 3, 4, 4, 4, 5]).unwrap();
    set(request, "to_state", Value::EnumNumber(to_state));
    if to_state < 4 {
        request.clear_field_by_name("error_message");
    }
    // Else hardly any is made.
    if rng.u32(0..4) > 0 {
        request.clear_field_by_name("expected_state");
        request.clear_field_by_name("transition_id");
    }
}

/// Moves in a row, so that every state is reached.
fn settle_machine(request: &mut DynamicMessage) {
    set(request, "initial_state", Value::String("S0".into()));
    let end = Value::String("S3".into());
    set(request, "terminal_states", Value::List(vec![end]));
    let field = request.descriptor().get_field_by_name("moves").unwrap();
    let Kind::Message(kind) = field.kind() else {
        panic!("moves are messages")
    };
    let moves = (0..3).map(|state| {
        let mut step = DynamicMessage::new(kind.clone());
        set(&mut step, "from_state", Value::String(format!("S{state}")));
        set(&mut step, "transition_event", Value::String("pay".into()));
        let next = format!("S{}", state + 1);
        set(&mut step, "to_state", Value::String(next));
        Value::Message(step)
    });
    set(request, "moves", Value::List(moves.collect()));
}

/// No two heartbeats of a batch may be of one node.
fn settle_heartbeats(request: &mut DynamicMessage) {
    let heartbeats = request.get_field_by_name_mut("heartbeats").unwrap();
    let heartbeats = heartbeats.as_list_mut().into_iter().flatten();
    for (number, heartbeat) in heartbeats.enumerate() {
        let heartbeat = heartbeat.as_message_mut().unwrap();
        set(
            heartbeat,
            "node_id",
            Value::String(format!("node-{number}")),
        );
    }
}

/// An admin's token holds everywhere, and none ends before it begins.
fn settle_token(request: &mut DynamicMessage) {
    request.clear_field_by_name("expires_at");
    let role = request.get_field_by_name("role").unwrap().as_enum_number();
    if role == Some(3) {
        request.clear_field_by_name("namespaces");
    } else {
        let patterns = ["team-a", "team-*"].map(|it| Value::String(it.into()));
        set(request, "namespaces", Value::List(patterns.to_vec()));
    }
}

fn fill(kind: &MessageDescriptor, rng: &mut Rng) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for field in kind.fields() {
        let is_required = match field.name() {
            // Where there is no machine, the state to go to is required.
            "to_state" | "current_fsm_state" => true,
            // What is long costs time, and is the same again and again.
            "page_size" | "limit" => true,
            _ => REQUIRED.contains(field.full_name()),
        };
        // Of the branches of a oneof the last that is set stays.
        let is_branch = field
            .containing_oneof()
            .is_some_and(|oneof| oneof.fields().len() > 1);
        if is_required || is_branch || rng.bool() {
            message.set_field(&field, value(&field, rng));
        }
    }
    message
}

fn value(field: &FieldDescriptor, rng: &mut Rng) -> Value {
    if field.is_list() {
        let items = (0..rng.usize(1..=3)).map(|_| single(field, rng));
        return Value::List(items.collect());
    }
    single(field, rng)
}

fn single(field: &FieldDescriptor, rng: &mut Rng) -> Value {
    match field.kind() {
        Kind::String => Value::String(text(field.name(), rng)),
        Kind::Bool => Value::Bool(rng.bool()),
        Kind::Int32 => Value::I32(rng.i32(1..=3)),
        Kind::Int64 => Value::I64(rng.i64(0..=4)),
        Kind::Enum(kind) => {
            let last = i32::try_from(kind.values().len()).unwrap();
            Value::EnumNumber(rng.i32(1..last))
        }
        Kind::Message(kind) => Value::Message(match kind.full_name() {
            "google.protobuf.Struct" => document(&kind, 2, rng),
            "google.protobuf.Timestamp" => seconds(&kind, 1_700_000_000),
            "google.protobuf.Duration" => seconds(&kind, 3600),
            _ => fill(&kind, rng),
        }),
        kind => panic!("no field of the contract was a {kind:?} so far"),
    }
}

/// What a string of this name holds in all requests.
fn text(name: &str, rng: &mut Rng) -> String {
    match name {
        "namespace" | "owner" => NAMESPACE.into(),
        "page_token" => String::new(),
        "node_id" => format!("node-{}", rng.u32(0..8)),
        // These stay taken.
        "transition_id" if rng.bool() => new_id(),
        "id" => id(rng),
        name if name.ends_with("_id") => id(rng),
        "entity_type" => (*rng.choice(&["order", "parcel"]).unwrap()).into(),
        name if name.contains("state") => format!("S{}", rng.u32(0..4)),
        _ => (*rng.choice(&["pay", "process", "a.b:c/d"]).unwrap()).into(),
    }
}

/// One of the few ids, or once in a while a new one.
fn id(rng: &mut Rng) -> String {
    if rng.u32(0..8) == 0 {
        return new_id();
    }
    let number = rng.u32(1..=IDS);
    format!("00000000-0000-4000-8000-{number:012}")
}

fn seconds(kind: &MessageDescriptor, seconds: i64) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    set(&mut message, "seconds", Value::I64(seconds));
    message
}

/// A document with every kind of value, so many levels deep.
fn document(kind: &MessageDescriptor, levels: u32, rng: &mut Rng) -> DynamicMessage {
    let fields = kind.get_field_by_name("fields").unwrap();
    let Kind::Message(entry) = fields.kind() else {
        panic!("a map is made of messages")
    };
    let Kind::Message(of) = entry.map_entry_value_field().kind() else {
        panic!("its values are messages")
    };
    let names = ["number", "text", "flag", "nothing", "list", "object"];
    let names = names.iter().filter(|_| rng.bool()).collect::<Vec<_>>();
    let entries = names.into_iter().map(|name| {
        let value = json(&of, kind, name, levels, rng);
        (MapKey::String((*name).into()), Value::Message(value))
    });
    let entries = entries.collect();
    let mut document = DynamicMessage::new(kind.clone());
    document.set_field(&fields, Value::Map(entries));
    document
}

fn json(
    of: &MessageDescriptor,
    object: &MessageDescriptor,
    name: &str,
    levels: u32,
    rng: &mut Rng,
) -> DynamicMessage {
    let mut value = DynamicMessage::new(of.clone());
    match name {
        "number" => set(&mut value, "number_value", Value::F64(rng.f64())),
        "text" => set(&mut value, "string_value", Value::String("ü".into())),
        "flag" => set(&mut value, "bool_value", Value::Bool(rng.bool())),
        "object" if levels > 0 => {
            let inner = document(object, levels - 1, rng);
            set(&mut value, "struct_value", Value::Message(inner));
        }
        "list" => {
            let field = of.get_field_by_name("list_value").unwrap();
            value.set_field(&field, Value::default_value_for_field(&field));
        }
        _ => set(&mut value, "null_value", Value::EnumNumber(0)),
    }
    value
}
