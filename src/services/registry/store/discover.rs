//! Discovering healthy nodes of a type ("Common Query 5").
//!
//! Callers that ask for the first nodes of a type share round trips. Filters and later pages are
//! queries of their own, because the best index depends on them.

use std::sync::Arc;

use diesel::{
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Bool, Record, Text, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;

use super::{NodeSql, node_columns};
use crate::{
    db::{
        PageQuery,
        batch::{
            lookup::{Found, Lookup, LookupOperation},
            reservation::BATCH_BYTES,
            statement::{batch_statement, index_of},
        },
        collect_page::collect_page,
        planner::{lateral, ordered_eq},
        schema::node_registrations,
    },
    domain::{
        error::Result,
        namespace::Scoped,
        page::{MAX_BYTES, Page, PageRow},
    },
    services::registry::model::{Discovered, Discovery, LiveNode, Node, NodeHealth},
};

/// Whether a node has a heartbeat within its TTL. The longest TTL is a day, which bounds the scan
/// of an index however many nodes are stale.
macro_rules! is_alive {
    () => {
        "last_heartbeat > now() - interval '1 day'
                AND last_heartbeat > now() - heartbeat_ttl_ms * interval '1 millisecond'"
    };
}

const IS_ALIVE: &str = is_alive!();

batch_statement! {
    /// Finds nodes with a heartbeat within their TTL, latest heartbeat first.
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
                AND ", is_alive!(), "
              ORDER BY n.node_type, n.last_heartbeat DESC, n.node_id DESC
              LIMIT item.at_most")
    )
}

/// Discovers the first nodes of a type that are healthy and not stale.
pub type DiscoverNodes = LookupOperation<LiveNodes>;

/// See [`DiscoverNodes`].
pub struct LiveNodes;

impl Lookup for LiveNodes {
    const NAME: &'static str = "DiscoverNodes";
    type Query = Discovery;
    type Key<'a> = (&'a str, i64);
    type Row = Arc<Discovered>;

    fn key(request: &Scoped<Discovery>) -> Self::Key<'_> {
        (request.node_type.as_str(), request.page.size)
    }

    fn if_missing(_request: &Scoped<Discovery>) -> Result<Arc<Discovered>> {
        Ok(Arc::default())
    }

    fn size(discovered: &Arc<Discovered>) -> usize {
        discovered.nodes.iter().map(PageRow::size).sum()
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Scoped<Discovery>],
    ) -> QueryResult<Found<Arc<Discovered>>> {
        let statement = FindNodes {
            node_type: requests.iter().map(|it| it.node_type.as_str()).collect(),
            health_status: requests.iter().map(|_| NodeHealth::Healthy).collect(),
            // One more, to tell whether there are more.
            at_most: requests.iter().map(|it| it.page.size + 1).collect(),
        };
        let mut rows = statement.load_stream::<(i64, Node)>(connection).await?;
        let mut answers: Vec<(i64, Answer)> = Vec::new();
        let mut bytes = 0;
        // The rows of a request follow each other.
        while let Some((ordinality, node)) = rows.try_next().await? {
            if answers.last().is_none_or(|(last, _)| *last != ordinality) {
                if bytes > BATCH_BYTES {
                    return Ok(Found::part(answers.into_iter().map(finished)));
                }
                let discovery = requests.get(index_of(ordinality));
                answers.push((
                    ordinality,
                    Answer::new(discovery.map_or(0, |it| it.page.size)),
                ));
            }
            bytes += node.size();
            if let Some((_, answer)) = answers.last_mut() {
                answer.push(node);
            }
        }
        Ok(Found::all(answers.into_iter().map(finished)))
    }
}

fn finished((ordinality, answer): (i64, Answer)) -> (i64, Arc<Discovered>) {
    (ordinality, Arc::new(answer.discovered))
}

/// The answer to a request, while its rows arrive.
struct Answer {
    discovered: Discovered,
    bytes: usize,
    at_most: usize,
}

impl Answer {
    fn new(limit: i64) -> Self {
        Answer {
            discovered: Discovered::default(),
            bytes: 0,
            at_most: usize::try_from(limit).unwrap_or_default(),
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

/// Discovers nodes by filters or from a position on, latest heartbeat first. The first column
/// of the order is the one that the index begins with, see `ordered_eq!`.
impl PageQuery for Discovery {
    type Row = LiveNode;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<LiveNode>> {
        let newest_first = (
            node_registrations::last_heartbeat.desc(),
            node_registrations::node_id.desc(),
        );
        let mut query = node_registrations::table
            .filter(node_registrations::node_type.eq_any([&scoped.node_type]))
            .filter(node_registrations::health_status.eq(NodeHealth::Healthy))
            .filter(sql::<Bool>(IS_ALIVE))
            .select(Node::as_select())
            .limit(scoped.page.size + 1)
            .into_boxed();
        query = match &scoped.owner {
            Some(owner) => query
                .filter(node_registrations::owner.eq_any([owner]))
                .order((node_registrations::owner, newest_first)),
            None => query.order((node_registrations::node_type, newest_first)),
        };
        if !scoped.capabilities.is_empty() {
            query = query.filter(node_registrations::capabilities.contains(&scoped.capabilities));
        }
        if let Some((time, node_id)) = &scoped.page.after {
            let row = (
                node_registrations::last_heartbeat,
                node_registrations::node_id,
            );
            let row = row.into_sql::<Record<(Timestamptz, Text)>>();
            query = query.filter(row.lt((time, node_id)));
        }
        let rows = query.load_stream::<Node>(connection).await?;
        collect_page(rows.map_ok(LiveNode), &scoped.page).await
    }
}
