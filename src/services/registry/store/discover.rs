//! Discovering healthy nodes of a type ("Common Query 5").

use std::sync::Arc;

use diesel::{
    QueryResult,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;

use super::{NodeSql, node_columns};
use crate::{
    db::{
        batch::{
            lookup::{Lookup, LookupOperation},
            statement::{batch_statement, index_of},
        },
        planner::{lateral, ordered_eq},
    },
    domain::{
        error::Result,
        namespace::Scoped,
        page::{MAX_BYTES, PageRow},
    },
    services::registry::model::{Discovered, Discovery, Node, NodeHealth},
};

batch_statement! {
    /// Finds nodes with a heartbeat within their TTL, latest heartbeat first. The longest TTL is
    /// a day, which bounds the scan of the index however many nodes are stale.
    struct FindNodes<'a> {
        node_type: &'a str => Text,
        health_status: NodeHealth => Text,
        at_most: i64 => BigInt,
    }
    returns (BigInt, NodeSql);
    concat!(
        " SELECT item.ordinality, ", node_columns!(), "
            FROM item",
        lateral!("n",
            "SELECT * FROM node_registrations n
              WHERE ", ordered_eq!("n.node_type", "item.node_type"), "
                AND n.health_status = item.health_status
                AND n.last_heartbeat > now() - interval '1 day'
                AND n.last_heartbeat > now() - n.heartbeat_ttl_ms * interval '1 millisecond'
              ORDER BY n.node_type, n.last_heartbeat DESC, n.node_id DESC
              LIMIT item.at_most")
    )
}

/// Discovers nodes that are healthy and not stale.
pub type DiscoverNodes = LookupOperation<LiveNodes>;

/// See [`DiscoverNodes`].
pub struct LiveNodes;

impl Lookup for LiveNodes {
    const NAME: &'static str = "DiscoverNodes";
    type Request = Scoped<Discovery>;
    type Key<'a> = (&'a str, i64);
    type Row = Arc<Discovered>;

    fn key(request: &Scoped<Discovery>) -> Self::Key<'_> {
        (request.node_type.as_str(), request.limit)
    }

    fn if_missing(_request: &Scoped<Discovery>) -> Result<Arc<Discovered>> {
        Ok(Arc::default())
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Scoped<Discovery>],
    ) -> QueryResult<Vec<(i64, Arc<Discovered>)>> {
        let statement = FindNodes {
            node_type: requests.iter().map(|it| it.node_type.as_str()).collect(),
            health_status: requests.iter().map(|_| NodeHealth::Healthy).collect(),
            // One more, to tell whether there are more.
            at_most: requests.iter().map(|it| it.limit + 1).collect(),
        };
        let rows = statement.load_stream::<(i64, Node)>(connection).await?;
        let answers = requests.iter().map(|it| Answer::new(it)).collect();
        let answers = rows.try_fold(
            answers,
            async |mut answers: Vec<Answer>, (ordinality, node)| {
                if let Some(answer) = answers.get_mut(index_of(ordinality)) {
                    answer.push(node);
                }
                Ok(answers)
            },
        );
        let answers = answers.await?.into_iter().map(|it| Arc::new(it.discovered));
        Ok((1..).zip(answers).collect())
    }
}

/// The answer to a request, while its rows arrive.
struct Answer {
    discovered: Discovered,
    bytes: usize,
    at_most: usize,
}

impl Answer {
    fn new(discovery: &Discovery) -> Self {
        Answer {
            discovered: Discovered::default(),
            bytes: 0,
            at_most: usize::try_from(discovery.limit).unwrap_or_default(),
        }
    }

    /// Adds a node, unless the answer would exceed its limit or [`MAX_BYTES`].
    fn push(&mut self, node: Node) {
        self.bytes += node.size();
        let nodes = &mut self.discovered.nodes;
        match nodes.len() < self.at_most && (self.bytes <= MAX_BYTES || nodes.is_empty()) {
            true => nodes.push(node),
            false => self.discovered.has_more = true,
        }
    }
}
