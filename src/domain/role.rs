//! Roles of tokens.

use super::text_enum::text_enum;

text_enum! {
    /// What a token may do. Each role includes the ones before it.
    #[derive(PartialOrd, Ord)]
    pub enum Role {
        /// Reads in the token's namespaces, and discovers nodes.
        Reader = "READER",
        /// Writes in the token's namespaces, and registers nodes for them.
        Writer = "WRITER",
        /// Calls AdminService, and every other RPC in all namespaces.
        Admin = "ADMIN",
    }
}
