//! Policies of namespaces.

use diesel::{prelude::*, sql_types::Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use crate::{
    db::{DbError, Query, collect_page::collect_page, schema::retention_policies},
    domain::{error::Result, page::Page},
    ops::retention::model::{NewPolicy, Policy, PolicyFilter, PolicyKey, PolicyRemoval},
};

/// Creates or changes a policy.
impl Query for NewPolicy {
    type Answer = Policy;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let policy = diesel::insert_into(retention_policies::table)
            .values((
                retention_policies::namespace.eq(&self.key.namespace),
                retention_policies::table_name.eq(self.key.table),
                retention_policies::max_age_seconds.eq(self.max_age_seconds),
            ))
            .on_conflict(diesel::upsert::on_constraint("retention_policies_pkey"))
            .do_update()
            .set((
                retention_policies::max_age_seconds.eq(self.max_age_seconds),
                retention_policies::updated_at.eq(diesel::dsl::now),
            ))
            .returning(Policy::as_returning())
            .get_result(connection)
            .await?;
        Ok(Ok(policy))
    }
}

/// Returns whether a policy exists.
impl Query for PolicyKey {
    type Answer = bool;

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<bool>, DbError> {
        let policy = retention_policies::table.find((&self.namespace, self.table.as_str()));
        let exists = diesel::select(diesel::dsl::exists(policy));
        Ok(Ok(exists.get_result(connection).await?))
    }
}

/// Deletes a policy, if it exists.
impl Query for PolicyRemoval<'_> {
    type Answer = ();

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<()>, DbError> {
        let PolicyRemoval(key) = self;
        let policy = retention_policies::table.find((&key.namespace, key.table.as_str()));
        diesel::delete(policy).execute(connection).await?;
        Ok(Ok(()))
    }
}

/// Lists policies by namespace, then by table.
impl Query for PolicyFilter {
    type Answer = Page<Policy>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let mut query = retention_policies::table
            .select(Policy::as_select())
            .order((
                retention_policies::namespace,
                retention_policies::table_name,
            ))
            .limit(self.page.size + 1)
            .into_boxed();
        if let Some((namespace, table)) = self.page.after.as_ref().and_then(|it| it.split_once(' '))
        {
            let row = (
                retention_policies::namespace,
                retention_policies::table_name,
            );
            let after = row.into_sql::<diesel::sql_types::Record<(Text, Text)>>();
            query = query.filter(after.gt((namespace.to_owned(), table.to_owned())));
        }
        let rows = query.load_stream(connection).await?;
        Ok(Ok(collect_page(rows, &self.page).await?))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}
