//! Compiles `proto/` into Rust, without a protoc on the machine. Beside the messages it
//! generates what the contract declares for every RPC and request, so that no Rust code lists
//! them by hand:
//! - `proto::Rpc`, an enum over all RPCs, with the path and the role of each;
//! - `proto::TenantRequest` for every request with a field `namespace`;
//! - `proto::PagedRequest` for every request with `page_size` and `page_token`.

use std::{
    env,
    error::Error,
    fmt::{self, Write},
    fs,
    path::PathBuf,
};

use prost::Message;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
    ServiceDescriptorProto, method_options::IdempotencyLevel,
};

/// The package of the contract; the other packages of the descriptors are Google's.
const PACKAGE: &str = "bridgebook.v1";

/// The services of the contract, in the order in which they are documented.
const FILES: &[&str] = &[
    "bridgebook/v1/workflow_service.proto",
    "bridgebook/v1/fsm_service.proto",
    "bridgebook/v1/bridge_state_service.proto",
    "bridgebook/v1/registry_service.proto",
    "bridgebook/v1/admin_service.proto",
    "bridgebook/v1/server_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=migrations");

    let mut compiler = protox::Compiler::new(["proto"])?;
    let descriptors = compiler
        // Reflection serves the comments: they are the documentation.
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("rpc.rs"), rpc_enum(&descriptors)?)?;
    fs::write(out.join("requests.rs"), request_traits(&descriptors)?)?;

    tonic_prost_build::configure()
        // A Struct that keeps its first decoding error, see src/domain/json.
        .extern_path(".google.protobuf.Struct", "crate::domain::json::Struct")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Malformed bytes are the caller's fault, see src/rpc/codec.rs.
        .codec_path("crate::rpc::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

fn our_files(descriptors: &FileDescriptorSet) -> impl Iterator<Item = &FileDescriptorProto> {
    let files = descriptors.file.iter();
    files.filter(|file| file.package() == PACKAGE)
}

/// Returns the source of `proto::Rpc`.
fn rpc_enum(descriptors: &FileDescriptorSet) -> Result<String, fmt::Error> {
    let services: Vec<_> = our_files(descriptors)
        .flat_map(|file| &file.service)
        .collect();
    let (mut variants, mut all, mut paths, mut parses, mut roles) = Default::default();
    for service in services {
        let lists = [&mut variants, &mut all, &mut paths, &mut parses, &mut roles];
        write_methods(service, lists)?;
    }
    Ok(format!(
        "/// An RPC of the contract; the variants are named by service and method.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rpc {{ {variants} }}

        impl Rpc {{
            /// All RPCs, in the order of the contract.
            pub const ALL: &'static [Self] = &[ {all} ];

            /// Returns the path under which the RPC is called: `/{PACKAGE}.Service/Method`.
            #[must_use]
            pub const fn path(self) -> &'static str {{
                match self {{ {paths} }}
            }}

            /// Returns the RPC that is called under a path. Cheap enough for every call.
            #[must_use]
            pub fn from_path(path: &str) -> Option<Self> {{
                let (service, method) = path.strip_prefix(\"/{PACKAGE}.\")?.split_once('/')?;
                match service {{ {parses} _ => None }}
            }}

            /// Returns the role that the RPC requires. In AdminService that is ADMIN;
            /// elsewhere READER for an RPC whose `idempotency_level` is NO_SIDE_EFFECTS,
            /// and WRITER for every other.
            #[must_use]
            pub const fn role(self) -> crate::domain::role::Role {{
                match self {{ {roles} }}
            }}
        }}\n"
    ))
}

/// Writes one service's part of each list of [`rpc_enum`].
fn write_methods(
    service: &ServiceDescriptorProto,
    [variants, all, paths, parses, roles]: [&mut String; 5],
) -> fmt::Result {
    let name = service.name();
    write!(parses, "{name:?} => match method {{")?;
    for method in &service.method {
        let role = role(name, method);
        let method = method.name();
        let path = format!("{PACKAGE}.{name}/{method}");
        write!(variants, "/// `{path}`.\n{name}{method},")?;
        write!(all, "Self::{name}{method},")?;
        write!(paths, "Self::{name}{method} => \"/{path}\",")?;
        write!(parses, "{method:?} => Some(Self::{name}{method}),")?;
        write!(
            roles,
            "Self::{name}{method} => crate::domain::role::Role::{role},"
        )?;
    }
    write!(parses, "_ => None }},")
}

fn role(service: &str, method: &MethodDescriptorProto) -> &'static str {
    let options = method.options.clone().unwrap_or_default();
    match (service, options.idempotency_level()) {
        ("AdminService", _) => "Admin",
        (_, IdempotencyLevel::NoSideEffects) => "Reader",
        _ => "Writer",
    }
}

/// Returns the implementations of `proto::TenantRequest` and `proto::PagedRequest`.
fn request_traits(descriptors: &FileDescriptorSet) -> Result<String, fmt::Error> {
    let mut source = String::new();
    for message in our_files(descriptors).flat_map(|file| &file.message_type) {
        let Some(rpc) = message.name().strip_suffix("Request") else {
            continue;
        };
        if has_field(message, "namespace") {
            write_tenant_request(&mut source, message)?;
        }
        if has_field(message, "page_size") && has_field(message, "page_token") {
            write_paged_request(&mut source, message, rpc)?;
        }
    }
    Ok(source)
}

fn has_field(message: &DescriptorProto, name: &str) -> bool {
    message.field.iter().any(|field| field.name() == name)
}

/// A field of a `oneof` does not count: it names a row, not the call.
fn has_plain_field(message: &DescriptorProto, name: &str) -> bool {
    let mut fields = message.field.iter();
    fields.any(|field| field.name() == name && field.oneof_index.is_none())
}

fn write_tenant_request(source: &mut String, message: &DescriptorProto) -> fmt::Result {
    let name = message.name();
    write!(
        source,
        "impl TenantRequest for v1::{name} {{ fn namespace(&self) -> &str {{ &self.namespace }}"
    )?;
    if has_plain_field(message, "correlation_id") {
        write!(
            source,
            "fn correlation_id(&self) -> Option<&str> {{ Some(&self.correlation_id) }}"
        )?;
    }
    writeln!(source, "}}")
}

fn write_paged_request(source: &mut String, message: &DescriptorProto, rpc: &str) -> fmt::Result {
    let name = message.name();
    writeln!(
        source,
        "impl PagedRequest for v1::{name} {{
            const RPC: &'static str = {rpc:?};
            fn take_page(&mut self) -> (i32, String) {{
                (std::mem::take(&mut self.page_size), std::mem::take(&mut self.page_token))
            }}
        }}"
    )
}
