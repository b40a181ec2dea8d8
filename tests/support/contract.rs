//! What the contract has, by its descriptors.

use std::collections::BTreeSet;

use bridgebook::{
    domain::role::Role,
    proto::{self, Rpc},
};
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_types::FileDescriptorSet;

/// The methods of all our services: `bridgebook.v1.WorkflowService/GetWorkflow`.
pub fn methods() -> Vec<String> {
    let descriptors = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    let files = descriptors
        .file
        .iter()
        .filter(|file| file.package() == "bridgebook.v1");
    let services = files.flat_map(|file| &file.service);
    services
        .flat_map(|service| {
            let name = service.name();
            service
                .method
                .iter()
                .map(move |method| format!("bridgebook.v1.{name}/{}", method.name()))
        })
        .collect()
}

/// Whether an RPC acts for a tenant: its request names a namespace, and it is not the
/// operator's.
pub fn is_tenant_call(rpc: Rpc) -> bool {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    let (service, method) = rpc.path()[1..].split_once('/').unwrap();
    let service = pool.get_service_by_name(service).unwrap();
    let method = service.methods().find(|it| it.name() == method).unwrap();
    let has_namespace = method.input().get_field_by_name("namespace").is_some();
    has_namespace && rpc.role() != Role::Admin
}

/// Fails unless these are all the RPCs of a service.
pub fn assert_complete<'a>(service: &str, rpcs: impl Iterator<Item = &'a str>) {
    let prefix = format!("bridgebook.v1.{service}/");
    let methods = methods();
    let expected = methods
        .iter()
        .filter_map(|method| method.strip_prefix(&prefix));
    let expected: BTreeSet<_> = expected.collect();
    assert_eq!(
        rpcs.collect::<BTreeSet<_>>(),
        expected,
        "every RPC has its case"
    );
}
