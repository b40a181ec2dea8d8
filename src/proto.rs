//! The contract of `proto/`, compiled by `build.rs`.

/// Package `bridgebook.v1`.
#[expect(clippy::all, reason = "generated; the documentation is in proto/")]
pub mod v1 {
    tonic::include_proto!("bridgebook.v1");
}

/// The encoded `FileDescriptorSet` of the contract, with its comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
