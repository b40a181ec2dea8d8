//! The edge: calls, connections, limits, and the rules that hold for every RPC.

mod calls;
mod completeness;
mod errors;
mod field_paths;
mod floods;
mod foreign_ids;
mod health;
mod health_rate;
mod health_shares;
mod incomplete_headers;
mod isolation;
mod limits;
mod list_items;
mod mutations;
mod mute;
mod page_tokens;
mod protocol;
mod quota_of_heartbeats;
mod quotas;
mod reflection;
mod refused_calls;
mod response_size;
mod time_bounds;
mod unauthenticated;
mod unread_responses;
