//! Where a watch begins.

use crate::{
    db::feed::{Begin, Wanted, gone},
    domain::{
        error::{Error, Resource, Result},
        namespace::Namespace,
        position::Position,
    },
    services::fsm::model::WatchBegin,
};

/// Returns what a request names to begin after.
pub(super) fn named(begin: WatchBegin) -> Wanted {
    match begin {
        WatchBegin::After(position) => Wanted {
            after: Some(position),
            bridge_id: None,
        },
        WatchBegin::AfterBridge(bridge_id) => Wanted {
            after: None,
            bridge_id: Some(bridge_id),
        },
        WatchBegin::Start | WatchBegin::Now => Wanted::default(),
    }
}

/// Returns the position that a watch begins after.
pub(super) fn first_position(
    namespace: &Namespace,
    begin: WatchBegin,
    found: &Begin,
) -> Result<Position> {
    if let WatchBegin::AfterBridge(id) = begin
        && !found.has_bridge
    {
        return Err(Error::NotFound {
            resource: Resource::Bridge,
            field: "after_bridge",
            name: id.to_string(),
            namespace: Some(namespace.clone()),
        });
    }
    if !found.is_complete() {
        return Err(gone(namespace, found.floor));
    }
    Ok(match begin {
        WatchBegin::Now => found.last,
        WatchBegin::Start => found.floor,
        WatchBegin::After(_) | WatchBegin::AfterBridge(_) => found.wanted.unwrap_or(found.floor),
    })
}
