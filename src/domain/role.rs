//! Roles of tokens.

use super::text_enum::text_enum;

text_enum! {
    /// What a token may do; each may do what those before it may.
    #[derive(PartialOrd, Ord)]
    pub enum Role {
        /// Read what is in its namespaces, and discover nodes.
        Reader = "READER",
        /// Write in its namespaces, and register nodes for them.
        Writer = "WRITER",
        /// Use AdminService, and whatever else in all namespaces.
        Admin = "ADMIN",
    }
}
