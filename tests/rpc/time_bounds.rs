//! The exclusive upper bounds of filters.

use bridgebook::proto::Rpc;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};
use serde_json::json;

use crate::{
    samples::{Rows, call, sample},
    support::{App, contract},
};

/// A time that a filter compares, in seconds and nanoseconds.
type Time = (i64, i32);

/// Returns the filters of an RPC that are exclusive upper bounds, and the field of a row that
/// each compares.
fn upper_bounds(rpc: Rpc) -> Vec<(FieldDescriptor, String)> {
    let [input, _] = contract::messages(rpc);
    let fields = input.fields().filter_map(|field| {
        let what = field.name().strip_suffix("_before")?;
        let compared = match what {
            "active" => "last_aggregation_timestamp".to_owned(),
            "state_since" => what.to_owned(),
            _ => format!("{what}_at"),
        };
        Some((field, compared))
    });
    fields.collect()
}

/// Collects the values of a field of the rows of a response, at any depth.
fn times(message: &DynamicMessage, field: &str, found: &mut Vec<Time>) {
    for (descriptor, value) in message.fields() {
        match value {
            Value::Message(time) if descriptor.name() == field => {
                let part = |name| time.get_field_by_name(name).unwrap().into_owned();
                let seconds = part("seconds").as_i64().unwrap();
                found.push((seconds, part("nanos").as_i32().unwrap()));
            }
            Value::Message(inner) => times(inner, field, found),
            Value::List(items) => {
                let items = items.iter().filter_map(Value::as_message);
                items.for_each(|item| times(item, field, found));
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn an_upper_bound_between_two_microseconds_includes_the_first_one() {
    let app = App::start().await;
    let rows = Rows::make(&app, "tenant", None).await;
    let mut walked = 0;
    for rpc in Rpc::ALL.iter().copied() {
        for (filter, field) in upper_bounds(rpc) {
            walked += 1;
            let found = async |bound: Option<Time>| {
                let mut request = rows.fill(&sample(rpc).request(0));
                if let Some((seconds, nanos)) = bound {
                    let time = chrono::DateTime::from_timestamp(seconds, nanos as u32).unwrap();
                    request[filter.name()] = json!(time.to_rfc3339());
                }
                let mut found = Vec::new();
                let answer = call(&app, rpc, None, &request).await.unwrap();
                times(&answer, &field, &mut found);
                found
            };
            let all = found(None).await;
            let (seconds, nanos) = *all.iter().max().expect("rows");
            assert_eq!(nanos % 1_000, 0, "times have whole microseconds");
            let included = found(Some((seconds, nanos + 1))).await;
            assert_eq!(included, all, "{rpc:?} {}", filter.name());
            let excluded = found(Some((seconds, nanos))).await;
            assert!(excluded.len() < all.len(), "{rpc:?} {}", filter.name());
        }
    }
    assert_eq!(walked, 5, "the lists of the contract with an upper bound");
}
