//! Listing nodes, with keyset pages.

use diesel::{
    dsl::sql,
    pg::data_types::PgInterval,
    prelude::*,
    sql_types::{Interval, Timestamptz},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{PageQuery, collect_page::collect_page, schema::node_registrations},
    domain::{namespace::Scoped, page::Page},
    services::registry::model::{Node, NodeFilter},
};

/// Lists nodes of all owners, by name.
impl PageQuery for NodeFilter {
    type Row = Node;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<Node>> {
        read_nodes(connection, scoped).await
    }
}

async fn read_nodes(
    connection: &mut AsyncPgConnection,
    filter: &NodeFilter,
) -> QueryResult<Page<Node>> {
    let mut query = node_registrations::table
        .select(Node::as_select())
        .order(node_registrations::node_id)
        .limit(filter.page.size + 1)
        .into_boxed();
    if let Some(node_type) = &filter.node_type {
        query = query.filter(node_registrations::node_type.eq(node_type));
    }
    if !filter.health_statuses.is_empty() {
        let statuses = &filter.health_statuses;
        query = query.filter(node_registrations::health_status.eq_any(statuses));
    }
    if !filter.capabilities.is_empty() {
        query = query.filter(node_registrations::capabilities.contains(&filter.capabilities));
    }
    if let Some(micros) = filter.heartbeat_within_micros {
        let since = sql::<Timestamptz>("now() - ").bind::<Interval, _>(interval(micros));
        query = query.filter(node_registrations::last_heartbeat.gt(since));
    }
    if let Some(micros) = filter.heartbeat_older_than_micros {
        let since = sql::<Timestamptz>("now() - ").bind::<Interval, _>(interval(micros));
        query = query.filter(node_registrations::last_heartbeat.le(since));
    }
    if let Some(owner) = &filter.owner {
        query = query.filter(node_registrations::owner.eq(owner));
    }
    if let Some(node_id) = &filter.page.after {
        query = query.filter(node_registrations::node_id.gt(node_id));
    }
    collect_page(query.load_stream(connection).await?, &filter.page).await
}

fn interval(micros: i64) -> PgInterval {
    PgInterval::from_microseconds(micros)
}
