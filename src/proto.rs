//! The contract of `proto/`, compiled by `build.rs`.

/// Package `bridgebook.v1`.
#[expect(clippy::all, reason = "generated; the documentation is in proto/")]
pub mod v1 {
    tonic::include_proto!("bridgebook.v1");
}

/// The encoded `FileDescriptorSet` of the contract, with its comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

include!(concat!(env!("OUT_DIR"), "/rpc.rs"));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Rpc;

    #[test]
    fn every_rpc_is_found_by_its_path_and_by_no_other() {
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
}
