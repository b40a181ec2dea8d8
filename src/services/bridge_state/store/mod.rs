//! The SQL of bridges. Every statement names the namespace of every row that it touches.

mod change;
mod delete;
mod read;

use diesel::{Selectable, dsl::SqlTypeOf, pg::Pg};

pub use change::ChangeBridges;
pub use delete::DeleteBridges;
pub use read::GetBridges;

use super::model::Bridge;
use crate::domain::{
    error::{Error, Resource},
    id::BridgeId,
    namespace::Namespace,
};

/// The columns of [`Bridge`], in order, of the table alias `b`.
macro_rules! bridge_columns {
    () => {
        "b.bridge_id, b.namespace, b.total_workflows_processed, b.total_items_aggregated, \
         b.aggregation_metadata, b.current_fsm_state, b.last_aggregation_timestamp, \
         b.created_at, b.updated_at, b.revision, b.request_digest, b.consumed_xid, b.consumed_seq, \
         b.consumed_transition_id, b.consumed_digest"
    };
}

use bridge_columns;

type BridgeSql = SqlTypeOf<<Bridge as Selectable<Pg>>::SelectExpression>;

fn no_bridge(namespace: &Namespace, id: BridgeId) -> Error {
    Error::NotFound {
        resource: Resource::Bridge,
        field: "bridge_id",
        name: id.to_string(),
        namespace: Some(namespace.clone()),
    }
}
