//! The contract in `proto/`, compiled by `build.rs`.

mod watched_transitions;

use crate::domain::json::Struct;

/// Package `bridgebook.v1`.
#[expect(clippy::all, reason = "generated; the documentation is in proto/")]
pub mod v1 {
    pub use crate::proto::watched_transitions::WatchedTransitions;

    tonic::include_proto!("bridgebook.v1");
}

/// The encoded `FileDescriptorSet` of the contract, with its comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

include!(concat!(env!("OUT_DIR"), "/rpc.rs"));

/// A request with a field `namespace`.
pub trait TenantRequest {
    /// Returns the field `namespace`.
    fn namespace(&self) -> &str;

    /// Returns the field `correlation_id`, if the request has one, for the log.
    fn correlation_id(&self) -> Option<&str> {
        None
    }

    /// Returns the number of items of a batch; 1 for any other request.
    fn item_count(&self) -> usize {
        1
    }
}

/// A request for a page of a list, with the fields `page_size` and `page_token`.
pub trait PagedRequest: prost::Message {
    /// The name of the RPC, to which page tokens are bound.
    const RPC: &'static str;

    /// Takes `page_size` and `page_token` out of the request.
    fn take_page(&mut self) -> (i32, String);
}

include!(concat!(env!("OUT_DIR"), "/requests.rs"));

/// A part of a response that can be left out or shortened.
#[derive(Debug)]
pub enum Part<'a> {
    /// A JSON document of a row.
    Document {
        /// The name of the field.
        name: &'static str,
        /// The field.
        value: &'a mut Option<Struct>,
        /// The `omitted_fields` of the row.
        omitted: &'a mut Vec<String>,
    },
    /// A long text of a row.
    Text {
        /// The name of the field.
        name: &'static str,
        /// The field.
        value: &'a mut Option<String>,
        /// The `omitted_fields` of the row.
        omitted: &'a mut Vec<String>,
    },
    /// The error of an item of a batch.
    Error(&'a mut tonic_types::Status),
}

/// A field of a request that is a list.
#[derive(Debug)]
pub struct List {
    /// The number of the field.
    pub number: u32,
    /// The name of the field.
    pub name: &'static str,
    /// Whether a message may have several items in one record, each of which is a varint.
    pub is_packable: bool,
}

/// A message of the contract, with the parts that a response can do without: those of the
/// messages with `omitted_fields`, and the errors of batches.
pub trait Parts: prost::Message {
    /// Whether the message is the response of an RPC.
    const IS_RESPONSE: bool;

    /// The lists of a request whose items are messages, texts or enums.
    const LISTS: &'static [List] = &[];

    /// Visits the parts in the order of their fields.
    fn visit_parts(&mut self, _visit: &mut dyn FnMut(Part<'_>)) {}
}

include!(concat!(env!("OUT_DIR"), "/parts.rs"));

/// The methods of Google's services that the server offers, with their type.
const INFRASTRUCTURE: &[(&str, &str)] = &[
    ("unary", "/grpc.health.v1.Health/Check"),
    ("server_stream", "/grpc.health.v1.Health/Watch"),
    (
        "bidi_stream",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ),
    (
        "bidi_stream",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ),
];

/// A method, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// `unary`, `server_stream` or `bidi_stream`.
    pub kind: &'static str,
    /// The service, with its package.
    pub service: &'static str,
    /// The method alone.
    pub name: &'static str,
}

impl Method {
    /// Returns the method under a path. All unknown paths share one name, because callers
    /// can invent any number of them.
    #[must_use]
    pub fn from_path(path: &str) -> Self {
        let ours = Rpc::from_path(path).map(|rpc| match rpc.is_stream() {
            true => ("server_stream", rpc.path()),
            false => ("unary", rpc.path()),
        });
        let infrastructure = || INFRASTRUCTURE.iter().find(|(_, it)| *it == path).copied();
        ours.or_else(infrastructure)
            .and_then(|(kind, path)| Method::new(kind, path))
            .unwrap_or(Method {
                kind: "unary",
                service: "unknown",
                name: "unknown",
            })
    }

    fn new(kind: &'static str, path: &'static str) -> Option<Self> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        Some(Method {
            kind,
            service,
            name,
        })
    }

    /// Returns whether the method is answered by a stream, which may have no end.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self.kind != "unary"
    }

    /// Returns whether the method is one of health.
    #[must_use]
    pub fn is_health(self) -> bool {
        self.service == "grpc.health.v1.Health"
    }

    pub(crate) fn labels(&self) -> [&'static str; 3] {
        [self.kind, self.service, self.name]
    }
}

/// Returns whether a path is one of health or reflection. They expose no tenant data, need no
/// credential, and are answered under any load.
#[must_use]
pub fn is_infrastructure_rpc(path: &str) -> bool {
    INFRASTRUCTURE.iter().any(|(_, it)| *it == path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Method, Rpc};

    #[test]
    fn an_rpc_is_found_by_its_own_path_only() {
        for rpc in Rpc::ALL {
            let path = rpc.path();
            assert_eq!(Rpc::from_path(path), Some(*rpc));
            assert_eq!(Rpc::from_path(path.trim_start_matches('/')), None);
            assert_eq!(Rpc::from_path(&format!("{path}/")), None);
            assert_eq!(Rpc::from_path(&path.to_lowercase()), None);
        }
        let paths: BTreeSet<_> = Rpc::ALL.iter().map(|rpc| rpc.path()).collect();
        assert_eq!(paths.len(), Rpc::ALL.len());
        for path in ["", "/", "/bridgebook.v1.AdminService/StartWorkflow"] {
            assert_eq!(Rpc::from_path(path), None);
        }
    }

    #[test]
    fn unknown_paths_share_one_name() {
        let ours = Method::from_path("/bridgebook.v1.WorkflowService/StartWorkflow");
        assert_eq!(
            ours.labels(),
            ["unary", "bridgebook.v1.WorkflowService", "StartWorkflow"]
        );
        let watch = Method::from_path("/grpc.health.v1.Health/Watch");
        assert!(watch.is_stream() && !ours.is_stream());
        for path in ["", "/", "/a/b", "/bridgebook.v1.WorkflowService/Start"] {
            assert_eq!(Method::from_path(path).service, "unknown", "{path}");
        }
    }
}
