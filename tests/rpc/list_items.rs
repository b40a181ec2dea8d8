//! Lists of a request: their items are counted before they are decoded.

use bridgebook::proto::Rpc;
use prost::encoding::{WireType, encode_key};
use prost_reflect::{FieldDescriptor, Kind};

use crate::support::{App, Failure, contract, failure, raw_call};

/// Returns two million items of a list, in the shortest form.
fn items(list: &FieldDescriptor) -> Vec<u8> {
    let mut message = Vec::new();
    match list.kind() {
        Kind::Message(_) | Kind::String | Kind::Bytes => {
            encode_key(list.number(), WireType::LengthDelimited, &mut message);
            message.push(0);
            message.repeat(2_000_000)
        }
        Kind::Enum(_) => {
            prost::encoding::bytes::encode(list.number(), &vec![1_u8; 2_000_000], &mut message);
            message
        }
        kind => panic!("src/rpc/codec.rs does not count the items of {list:?}: {kind:?}"),
    }
}

#[tokio::test]
async fn a_list_of_millions_of_small_items_is_refused_before_it_is_decoded() {
    let app = App::start().await;
    let mut lists = 0;
    for rpc in Rpc::ALL {
        let [request, _] = contract::messages(*rpc);
        for list in request.fields().filter(FieldDescriptor::is_list) {
            lists += 1;
            let answer = raw_call(&app.channel, contract::method(*rpc), items(&list)).await;
            let status = answer.unwrap_err();
            assert!(status.message().contains("too many items (more than 1000)"));
            let refused = failure::<()>(Err(status));
            assert_eq!(refused, Failure::invalid(&[list.name()]), "{rpc:?}");
        }
    }
    assert!(lists >= 9, "{lists} lists");
}

/// Only the lists of the request itself are counted before it is decoded.
#[test]
fn no_message_within_a_request_has_a_list() {
    let mut messages: Vec<_> = Rpc::ALL
        .iter()
        .map(|rpc| contract::messages(*rpc)[0].clone())
        .collect();
    while let Some(message) = messages.pop() {
        for field in message.fields() {
            let Kind::Message(inner) = field.kind() else {
                continue;
            };
            // JSON documents stay encoded.
            if inner.full_name() == "google.protobuf.Struct" {
                continue;
            }
            let has_list = inner.fields().any(|it| it.is_list() || it.is_map());
            assert!(
                !has_list,
                "{} in {}",
                inner.full_name(),
                message.full_name()
            );
            messages.push(inner);
        }
    }
}
