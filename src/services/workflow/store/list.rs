//! Lists of workflows ("Common Query 2"), steps and stamps, with keyset pages.

use diesel::{
    dsl::sql,
    expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate},
    pg::{Pg, data_types::PgInterval},
    prelude::*,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{BigInt, Integer, Interval, Record, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt;

use super::no_workflow;
use crate::{
    db::{
        DbError, PageQuery, TenantQuery,
        collect_page::collect_page,
        planner::{any_namespace, same_namespace},
        schema::{metadata_stamps, workflow_executions, workflow_steps},
    },
    domain::{error::Result, namespace::Scoped, page::Page},
    services::workflow::model::{
        Stamp, StampFilter, Step, StepFilter, Workflow, WorkflowFilter, WorkflowSummary,
    },
};

/// Lists workflows, newest first, each with the number of its steps.
impl PageQuery for WorkflowFilter {
    type Row = WorkflowSummary;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<WorkflowSummary>> {
        read_workflows(connection, scoped).await
    }
}

/// Lists the steps of a workflow in their order. Fails if the workflow does not exist.
impl TenantQuery for StepFilter {
    type Answer = Page<Step>;

    async fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let page = read_steps(connection, scoped).await?;
        if page.rows.is_empty() && !has_workflow(connection, scoped).await? {
            return Ok(Err(no_workflow(&scoped.namespace, scoped.workflow_id)));
        }
        Ok(Ok(page))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}

/// Lists stamps, newest first.
impl PageQuery for StampFilter {
    type Row = Stamp;

    async fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> QueryResult<Page<Stamp>> {
        read_stamps(connection, scoped).await
    }
}

async fn read_workflows(
    connection: &mut AsyncPgConnection,
    filter: &Scoped<WorkflowFilter>,
) -> QueryResult<Page<WorkflowSummary>> {
    let mut query = workflow_executions::table
        .filter(workflow_executions::namespace.eq_any(any_namespace(&filter.namespace)))
        .select((Workflow::as_select(), StepCount))
        .order((
            workflow_executions::namespace,
            workflow_executions::started_at.desc(),
            workflow_executions::id.desc(),
        ))
        .limit(filter.page.size + 1)
        .into_boxed();
    match filter.states.as_slice() {
        [] => {}
        // With `=` the index on state and time also provides the order.
        [state] => query = query.filter(workflow_executions::current_state.eq(state)),
        states => query = query.filter(workflow_executions::current_state.eq_any(states)),
    }
    if let Some(workflow_type) = &filter.workflow_type {
        query = query.filter(workflow_executions::workflow_type.eq(workflow_type));
    }
    if let Some(time) = filter.started_after {
        query = query.filter(workflow_executions::started_at.gt(time));
    }
    if let Some(time) = filter.started_before {
        query = query.filter(workflow_executions::started_at.lt(time));
    }
    if let Some(micros) = filter.started_within_micros {
        let within = PgInterval::from_microseconds(micros);
        let since = sql::<Timestamptz>("now() - ").bind::<Interval, _>(within);
        query = query.filter(workflow_executions::started_at.gt(since));
    }
    if !filter.metadata.is_empty() {
        query = query.filter(workflow_executions::metadata.contains(&filter.metadata));
    }
    if let Some((time, id)) = filter.page.after {
        let row = (workflow_executions::started_at, workflow_executions::id);
        query = query.filter(row.into_sql::<Record<(Timestamptz, Uuid)>>().lt((time, id)));
    }
    let rows = query.load_stream::<(Workflow, i64)>(connection).await?;
    let rows = rows.map_ok(|(workflow, counted)| WorkflowSummary::new(workflow, counted));
    collect_page(rows, &filter.page).await
}

/// Counts the steps of a workflow, up to one more than [`WorkflowSummary::MAX_STEP_COUNT`].
///
/// The order is that of an index, so the count reads the first entries of the workflow and no
/// others, however many steps the planner expects.
#[derive(QueryId)]
struct StepCount;

impl Expression for StepCount {
    type SqlType = BigInt;
}

impl AppearsOnTable<workflow_executions::table> for StepCount {}

impl SelectableExpression<workflow_executions::table> for StepCount {}

impl ValidGrouping<()> for StepCount {
    type IsAggregate = is_aggregate::No;
}

impl QueryFragment<Pg> for StepCount {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(concat!(
            "(SELECT count(*) FROM (
                SELECT FROM workflow_steps s
                 WHERE s.workflow_id = workflow_executions.id AND ",
            same_namespace!("s", "workflow_executions"),
            " ORDER BY s.step_order LIMIT 1 + "
        ));
        out.push_bind_param::<BigInt, _>(&WorkflowSummary::MAX_STEP_COUNT)?;
        out.push_sql(") counted)");
        Ok(())
    }
}

async fn read_steps(
    connection: &mut AsyncPgConnection,
    filter: &Scoped<StepFilter>,
) -> QueryResult<Page<Step>> {
    // A deleted workflow may still have steps.
    let workflow = workflow_executions::table
        .filter(workflow_executions::id.eq(filter.workflow_id))
        .filter(workflow_executions::namespace.eq(&filter.namespace));
    let mut query = workflow_steps::table
        .filter(diesel::dsl::exists(workflow))
        .filter(workflow_steps::workflow_id.eq(filter.workflow_id))
        .filter(workflow_steps::namespace.eq(&filter.namespace))
        .select(Step::as_select())
        .order((workflow_steps::step_order, workflow_steps::id))
        .limit(filter.page.size + 1)
        .into_boxed();
    if let Some((order, id)) = filter.page.after {
        let row = (workflow_steps::step_order, workflow_steps::id);
        query = query.filter(row.into_sql::<Record<(Integer, Uuid)>>().gt((order, id)));
    }
    collect_page(query.load_stream(connection).await?, &filter.page).await
}

async fn has_workflow(
    connection: &mut AsyncPgConnection,
    filter: &Scoped<StepFilter>,
) -> QueryResult<bool> {
    let workflow = workflow_executions::table
        .filter(workflow_executions::id.eq(filter.workflow_id))
        .filter(workflow_executions::namespace.eq(&filter.namespace));
    diesel::select(diesel::dsl::exists(workflow))
        .get_result(connection)
        .await
}

async fn read_stamps(
    connection: &mut AsyncPgConnection,
    filter: &Scoped<StampFilter>,
) -> QueryResult<Page<Stamp>> {
    let mut query = metadata_stamps::table
        .filter(metadata_stamps::namespace.eq_any(any_namespace(&filter.namespace)))
        .select(Stamp::as_select())
        .order((
            metadata_stamps::namespace,
            metadata_stamps::created_at.desc(),
            metadata_stamps::id.desc(),
        ))
        .limit(filter.page.size + 1)
        .into_boxed();
    if let Some(file_hash) = &filter.file_hash {
        query = query.filter(metadata_stamps::file_hash.eq(file_hash));
    }
    if let Some(workflow_id) = filter.workflow_id {
        query = query.filter(metadata_stamps::workflow_id.eq(workflow_id));
    }
    if let Some(time) = filter.created_after {
        query = query.filter(metadata_stamps::created_at.gt(time));
    }
    if let Some(time) = filter.created_before {
        query = query.filter(metadata_stamps::created_at.lt(time));
    }
    if let Some((time, id)) = filter.page.after {
        let row = (metadata_stamps::created_at, metadata_stamps::id);
        query = query.filter(row.into_sql::<Record<(Timestamptz, Uuid)>>().lt((time, id)));
    }
    collect_page(query.load_stream(connection).await?, &filter.page).await
}
