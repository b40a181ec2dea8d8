//! Finding the nodes of a type that are of use: "Common Query 5", for many
//! callers in one round trip.

use std::collections::HashMap;

use diesel::{
    QueryResult,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{TryStreamExt, future::BoxFuture};

use super::{NodeSql, node_columns};
use crate::{
    db::{DbError, batch::Operation, statement::batch_statement},
    error::Result,
    namespace::Scoped,
    page::{Listed, MAX_BYTES},
    registry::model::{Discovery, Node, NodeHealth},
};

batch_statement! {
    /// Finds nodes that were heard of within their TTL, those that were heard of
    /// last first. No TTL is longer than a day, so the index is not read beyond
    /// that, however many nodes are silent.
    ///
    /// With "= ANY", and the type in the order, only the index that begins with
    /// the type has the order. With "=" PostgreSQL may walk through all nodes by
    /// last_heartbeat, in the hope of meeting those of a type soon.
    struct FindNodes<'a> {
        node_type: &'a str => Text,
        health_status: NodeHealth => Text,
        at_most: i64 => BigInt,
    }
    returns (BigInt, NodeSql);
    concat!(
        " SELECT item.ordinality, ", node_columns!(), "
            FROM item CROSS JOIN LATERAL (
                 SELECT * FROM node_registrations n
                  WHERE n.node_type = ANY (ARRAY[item.node_type])
                    AND n.health_status = item.health_status
                    AND n.last_heartbeat > now() - interval '1 day'
                    AND n.last_heartbeat > now() - n.heartbeat_ttl_ms * interval '1 millisecond'
                  ORDER BY n.node_type, n.last_heartbeat DESC, n.node_id DESC
                  LIMIT item.at_most) n"
    )
}

/// Finds nodes that are of use right now.
pub struct DiscoverNodes;

impl Operation for DiscoverNodes {
    type Item = Scoped<Discovery>;
    type Answer = Vec<Node>;
    /// By what is asked for, so that those who ask for the same meet.
    type Key = (String, i64);

    fn key(item: &Self::Item) -> (String, i64) {
        (item.node_type.clone(), item.limit)
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Vec<Node>>>, DbError>> {
        Box::pin(async move {
            let mut distinct = Vec::new();
            let mut places = HashMap::new();
            let shares = items.iter().map(|item| {
                let place = places.entry((item.node_type.as_str(), item.limit));
                *place.or_insert_with(|| {
                    distinct.push(&item.content);
                    distinct.len() - 1
                })
            });
            let shares: Vec<usize> = shares.collect();
            let found = find(connection, &distinct).await?;
            let answers = shares.into_iter().map(|share| {
                let found = found.get(share);
                Ok(found.map(|found| found.nodes.clone()).unwrap_or_default())
            });
            Ok(answers.collect())
        })
    }
}

/// What is found for one who asks.
#[derive(Default)]
struct Found {
    nodes: Vec<Node>,
    bytes: usize,
}

impl Found {
    /// Takes a node, unless the answer would be too large with it; what follows
    /// is dropped then, row by row as it comes.
    fn push(&mut self, node: Node) {
        self.bytes += node.size();
        if self.bytes <= MAX_BYTES || self.nodes.is_empty() {
            self.nodes.push(node);
        }
    }
}

async fn find(
    connection: &mut AsyncPgConnection,
    wanted: &[&Discovery],
) -> QueryResult<Vec<Found>> {
    let statement = FindNodes {
        node_type: wanted.iter().map(|item| item.node_type.as_str()).collect(),
        health_status: wanted.iter().map(|_| NodeHealth::Healthy).collect(),
        at_most: wanted.iter().map(|item| item.limit).collect(),
        ..FindNodes::default()
    };
    let rows = statement.load_stream::<(i64, Node)>(connection).await?;
    let found = wanted.iter().map(|_| Found::default()).collect();
    rows.try_fold(found, async |mut found: Vec<Found>, (ordinality, node)| {
        let place = usize::try_from(ordinality - 1).ok();
        if let Some(found) = place.and_then(|place| found.get_mut(place)) {
            found.push(node);
        }
        Ok(found)
    })
    .await
}
