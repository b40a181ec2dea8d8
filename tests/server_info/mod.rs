//! ServerService, a file per RPC.

mod get_server_info;
