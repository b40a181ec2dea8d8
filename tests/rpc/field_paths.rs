//! The paths of violations. Each request has one field that is missing or has a bad value. Its
//! violations have to name fields that the request's descriptor has.

use std::collections::BTreeSet;

use bridgebook::{domain::json::Struct, proto::Rpc};
use prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{FieldViolation, StatusExt};

use crate::{
    samples::{Rows, sample},
    support::{App, contract, document, raw_call},
};

/// A place in a request: fields from the outermost one inwards, with the index of an item of a
/// list.
type Place = Vec<(FieldDescriptor, Option<usize>)>;

/// The index of the item that gets bad values, between two good ones.
const INDEX: usize = 1;

/// Returns all places in a message.
fn places(message: &MessageDescriptor, within: &Place) -> Vec<Place> {
    let mut found = Vec::new();
    for field in message.fields() {
        let inner = |index| [within.as_slice(), &[(field.clone(), index)]].concat();
        found.push(inner(None));
        let index = field.is_list().then_some(INDEX);
        match field.kind() {
            Kind::Message(kind) if kind.package_name() == "bridgebook.v1" => {
                found.extend(places(&kind, &inner(index)));
            }
            _ if field.is_list() => found.push(inner(index)),
            _ => {}
        }
    }
    found
}

/// Puts a value into a place, or clears the field.
fn put(
    message: &mut DynamicMessage,
    place: &[(FieldDescriptor, Option<usize>)],
    to: Option<Value>,
) {
    let ((field, index), rest) = place.split_first().unwrap();
    let slot = match index {
        Some(index) => {
            let items = message.get_field_mut(field).as_list_mut().unwrap();
            let item = items.first().cloned();
            let item = item.unwrap_or_else(|| Value::default_value(&field.kind()));
            items.resize(items.len().max(index + 2), item);
            &mut items[*index]
        }
        None if rest.is_empty() => {
            match to {
                Some(value) => message.set_field(field, value),
                None => message.clear_field(field),
            }
            return;
        }
        None => message.get_field_mut(field),
    };
    match slot {
        Value::Message(inner) if !rest.is_empty() => put(inner, rest, to),
        slot => *slot = to.unwrap_or_else(|| Value::default_value(&field.kind())),
    }
}

/// Returns bad values for a place, `None` for an unset field.
fn bad_values(field: &FieldDescriptor, is_item: bool) -> Vec<Option<Value>> {
    let kind = field.kind();
    if field.is_list() && !is_item {
        let many = vec![Value::default_value(&kind); 1001];
        return vec![None, Some(Value::List(many))];
    }
    let values = match &kind {
        Kind::Message(kind) => messages(kind),
        Kind::Enum(_) => [0, 99].map(Value::EnumNumber).into(),
        Kind::Int32 => [-1, i32::MIN].map(Value::I32).into(),
        Kind::Int64 => [-1, i64::MAX].map(Value::I64).into(),
        Kind::String => {
            let texts = ["", "\0", "not valid!", "bridgebook.x", "workflow", "Z9"];
            let long = "a".repeat(70_000);
            texts
                .into_iter()
                .map(str::to_owned)
                .chain([long])
                .map(Value::String)
                .collect()
        }
        _ => Vec::new(),
    };
    let unset = (!is_item).then_some(None);
    unset
        .into_iter()
        .chain(values.into_iter().map(Some))
        .collect()
}

/// Returns bad messages of Google's types. Those of ours are made bad field by field.
fn messages(kind: &MessageDescriptor) -> Vec<Value> {
    let time = |seconds: i64, nanos: i32| prost_types::Timestamp { seconds, nanos }.encode_to_vec();
    let encoded = match kind.full_name() {
        // The two have the same fields.
        "google.protobuf.Timestamp" | "google.protobuf.Duration" => {
            vec![time(i64::MAX, 0), time(-1, 0), time(1, -1)]
        }
        "google.protobuf.Struct" => {
            let documents = [json!({"a": ["\0"]}), json!({"\0": 1})];
            let documents = documents.map(|it| document(it).unwrap_or_default());
            documents.iter().map(Struct::encode_to_vec).collect()
        }
        _ => return Vec::new(),
    };
    let decode = |bytes: Vec<u8>| DynamicMessage::decode(kind.clone(), bytes.as_slice()).unwrap();
    encoded
        .into_iter()
        .map(decode)
        .map(Value::Message)
        .collect()
}

/// Sends a request and returns all violations, those of a batch's items included.
async fn violations(app: &App, rpc: Rpc, request: &DynamicMessage) -> Vec<FieldViolation> {
    let bytes = request.encode_to_vec();
    let failures = match raw_call(&app.channel, contract::method(rpc), bytes).await {
        Err(status) => vec![status],
        Ok(response) => item_errors(&contract::decode(rpc, &response)),
    };
    let mut found = Vec::new();
    for status in failures {
        assert_ne!(status.code(), Code::Internal, "{rpc:?} {request}");
        let details = status.get_error_details();
        found.extend(details.bad_request().map(|it| it.field_violations.clone()));
    }
    found.into_iter().flatten().collect()
}

fn item_errors(response: &DynamicMessage) -> Vec<Status> {
    let results = response.get_field_by_name("results");
    let results = results.iter().filter_map(|it| it.as_list()).flatten();
    let errors = results.filter_map(|result| {
        let result = result.as_message()?;
        let field = result.descriptor().get_field_by_name("error")?;
        let error = result.has_field(&field).then(|| result.get_field(&field))?;
        let error = error.as_message()?.encode_to_vec();
        let status = tonic_types::Status::decode(error.as_slice()).unwrap();
        Some(Status::with_details(
            status.code.into(),
            status.message,
            error.into(),
        ))
    });
    errors.collect()
}

/// Fails unless a path leads to a field or an unset oneof of a request. Returns the path
/// without indexes.
fn resolve(path: &str, request: &DynamicMessage) -> Result<String, String> {
    let Some((first, rest)) = path.split_once('.') else {
        return resolve_step(path, request, true).map(|(name, _)| name);
    };
    let (name, inner) = resolve_step(first, request, false)?;
    let inner = inner.ok_or_else(|| format!("{name} is not a message"))?;
    Ok(format!("{name}.{}", resolve(rest, &inner)?))
}

/// Returns the name of a step of a path, and the message that it leads to.
fn resolve_step(
    step: &str,
    request: &DynamicMessage,
    is_last: bool,
) -> Result<(String, Option<DynamicMessage>), String> {
    let (name, index) = match step.split_once('[') {
        None => (step, None),
        Some((name, index)) => {
            let index = index
                .strip_suffix(']')
                .and_then(|it| it.parse::<usize>().ok());
            (
                name,
                Some(index.ok_or_else(|| format!("{step} has no valid index"))?),
            )
        }
    };
    let descriptor = request.descriptor();
    let Some(field) = descriptor.get_field_by_name(name) else {
        let mut oneofs = descriptor.oneofs().filter(|oneof| oneof.name() == name);
        let is_oneof = is_last && index.is_none() && oneofs.next().is_some();
        return match is_oneof {
            true => Ok((name.to_owned(), None)),
            false => Err(format!("{} has no field {name}", descriptor.full_name())),
        };
    };
    let value = request.get_field(&field);
    let value = match (index, field.is_list()) {
        (None, false) => Some(value.as_ref()),
        (None, true) if is_last => None,
        (None, true) => return Err(format!("{name} is a list, and the path has no index")),
        (Some(_), false) => return Err(format!("{name} is not a list")),
        (Some(index), true) => {
            let item = value.as_list().and_then(|items| items.get(index));
            Some(item.ok_or_else(|| format!("{name} has no item {index}"))?)
        }
    };
    let inner = value.and_then(|value| value.as_message().cloned());
    Ok((name.to_owned(), inner))
}

/// Returns the path of a place, without indexes.
fn name(place: &Place) -> String {
    let names = place.iter().map(|(field, _)| field.name().to_owned());
    names.collect::<Vec<_>>().join(".")
}

#[tokio::test]
async fn every_violation_names_a_field_of_its_request() {
    let app = App::start().await;
    let rows = Rows::unmade("tenant");
    for rpc in Rpc::ALL.iter().copied() {
        let [input, _] = contract::messages(rpc);
        let places = places(&input, &Vec::new());
        let mut named = BTreeSet::new();
        for bits in sample(rpc).each_variant() {
            for place in &places {
                // Another variant is for what the first one cannot show.
                if bits != 0 && named.contains(&name(place)) {
                    continue;
                }
                let (field, index) = place.last().unwrap();
                for value in bad_values(field, index.is_some()) {
                    let request = contract::encode(rpc, &rows.fill(&sample(rpc).request(bits)));
                    let mut request =
                        DynamicMessage::decode(input.clone(), request.as_slice()).unwrap();
                    put(&mut request, place, value);
                    for violation in violations(&app, rpc, &request).await {
                        let path = resolve(&violation.field, &request);
                        let path = path.unwrap_or_else(|why| {
                            panic!("{rpc:?}: {violation:?}: {why}, in {request}")
                        });
                        assert!(!violation.description.is_empty());
                        named.insert(path);
                    }
                }
            }
        }
        // A bool has no bad value.
        let places = places.iter().filter(|place| {
            let (field, _) = place.last().unwrap();
            field.kind() != Kind::Bool
        });
        let missing: BTreeSet<_> = places.map(name).filter(|it| !named.contains(it)).collect();
        assert!(
            missing.is_empty(),
            "{rpc:?}: no bad value of {missing:?} is refused"
        );
    }
}

/// Bad values in every field at once, in each item of a batch.
#[tokio::test]
async fn a_request_in_which_every_field_is_bad_names_fields_of_its_own() {
    let app = App::start().await;
    for rpc in Rpc::ALL.iter().copied() {
        let [input, _] = contract::messages(rpc);
        let mut request = DynamicMessage::new(input.clone());
        let places = places(&input, &Vec::new());
        let leaves = places.iter().filter(|place| {
            let (field, index) = place.last().unwrap();
            !bad_values(field, index.is_some()).is_empty() && (!field.is_list() || index.is_some())
        });
        for place in leaves {
            let (field, index) = place.last().unwrap();
            if let Some(Some(value)) = bad_values(field, index.is_some()).pop() {
                put(&mut request, place, Some(value));
            }
        }
        let found = violations(&app, rpc, &request).await;
        let has_fields = input.fields().any(|field| field.kind() != Kind::Bool);
        assert_eq!(found.is_empty(), !has_fields, "{rpc:?}");
        for violation in found {
            let path = resolve(&violation.field, &request);
            assert!(path.is_ok(), "{rpc:?}: {violation:?}: {path:?}");
        }
    }
}
