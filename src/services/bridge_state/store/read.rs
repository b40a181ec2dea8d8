//! Reading and listing bridges, and their statistics ("Common Query 4").

use diesel::{
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Nullable, Record, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;

use super::{BridgeSql, bridge_columns, no_bridge};
use crate::{
    db::{
        DbError, PageQuery, TenantQuery,
        batch::{
            lookup::{Found, Lookup, LookupOperation},
            statement::batch_statement,
        },
        collect_page::collect_page,
        journal::Xid,
        planner::{byte_order, lateral, lookup, raw_statement, same_namespace},
        schema::{bridge_states, sql_types::Xid8},
    },
    domain::{
        error::Result,
        id::BridgeId,
        namespace::{Namespace, Scoped},
        page::{Page, PageRow},
    },
    services::bridge_state::model::{
        Bridge, BridgeFilter, BridgeQuery, BridgeStats, BridgeView, StatsQuery,
    },
};

batch_statement! {
    /// Reads bridges. Of each that consumes the journal, counts the rows that it has not consumed.
    struct ReadBridges<'a> {
        namespace: &'a str => Text,
        bridge_id: BridgeId => Uuid,
    }
    returns (BigInt, BridgeSql, BigInt);
    concat!(
        " SELECT item.ordinality, ", bridge_columns!(), ", lag.count
            FROM item",
        lookup!("bridge_states", "b", "b.bridge_id = item.bridge_id AND ", same_namespace!("b")),
        lateral!("lag",
            "SELECT count(*) FROM (
                SELECT FROM fsm_transitions t
                 WHERE b.consumed_xid IS NOT NULL
                   AND ", byte_order!("t.namespace"), " = b.namespace
                   AND (t.xid, t.seq) > (b.consumed_xid, b.consumed_seq)
                 ORDER BY ", byte_order!("t.namespace"), ", t.xid, t.seq LIMIT 1000) t")
    )
}

/// Reads bridges.
pub type GetBridges = LookupOperation<BridgeLookup>;

/// The implementation of [`GetBridges`].
pub struct BridgeLookup;

impl Lookup for BridgeLookup {
    const NAME: &'static str = "GetBridges";
    type Query = BridgeQuery;
    type Key<'a> = (&'a str, BridgeId);
    type Row = BridgeView;

    fn key(request: &Scoped<BridgeQuery>) -> Self::Key<'_> {
        (request.namespace.as_str(), request.bridge_id)
    }

    fn if_missing(request: &Scoped<BridgeQuery>) -> Result<BridgeView> {
        Err(no_bridge(&request.namespace, request.bridge_id))
    }

    fn size(bridge: &BridgeView) -> usize {
        bridge.size()
    }

    async fn read(
        connection: &mut AsyncPgConnection,
        requests: &[&Scoped<BridgeQuery>],
    ) -> QueryResult<Found<BridgeView>> {
        let statement = ReadBridges {
            namespace: requests.iter().map(|it| it.namespace.as_str()).collect(),
            bridge_id: requests.iter().map(|it| it.bridge_id).collect(),
        };
        let rows = statement.load_stream::<(i64, Bridge, i64)>(connection);
        let rows = rows.await?.map_ok(|(ordinality, bridge, lag)| {
            let consumer_lag = bridge.consumed().map(|_| lag);
            let view = BridgeView {
                bridge,
                consumer_lag,
            };
            (ordinality, view)
        });
        Found::collect(rows, Self::size).await
    }
}

raw_statement! {
/// Selects the newest rows of the journal of a namespace, if one of its bridges consumes them.
const NEWEST(Text, BigInt) = concat!(
    "SELECT t.xid, t.seq FROM fsm_transitions t
      WHERE ", byte_order!("t.namespace"), " = $1
        AND EXISTS (SELECT FROM bridge_states b
                     WHERE ", byte_order!("b.namespace"), " = $1 AND b.consumed_xid IS NOT NULL)
      ORDER BY ", byte_order!("t.namespace"), " DESC, t.xid DESC, t.seq DESC
      LIMIT $2");
}

#[derive(QueryableByName)]
struct NewestRow {
    #[diesel(sql_type = Xid8)]
    xid: Xid,
    #[diesel(sql_type = BigInt)]
    seq: i64,
}

/// Reads the order of the newest rows of the journal, from which the lags of all bridges of a page
/// are counted. Counting row by row for each bridge would take up to a second for a page.
async fn newest(
    connection: &mut AsyncPgConnection,
    namespace: &Namespace,
) -> QueryResult<Vec<(Xid, i64)>> {
    let query = diesel::sql_query(NEWEST)
        .bind::<Text, _>(namespace)
        .bind::<BigInt, _>(BridgeView::MAX_LAG);
    let rows: Vec<NewestRow> = query.load(connection).await?;
    Ok(rows.into_iter().map(|row| (row.xid, row.seq)).collect())
}

/// The time of a bridge's last activity, which an index contains.
const LAST_ACTIVITY: &str = "coalesce(last_aggregation_timestamp, created_at)";

/// Lists bridges, most recently active first.
impl PageQuery for BridgeFilter {
    type Row = BridgeView;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<BridgeView>> {
        // Before the page, which may leave rows unread.
        let newest = newest(connection, &scoped.namespace).await?;
        let last_activity = sql::<Timestamptz>(LAST_ACTIVITY);
        let mut query = bridge_states::table
            .filter(bridge_states::namespace.eq(&scoped.namespace))
            .select(Bridge::as_select())
            .order((
                last_activity.clone().desc(),
                bridge_states::bridge_id.desc(),
            ))
            .limit(scoped.page.size + 1)
            .into_boxed();
        if let Some(state) = &scoped.current_fsm_state {
            query = query.filter(bridge_states::current_fsm_state.eq(state));
        }
        if let Some(time) = scoped.active_after {
            query = query.filter(last_activity.clone().gt(time));
        }
        if let Some(time) = scoped.active_before {
            query = query.filter(last_activity.clone().lt(time));
        }
        if !scoped.aggregation_metadata.is_empty() {
            let document = &scoped.aggregation_metadata;
            query = query.filter(bridge_states::aggregation_metadata.contains(document));
        }
        if let Some((time, id)) = scoped.page.after {
            let row = (last_activity, bridge_states::bridge_id);
            query = query.filter(row.into_sql::<Record<(Timestamptz, Uuid)>>().lt((time, id)));
        }
        let rows = query.load_stream::<Bridge>(connection).await?;
        let rows = rows.map_ok(|bridge| BridgeView::new(bridge, &newest));
        collect_page(rows, &scoped.page).await
    }
}

raw_statement! {
/// Adds up totals. The sum is a NUMERIC, capped at the largest BIGINT.
const STATS(Text) = "
    SELECT least(coalesce(sum(total_workflows_processed), 0), 9223372036854775807)::bigint
               AS total_workflows,
           least(coalesce(sum(total_items_aggregated), 0), 9223372036854775807)::bigint
               AS total_items,
           count(*) AS bridge_count,
           max(last_aggregation_timestamp) AS latest_activity
      FROM bridge_states
     WHERE namespace = $1";
}

#[derive(QueryableByName)]
struct StatsRow {
    #[diesel(sql_type = BigInt)]
    total_workflows: i64,
    #[diesel(sql_type = BigInt)]
    total_items: i64,
    #[diesel(sql_type = BigInt)]
    bridge_count: i64,
    #[diesel(sql_type = Nullable<Timestamptz>)]
    latest_activity: Option<chrono::DateTime<chrono::Utc>>,
}

/// Adds up the bridges of a namespace.
impl TenantQuery for StatsQuery {
    type Answer = BridgeStats;

    async fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let query = diesel::sql_query(STATS).bind::<Text, _>(&scoped.namespace);
        let row: StatsRow = query.get_result(connection).await?;
        Ok(Ok(BridgeStats {
            total_workflows: row.total_workflows,
            total_items: row.total_items,
            bridge_count: row.bridge_count,
            latest_activity: row.latest_activity,
        }))
    }
}
