//! Compiles `proto/` into Rust, without a protoc on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

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

    tonic_prost_build::configure()
        // A Struct that keeps what is wrong with it, see src/json.rs.
        .extern_path(".google.protobuf.Struct", "crate::json::Struct")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Malformed bytes are the caller's fault, see src/codec.rs.
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
