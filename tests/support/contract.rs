//! The contract as its descriptors describe it.

use std::{collections::BTreeSet, sync::LazyLock};

use bridgebook::{
    domain::role::Role,
    proto::{self, Rpc},
};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).unwrap());

/// Returns the method of an RPC as [`super::raw_call`] takes it.
pub fn method(rpc: Rpc) -> &'static str {
    rpc.path().trim_start_matches('/')
}

/// Returns the request message and the response message of an RPC.
pub fn messages(rpc: Rpc) -> [MessageDescriptor; 2] {
    let (service, name) = method(rpc).split_once('/').unwrap();
    let service = POOL.get_service_by_name(service).unwrap();
    let mut methods = service.methods();
    let method = methods.find(|method| method.name() == name).unwrap();
    [method.input(), method.output()]
}

pub fn has_field(rpc: Rpc, name: &str) -> bool {
    let [input, _] = messages(rpc);
    input.get_field_by_name(name).is_some()
}

/// Returns the RPCs that act on the namespace of their caller.
pub fn tenant_rpcs() -> impl Iterator<Item = Rpc> {
    let all = Rpc::ALL.iter().copied();
    all.filter(|rpc| rpc.role() < Role::Admin && has_field(*rpc, "namespace"))
}

/// Encodes a request that is given as JSON.
pub fn encode(rpc: Rpc, request: &Value) -> Vec<u8> {
    let [input, _] = messages(rpc);
    let message = DynamicMessage::deserialize(input, without_nulls(request));
    let message = message.unwrap_or_else(|error| panic!("{rpc:?}: {error}: {request}"));
    message.encode_to_vec()
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(name, value)| (name.clone(), without_nulls(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Decodes the response of an RPC.
pub fn decode(rpc: Rpc, response: &[u8]) -> DynamicMessage {
    let [_, output] = messages(rpc);
    DynamicMessage::decode(output, response).unwrap()
}

/// Returns the paths of the request's fields that name rows, pages, positions and entity types.
pub fn id_paths(rpc: Rpc) -> BTreeSet<String> {
    let [input, _] = messages(rpc);
    let mut paths = BTreeSet::new();
    collect_id_paths(&input, "", &mut paths);
    paths
}

fn collect_id_paths(message: &MessageDescriptor, within: &str, paths: &mut BTreeSet<String>) {
    let named = [
        "page_token",
        "entity_type",
        "consumed_through",
        "consumed_from",
    ];
    for field in message.fields() {
        let name = field.name();
        let path = format!("{within}{name}");
        let is_id = name == "id" || name.ends_with("_id");
        match field.kind() {
            Kind::String if is_id || named.contains(&name) => {
                paths.insert(path);
            }
            Kind::Message(inner) if inner.package_name() == "bridgebook.v1" => {
                collect_id_paths(&inner, &format!("{path}."), paths);
            }
            _ => {}
        }
    }
}

/// Returns the names of the request's fields and oneofs that an empty request lacks: those
/// whose comment begins with "Required".
pub fn required(rpc: Rpc) -> BTreeSet<String> {
    let [input, _] = messages(rpc);
    let fields = input.fields().filter(is_required);
    let mut required: BTreeSet<_> = fields.map(|field| field.name().to_owned()).collect();
    for oneof in input.oneofs() {
        let comment = comment(&input, oneof.path());
        if comment.trim_start().starts_with("Required") {
            required.insert(oneof.name().to_owned());
        }
    }
    required
}

/// Returns whether the comment of a field begins with "Required". For some fields the
/// sentence goes on with an exception.
pub fn is_required(field: &FieldDescriptor) -> bool {
    let comment = comment(field.parent_message(), field.path());
    comment.trim_start().starts_with("Required")
}

fn comment(message: &MessageDescriptor, path: &[i32]) -> String {
    let file = message.parent_file();
    let locations = &file.file_descriptor_proto().source_code_info;
    let mut locations = locations.iter().flat_map(|info| &info.location);
    let location = locations.find(|location| location.path == path);
    location
        .map(|location| location.leading_comments().to_owned())
        .unwrap_or_default()
}
