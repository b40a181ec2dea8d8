//! Bridges: to read, many callers in one round trip, to list, and to add up:
//! "Common Query 4".

use diesel::{
    dsl::sql,
    prelude::*,
    sql_types::{BigInt, Nullable, Record, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::{FutureExt, future::BoxFuture};

use super::{BridgeSql, bridge_columns, no_bridge};
use crate::{
    db::{
        DbError, TenantQuery,
        batch::{
            Operation,
            statement::{batch_statement, place},
        },
        collect_page::collect_page,
        schema::bridge_states,
    },
    domain::{error::Result, id::BridgeId, namespace::Scoped, page::Page},
    services::bridge_state::model::{Bridge, BridgeFilter, BridgeQuery, BridgeStats, StatsQuery},
};

batch_statement! {
    /// Reads bridges.
    struct ReadBridges<'a> {
        namespace: &'a str => Text,
        bridge_id: BridgeId => Uuid,
    }
    returns (BigInt, BridgeSql);
    concat!(
        " SELECT item.ordinality, ", bridge_columns!(), "
            FROM item CROSS JOIN LATERAL (
                 SELECT * FROM bridge_states b
                  WHERE b.bridge_id = item.bridge_id AND b.namespace IS NOT DISTINCT FROM item.namespace
                  LIMIT 1) b"
    )
}

/// Reads bridges by their ids.
pub struct GetBridges;

impl Operation for GetBridges {
    const NAME: &'static str = "GetBridges";

    type Item = Scoped<BridgeQuery>;
    type Answer = Bridge;
    type Key = BridgeId;

    fn key(item: &Self::Item) -> BridgeId {
        item.bridge_id
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Self::Item],
    ) -> BoxFuture<'a, Result<Vec<Result<Bridge>>, DbError>> {
        async move {
            let read = ReadBridges {
                namespace: items.iter().map(|item| item.namespace.as_str()).collect(),
                bridge_id: items.iter().map(|item| item.bridge_id).collect(),
                ..ReadBridges::default()
            };
            let rows: Vec<(i64, Bridge)> = read.load(connection).await?;
            let missing = items.iter().map(|item| Err(no_bridge(item.bridge_id)));
            let mut answers: Vec<Result<Bridge>> = missing.collect();
            for (ordinality, bridge) in rows {
                if let Some(answer) = answers.get_mut(place(ordinality)) {
                    *answer = Ok(bridge);
                }
            }
            Ok(answers)
        }
        .boxed()
    }
}

/// When a bridge last did something; there is an index on just this.
const LAST_ACTIVITY: &str = "coalesce(last_aggregation_timestamp, created_at)";

/// Lists bridges, those first that aggregated last.
impl TenantQuery for BridgeFilter {
    type Answer = Page<Bridge>;

    async fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
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
        let rows = query.load_stream(connection).await?;
        Ok(Ok(collect_page(rows, &scoped.page).await?))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}

/// A sum of many totals is a NUMERIC, which may be more than a BIGINT holds.
const STATS: &str = "
    SELECT least(coalesce(sum(total_workflows_processed), 0), 9223372036854775807)::bigint
               AS total_workflows,
           least(coalesce(sum(total_items_aggregated), 0), 9223372036854775807)::bigint
               AS total_items,
           count(*) AS bridge_count,
           max(last_aggregation_timestamp) AS latest_activity
      FROM bridge_states
     WHERE namespace = $1";

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

/// Adds up all bridges of a namespace.
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
