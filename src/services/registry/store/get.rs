//! Reading nodes by name, for many callers in one round trip.

use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::{NodeSql, no_node, node_columns};
use crate::{
    db::{
        DbError,
        batch::{
            Operation,
            statement::{batch_statement, place},
        },
    },
    domain::{error::Result, namespace::Scoped},
    services::registry::model::{Node, NodeQuery},
};

batch_statement! {
    /// Reads nodes, whoever they belong to.
    struct ReadNodes<'a> {
        node_id: &'a str => Text,
    }
    returns (BigInt, NodeSql);
    concat!(
        " SELECT item.ordinality, ", node_columns!(), "
            FROM item CROSS JOIN LATERAL (
                 SELECT * FROM node_registrations n WHERE n.node_id = item.node_id LIMIT 1) n"
    )
}

/// Reads nodes.
pub struct GetNodes;

impl Operation for GetNodes {
    const NAME: &'static str = "GetNodes";

    type Item = Scoped<NodeQuery>;
    type Answer = Node;
    type Key = uuid::Uuid;

    fn key(item: &Self::Item) -> uuid::Uuid {
        item.node_id.entity_id()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Node>>, DbError>> {
        Box::pin(async move {
            let statement = ReadNodes {
                node_id: items.iter().map(|item| item.node_id.as_str()).collect(),
                ..ReadNodes::default()
            };
            let rows: Vec<(i64, Node)> = statement.load(connection).await?;
            let answers = items.iter().map(|item| Err(no_node(&item.node_id)));
            let mut answers: Vec<_> = answers.collect();
            for (ordinality, node) in rows {
                if let Some(answer) = answers.get_mut(place(ordinality)) {
                    *answer = Ok(node);
                }
            }
            Ok(answers)
        })
    }
}
