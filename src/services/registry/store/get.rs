//! Reading nodes by name.

use diesel::{
    QueryResult,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{NodeSql, no_node, node_columns};
use crate::{
    db::{
        batch::{
            lookup::{Found, Lookup, LookupOperation},
            statement::batch_statement,
        },
        planner::lookup,
    },
    domain::{error::Result, namespace::Scoped, page::PageRow},
    services::registry::model::{Node, NodeQuery},
};

batch_statement! {
    /// Reads nodes of all owners.
    struct ReadNodes<'a> {
        node_id: &'a str => Text,
    }
    returns (BigInt, NodeSql);
    concat!(
        " SELECT item.ordinality, ", node_columns!(), "
            FROM item", lookup!("node_registrations", "n", "n.node_id = item.node_id")
    )
}

/// Reads nodes.
pub type GetNodes = LookupOperation<NodeLookup>;

/// The implementation of [`GetNodes`].
pub struct NodeLookup;

impl Lookup for NodeLookup {
    const NAME: &'static str = "GetNodes";
    type Query = NodeQuery;
    type Key<'a> = &'a str;
    type Row = Node;

    fn key(request: &Scoped<NodeQuery>) -> &str {
        request.node_id.as_str()
    }

    fn if_missing(request: &Scoped<NodeQuery>) -> Result<Node> {
        Err(no_node(&request.node_id))
    }

    fn size(node: &Node) -> usize {
        node.size()
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Scoped<NodeQuery>],
    ) -> QueryResult<Found<Node>> {
        let statement = ReadNodes {
            node_id: requests.iter().map(|it| it.node_id.as_str()).collect(),
        };
        let rows = statement.load_stream(connection).await?;
        Found::collect(rows, Self::size).await
    }
}
