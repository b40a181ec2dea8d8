//! Finding the nodes of a type that are of use: "Common Query 5", for many
//! callers in one round trip.

use std::{collections::HashMap, sync::Arc};

use diesel::{
    QueryResult,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{TryStreamExt, future::BoxFuture};

use super::{NodeSql, node_columns};
use crate::{
    db::{
        DbError,
        batch::{
            Operation,
            statement::{batch_statement, place},
        },
    },
    domain::{
        error::Result,
        namespace::Scoped,
        page::{MAX_BYTES, PageRow},
    },
    services::registry::model::{Discovered, Discovery, Node, NodeHealth},
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
    const NAME: &'static str = "DiscoverNodes";

    type Item = Scoped<Discovery>;
    type Answer = Arc<Discovered>;
    /// By what is asked for, so that those who ask for the same meet.
    type Key = (String, i64);

    fn key(item: &Self::Item) -> (String, i64) {
        (item.node_type.clone(), item.limit)
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Self::Answer>>, DbError>> {
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
            let found: Vec<_> = found.into_iter().map(Found::into_answer).collect();
            let answers = shares.into_iter();
            let answers = answers.map(|share| Ok(found.get(share).cloned().unwrap_or_default()));
            Ok(answers.collect())
        })
    }
}

/// What is found for one who asks.
struct Found {
    answer: Discovered,
    bytes: usize,
    at_most: usize,
}

impl Found {
    fn new(discovery: &Discovery) -> Self {
        Found {
            answer: Discovered::default(),
            bytes: 0,
            at_most: usize::try_from(discovery.limit).unwrap_or_default(),
        }
    }

    /// Takes a node, unless there would be too many with it, or too much; what
    /// follows is dropped then, row by row as it comes.
    fn push(&mut self, node: Node) {
        self.bytes += node.size();
        let nodes = &mut self.answer.nodes;
        match nodes.len() < self.at_most && (self.bytes <= MAX_BYTES || nodes.is_empty()) {
            true => nodes.push(node),
            false => self.answer.has_more = true,
        }
    }

    fn into_answer(self) -> Arc<Discovered> {
        Arc::new(self.answer)
    }
}

async fn find(
    connection: &mut AsyncPgConnection,
    wanted: &[&Discovery],
) -> QueryResult<Vec<Found>> {
    let statement = FindNodes {
        node_type: wanted.iter().map(|item| item.node_type.as_str()).collect(),
        health_status: wanted.iter().map(|_| NodeHealth::Healthy).collect(),
        // One more, to tell whether there are more.
        at_most: wanted.iter().map(|item| item.limit + 1).collect(),
        ..FindNodes::default()
    };
    let rows = statement.load_stream::<(i64, Node)>(connection).await?;
    let found = wanted.iter().map(|item| Found::new(item)).collect();
    rows.try_fold(found, async |mut found: Vec<Found>, (ordinality, node)| {
        if let Some(found) = found.get_mut(place(ordinality)) {
            found.push(node);
        }
        Ok(found)
    })
    .await
}
