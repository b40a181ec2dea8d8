//! The journal of entities: transitions ("Common Query 3") and statistics.

use chrono::{DateTime, Utc};
use diesel::{
    expression::{AppearsOnTable, Expression, ValidGrouping, is_aggregate},
    pg::{Pg, data_types::PgInterval},
    prelude::*,
    query_builder::{AstPass, QueryFragment},
    sql_types::{BigInt, Bool, Double, Interval, Nullable, Text, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{
        DbError, PageQuery, TenantQuery,
        collect_page::collect_page,
        journal::Transition,
        planner::{any_namespace, left_lookup, raw_statement},
        schema::fsm_transitions,
    },
    domain::{
        error::Result,
        namespace::{Namespace, Scoped},
        page::Page,
    },
    services::fsm::model::{StatsFilter, TransitionFilter, TransitionStats},
};

/// Lists transitions, by time.
impl PageQuery for TransitionFilter {
    type Row = Transition;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<Transition>> {
        read(connection, scoped).await
    }
}

async fn read(
    connection: &mut AsyncPgConnection,
    filter: &Scoped<TransitionFilter>,
) -> QueryResult<Page<Transition>> {
    let mut query = fsm_transitions::table
        .filter(fsm_transitions::namespace.eq_any(any_namespace(&filter.namespace)))
        .filter(fsm_transitions::entity_type.eq(&filter.entity_type))
        .select(Transition::as_select())
        .limit(filter.page.size + 1)
        .into_boxed();
    if let Some(id) = filter.entity_id {
        query = query.filter(fsm_transitions::entity_id.eq(id.0));
    }
    if let Some(event) = &filter.transition_event {
        query = query.filter(fsm_transitions::transition_event.eq(event));
    }
    if let Some(state) = &filter.from_state {
        query = query.filter(fsm_transitions::from_state.eq(state));
    }
    if let Some(state) = &filter.to_state {
        query = query.filter(fsm_transitions::to_state.eq(state));
    }
    if let Some(time) = filter.created_after {
        query = query.filter(fsm_transitions::created_at.gt(time));
    }
    if let Some(time) = filter.created_before {
        query = query.filter(fsm_transitions::created_at.lt(time));
    }
    if let Some((time, id)) = filter.page.after {
        query = query.filter(Beyond {
            is_newest_first: filter.is_newest_first,
            time,
            id,
            namespace: &filter.namespace,
        });
    }
    let (namespace, time) = (fsm_transitions::namespace, fsm_transitions::created_at);
    query = match filter.is_newest_first {
        false => query.order((namespace.asc(), time.asc(), fsm_transitions::seq.asc())),
        true => query.order((namespace.desc(), time.desc(), fsm_transitions::seq.desc())),
    };
    collect_page(query.load_stream(connection).await?, &filter.page).await
}

/// The condition for rows after the row with an id. It is an expression of its own, because
/// Diesel prepares queries with bare SQL again at every call.
struct Beyond<'a> {
    is_newest_first: bool,
    time: DateTime<Utc>,
    id: uuid::Uuid,
    namespace: &'a Namespace,
}

impl Expression for Beyond<'_> {
    type SqlType = Bool;
}

impl AppearsOnTable<fsm_transitions::table> for Beyond<'_> {}

impl ValidGrouping<()> for Beyond<'_> {
    type IsAggregate = is_aggregate::No;
}

impl QueryFragment<Pg> for Beyond<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(match self.is_newest_first {
            false => "(fsm_transitions.created_at, fsm_transitions.seq) > (",
            true => "(fsm_transitions.created_at, fsm_transitions.seq) < (",
        });
        out.push_bind_param::<Timestamptz, _>(&self.time)?;
        out.push_sql(", (SELECT last.seq FROM fsm_transitions last WHERE last.id = ");
        out.push_bind_param::<Uuid, _>(&self.id)?;
        out.push_sql(" AND last.namespace = ");
        out.push_bind_param::<Text, _>(self.namespace)?;
        out.push_sql("))");
        Ok(())
    }
}

raw_statement! {
/// Counts the transitions of a window. The time in a state is measured from the previous
/// transition, even if that is before the window.
const STATS(Text, Text, Interval, Nullable<Uuid>) = concat!("
    SELECT t.from_state, t.to_state, count(*) AS transition_count,
           (extract(epoch FROM avg(t.created_at - before.created_at)) * 1000)::double precision
               AS mean_time_in_state_ms
      FROM fsm_transitions t", left_lookup!("fsm_transitions", "before",
           "t.from_state IS NOT NULL
                AND before.namespace = t.namespace AND before.entity_type = t.entity_type
                AND before.entity_id = t.entity_id
                AND (before.created_at, before.seq) < (t.created_at, t.seq)
              ORDER BY before.created_at DESC, before.seq DESC"), "
     WHERE t.namespace = $1 AND t.entity_type = $2 AND t.created_at > now() - $3
       AND ($4 IS NULL OR t.entity_id = $4)
     GROUP BY t.from_state, t.to_state
     ORDER BY transition_count DESC, t.from_state NULLS FIRST, t.to_state
     LIMIT 1000");
}

#[derive(QueryableByName)]
struct StatsRow {
    #[diesel(sql_type = Nullable<Text>)]
    from_state: Option<String>,
    #[diesel(sql_type = Text)]
    to_state: String,
    #[diesel(sql_type = BigInt)]
    transition_count: i64,
    #[diesel(sql_type = Nullable<Double>)]
    mean_time_in_state_ms: Option<f64>,
}

/// Counts transitions by their states.
impl TenantQuery for StatsFilter {
    type Answer = Vec<TransitionStats>;

    async fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let within = PgInterval::from_microseconds(scoped.created_within_micros);
        let rows: Vec<StatsRow> = diesel::sql_query(STATS)
            .bind::<Text, _>(&scoped.namespace)
            .bind::<Text, _>(&scoped.entity_type)
            .bind::<Interval, _>(within)
            .bind::<Nullable<Uuid>, _>(scoped.entity_id.map(|id| id.0))
            .load(connection)
            .await?;
        let rows = rows.into_iter().map(|row| TransitionStats {
            from_state: row.from_state,
            to_state: row.to_state,
            transition_count: row.transition_count,
            mean_time_in_state_ms: row.mean_time_in_state_ms,
        });
        Ok(Ok(rows.collect()))
    }
}
