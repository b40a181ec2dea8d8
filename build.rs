//! Compiles `proto/` into Rust, without a protoc on the machine.

use std::{
    env,
    error::Error,
    fmt::{self, Write},
    fs,
    path::PathBuf,
};

use prost::Message;
use prost_types::{FileDescriptorSet, ServiceDescriptorProto};

/// The package of the contract; what else is in the descriptors is Google's.
const PACKAGE: &str = "bridgebook.v1";

const FILES: &[&str] = &[
    "bridgebook/v1/workflow_service.proto",
    "bridgebook/v1/fsm_service.proto",
    "bridgebook/v1/bridge_state_service.proto",
    "bridgebook/v1/registry_service.proto",
    "bridgebook/v1/admin_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=migrations");

    let mut compiler = protox::Compiler::new(["proto"])?;
    let descriptors = compiler
        // Reflection hands the comments out: they are the documentation.
        .include_source_info(true)
        .include_imports(true)
        .open_files(FILES)?
        .file_descriptor_set();

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    fs::write(out.join("rpc.rs"), rpc_enum(&descriptors)?)?;

    tonic_prost_build::configure()
        // A Struct that keeps what is wrong with it, see src/json.rs.
        .extern_path(".google.protobuf.Struct", "crate::json::Struct")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Malformed bytes are the caller's fault, see src/codec.rs.
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}

/// The source of `proto::Rpc`: an enum over all RPCs, so that a `match` that
/// forgets one does not compile.
fn rpc_enum(descriptors: &FileDescriptorSet) -> Result<String, fmt::Error> {
    let ours = descriptors
        .file
        .iter()
        .filter(|file| file.package() == PACKAGE);
    let services: Vec<_> = ours.flat_map(|file| &file.service).collect();
    let (mut variants, mut all, mut paths, mut parses) = Default::default();
    for service in services {
        write_methods(service, [&mut variants, &mut all, &mut paths, &mut parses])?;
    }
    Ok(format!(
        "/// An RPC of the contract; the variants are named by service and method.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rpc {{ {variants} }}

        impl Rpc {{
            /// All RPCs, in the order of the contract.
            pub const ALL: &'static [Self] = &[ {all} ];

            /// The path under which it is called: `/{PACKAGE}.Service/Method`.
            #[must_use]
            pub const fn path(self) -> &'static str {{
                match self {{ {paths} }}
            }}

            /// The RPC that is called under a path. Cheap enough for every call.
            #[must_use]
            pub fn from_path(path: &str) -> Option<Self> {{
                let (service, method) = path.strip_prefix(\"/{PACKAGE}.\")?.split_once('/')?;
                match service {{ {parses} _ => None }}
            }}
        }}\n"
    ))
}

/// Writes one service's part of each list of [`rpc_enum`].
fn write_methods(
    service: &ServiceDescriptorProto,
    [variants, all, paths, parses]: [&mut String; 4],
) -> fmt::Result {
    let name = service.name();
    write!(parses, "{name:?} => match method {{")?;
    for method in &service.method {
        let method = method.name();
        write!(
            variants,
            "/// `{PACKAGE}.{name}/{method}`.\n{name}{method},"
        )?;
        write!(all, "Self::{name}{method},")?;
        write!(
            paths,
            "Self::{name}{method} => \"/{PACKAGE}.{name}/{method}\","
        )?;
        write!(parses, "{method:?} => Some(Self::{name}{method}),")?;
    }
    write!(parses, "_ => None }},")
}
