//! AdminService: the dashboard, tokens (api_tokens) and retention policies (retention_policies)
//! for operators. It reads the tables of all tenants.

mod convert;
pub mod model;
pub mod service;
mod store;
