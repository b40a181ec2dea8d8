//! The size of responses: the largest one of every RPC is under the limit of clients, and
//! says what it leaves out.

mod requests;

use std::collections::BTreeSet;

use bridgebook::{domain::limits::MAX_RESPONSE, proto::Rpc};
use diesel_async::SimpleAsyncConnection;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value};

use crate::support::{App, contract, raw_call};

/// The messages with documents that are left out of responses.
const DOCUMENT: &str = "google.protobuf.Struct";

/// The client has the default limits of tonic, so it rejects a response of more than 4 MiB.
#[tokio::test]
async fn the_largest_response_of_every_rpc_is_accepted_and_names_what_it_omits() {
    let app = App::start().await;
    let mut database = app.schema.connect().await;
    let rows = include_str!("rows.sql");
    database.batch_execute(rows).await.unwrap();
    let mut omitting = BTreeSet::new();
    for rpc in Rpc::ALL {
        let request = requests::largest(&app, *rpc).await;
        let request = contract::encode(*rpc, &request);
        let response = raw_call(&app.channel, contract::method(*rpc), request).await;
        let response = response.unwrap_or_else(|status| panic!("{rpc:?}: {status:?}"));
        let length = response.len();
        assert!(length <= MAX_RESPONSE, "{rpc:?}: {length} bytes");
        if omissions(&contract::decode(*rpc, &response), rpc) > 0 {
            omitting.insert(format!("{rpc:?}"));
        }
    }
    let of_this_test = requests::OMITTING.map(|rpc| format!("{rpc:?}"));
    assert_eq!(omitting, BTreeSet::from(of_this_test));
}

/// Returns the number of omitted fields. Fails if a document is missing and not named, or
/// named and not missing.
fn omissions(message: &DynamicMessage, rpc: &Rpc) -> usize {
    let mut count = 0;
    if let Some(named) = message.get_field_by_name("omitted_fields") {
        let named: Vec<_> = named.as_list().unwrap().iter().collect();
        let named: BTreeSet<_> = named.iter().filter_map(|name| name.as_str()).collect();
        for field in documents(&message.descriptor()) {
            let is_named = named.contains(field.as_str());
            let is_missing = !message.has_field_by_name(&field);
            assert_eq!(is_missing, is_named, "{rpc:?}: {field} of {message}");
        }
        count += named.len();
    }
    for (_, value) in message.fields() {
        let inner: Vec<&Value> = match value {
            Value::List(values) => values.iter().collect(),
            value => vec![value],
        };
        let inner = inner.into_iter().filter_map(Value::as_message);
        let inner = inner.filter(|it| it.descriptor().package_name() == "bridgebook.v1");
        count += inner.map(|it| omissions(it, rpc)).sum::<usize>();
    }
    count
}

/// Returns the names of the fields with documents.
fn documents(message: &MessageDescriptor) -> Vec<String> {
    let fields = message.fields().filter(|field| match field.kind() {
        Kind::Message(kind) => kind.full_name() == DOCUMENT,
        _ => false,
    });
    fields.map(|field| field.name().to_owned()).collect()
}

/// `Parts` finds documents by this field.
#[test]
fn every_message_of_a_response_with_a_document_has_omitted_fields() {
    for rpc in Rpc::ALL {
        let [_, response] = contract::messages(*rpc);
        let mut open = vec![response];
        let mut seen = BTreeSet::new();
        while let Some(message) = open.pop() {
            let has_field = message.get_field_by_name("omitted_fields").is_some();
            let has_documents = !documents(&message).is_empty();
            assert_eq!(has_field, has_documents, "{}", message.full_name());
            let kinds = message.fields().map(|field| field.kind());
            let inner = kinds.filter_map(|kind| kind.as_message().cloned());
            let ours = inner.filter(|it| it.package_name() == "bridgebook.v1");
            open.extend(ours.filter(|it| seen.insert(it.full_name().to_owned())));
        }
    }
}
