//! The SQL of nodes. All tenants share the registry, and reads return the nodes of all of
//! them. Every statement that changes a node names its owner, except those of the sweeper,
//! which acts for the service itself.

mod deregister;
mod discover;
mod get;
mod heartbeat;
mod list;
mod register;
mod stale;

use diesel::{Selectable, dsl::SqlTypeOf, pg::Pg};

pub use deregister::DeregisterNodes;
pub use discover::DiscoverNodes;
pub use get::GetNodes;
pub use heartbeat::TouchNodes;
pub use register::RegisterNodes;
pub use stale::{CountPausedFleets, MarkStale, StaleNodes};

use super::model::{Node, NodeId};
use crate::domain::error::{Error, Resource};

/// The columns of [`Node`], in order, of the table alias `n`.
macro_rules! node_columns {
    () => {
        "n.node_id, n.owner, n.node_type, n.node_version, n.capabilities, n.endpoints, n.metadata, \
         n.health_status, n.heartbeat_ttl_ms, n.last_heartbeat, n.registered_at, n.created_at, \
         n.updated_at"
    };
}

use node_columns;

type NodeSql = SqlTypeOf<<Node as Selectable<Pg>>::SelectExpression>;

fn no_node(id: &NodeId) -> Error {
    Error::NotFound {
        resource: Resource::Node,
        field: "node_id",
        name: id.as_str().to_owned(),
        namespace: None,
    }
}
