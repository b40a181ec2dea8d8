//! Valid random requests of every RPC: its sample in random variants, with random values in
//! the fields that the sample leaves open.

use bridgebook::proto::Rpc;
use fastrand::Rng;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use serde_json::Value as Json;

use crate::{
    samples::{fill, origin, position, sample},
    support::{contract, new_id},
};

/// The tenant that sends the requests.
const NAMESPACE: &str = "mutations";

/// The number of ids: few, so that requests meet.
const IDS: u32 = 12;

/// The number of names of nodes.
const NODES: u32 = 8;

/// Returns a request that is accepted, or is refused because of the rows that exist.
pub fn seed(rpc: Rpc, rng: &mut Rng) -> DynamicMessage {
    let sample = sample(rpc);
    // Each variant is chosen with a probability of 1/4.
    let bits = sample.always_valid(rng.u8(..) & rng.u8(..));
    let mut request = sample.request(bits);
    for items in request.as_object_mut().unwrap().values_mut() {
        repeat_item(items, rng);
    }
    let request = with_ids(&request, rng);
    let [input, _] = contract::messages(rpc);
    let message = contract::encode(rpc, &request);
    let mut message = DynamicMessage::decode(input, message.as_slice()).unwrap();
    fill_open(&mut message, &request, rng);
    if rpc == Rpc::WorkflowServiceStartWorkflow {
        // Without an id, a workflow would hold its correlation_id under an id that no other
        // request finds, and no request could delete it.
        let id = message.get_field_by_name("correlation_id").unwrap();
        let id = id.into_owned();
        set(&mut message, "id", id);
    }
    if rpc == Rpc::WorkflowServiceTransitionWorkflow {
        settle_move(&mut message, rng);
    }
    message
}

/// Makes most moves possible: between PROCESSING and FAILED, which has no end, and without a
/// condition or a used id. Random moves hardly ever fit the current state.
fn settle_move(request: &mut DynamicMessage, rng: &mut Rng) {
    let to_state = *rng.choice(&[2, 2, 2, 3, 4, 4, 4, 5]).unwrap();
    set(request, "to_state", Value::EnumNumber(to_state));
    if to_state < 4 {
        request.clear_field_by_name("error_message");
    }
    if rng.u32(0..4) > 0 {
        request.clear_field_by_name("expected_state");
        request.clear_field_by_name("transition_id");
    }
}

/// Repeats the item of a batch that has one item up to three times.
fn repeat_item(items: &mut Json, rng: &mut Rng) {
    if let Json::Array(items) = items
        && let [Json::Object(item)] = items.as_slice()
    {
        *items = vec![Json::Object(item.clone()); rng.usize(1..=3)];
    }
}

/// Fills in the marks. A workflow is started under one id and correlation_id, so that other
/// requests find it by both. The nodes of a batch differ, because they must.
fn with_ids(request: &Json, rng: &mut Rng) -> Json {
    let workflow = id(rng);
    let is_start = request.get("correlation_id").is_some() && request.get("id").is_some();
    let mut node = rng.u32(0..NODES);
    fill(request, &mut |mark, kind| match (mark, kind) {
        ('~', text) => text.into(),
        (_, "namespace") => NAMESPACE.into(),
        (_, "page") => String::new(),
        (_, "position") => position(NAMESPACE, id(rng).parse().unwrap()),
        (_, "origin") => origin(NAMESPACE),
        (_, "workflow" | "correlation") if is_start => workflow.clone(),
        (_, "node") => {
            node = (node + 1) % NODES;
            format!("node-{node}")
        }
        (_, "type") => (*rng.choice(&["order", "parcel"]).unwrap()).into(),
        // A used transition_id stays taken.
        (_, "transition") if rng.bool() => new_id(),
        _ => id(rng),
    })
}

/// Sets fields that the sample does not mention, and some of its documents.
fn fill_open(message: &mut DynamicMessage, sample: &Json, rng: &mut Rng) {
    for field in message.descriptor().fields() {
        let is_taken = field.containing_oneof().is_some_and(|oneof| {
            let mut fields = oneof.fields();
            fields.any(|branch| message.has_field(&branch))
        });
        match sample.get(field.name()) {
            Some(Json::Object(_)) if is_document(&field) && rng.bool() => {
                message.set_field(&field, value(&field, rng));
            }
            Some(inner @ (Json::Object(_) | Json::Array(_))) => {
                fill_inner(message.get_field_mut(&field), inner, rng);
            }
            Some(_) => {}
            None if is_taken => {}
            // Long pages cost time and are alike.
            None if matches!(field.name(), "page_size" | "limit") || rng.bool() => {
                message.set_field(&field, value(&field, rng));
            }
            None => {}
        }
    }
}

fn fill_inner(message: &mut Value, sample: &Json, rng: &mut Rng) {
    match (message, sample) {
        (Value::Message(message), sample) if is_ours(&message.descriptor()) => {
            fill_open(message, sample, rng);
        }
        (Value::List(items), Json::Array(samples)) => {
            for (item, sample) in items.iter_mut().zip(samples) {
                fill_inner(item, sample, rng);
            }
        }
        _ => {}
    }
}

fn is_ours(kind: &MessageDescriptor) -> bool {
    kind.package_name() == "bridgebook.v1"
}

fn is_document(field: &FieldDescriptor) -> bool {
    let kind = field.kind();
    let kind = kind.as_message();
    kind.is_some_and(|kind| kind.full_name() == "google.protobuf.Struct")
}

fn set(message: &mut DynamicMessage, field: &str, value: Value) {
    message.set_field_by_name(field, value);
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
            name => panic!("{}: no random value for a {name}", field.full_name()),
        }),
        kind => panic!("{}: no random value for a {kind:?}", field.full_name()),
    }
}

/// Returns a value for a string that no sample mentions.
fn text(name: &str, rng: &mut Rng) -> String {
    match name {
        "owner" => NAMESPACE.into(),
        "node_type" => "type".into(),
        name if name == "id" || name.ends_with("_id") => id(rng),
        name if name.contains("state") => format!("S{}", rng.u32(1..=3)),
        _ => (*rng.choice(&["go", "next", "a.b:c/d"]).unwrap()).into(),
    }
}

/// Returns one of the few ids, or at times a new one.
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

/// Returns a document with values of random kinds, nested `levels` deep.
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
