//! SQL of quotas.

use diesel::{
    dsl::{exists, now},
    prelude::*,
    sql_types::{Record, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::model::{NewQuota, Quota, QuotaFilter, QuotaKey, QuotaRemoval, SubjectKind};
use crate::{
    db::{
        DbError, Query,
        collect_page::collect_page,
        schema::{api_tokens, quotas},
    },
    domain::{
        error::{Error, Resource, Result},
        page::Page,
        quota::QuotaSubject,
    },
};

/// Reads all quotas.
pub struct AllQuotas;

impl Query for AllQuotas {
    type Answer = Vec<Quota>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let all = quotas::table.select(Quota::as_select());
        Ok(Ok(all.load(connection).await?))
    }
}

/// Creates or changes a quota. A token must exist; its row is never deleted.
impl Query for NewQuota {
    type Answer = Quota;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        if let QuotaSubject::Token(id) = self.subject {
            let token = diesel::select(exists(api_tokens::table.find(id)));
            if !token.get_result::<bool>(connection).await? {
                return Ok(Err(Error::NotFound {
                    resource: Resource::Token,
                    field: "token_id",
                    name: id.to_string(),
                    namespace: None,
                }));
            }
        }
        let (kind, name) = SubjectKind::of(&self.subject);
        let quota = diesel::insert_into(quotas::table)
            .values((
                quotas::subject_kind.eq(kind),
                quotas::subject.eq(name),
                self.values,
            ))
            .on_conflict(diesel::upsert::on_constraint("quotas_pkey"))
            .do_update()
            .set((self.values, quotas::updated_at.eq(now)))
            .returning(Quota::as_returning())
            .get_result(connection)
            .await?;
        Ok(Ok(quota))
    }
}

/// Returns whether a quota exists.
impl Query for QuotaKey {
    type Answer = bool;

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<bool>, DbError> {
        let (kind, name) = SubjectKind::of(&self.0);
        let quota = diesel::select(exists(quotas::table.find((kind.as_str(), name))));
        Ok(Ok(quota.get_result(connection).await?))
    }
}

/// Deletes a quota, if it exists.
impl Query for QuotaRemoval<'_> {
    type Answer = ();

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<()>, DbError> {
        let QuotaRemoval(QuotaKey(subject)) = self;
        let (kind, name) = SubjectKind::of(subject);
        let quota = quotas::table.find((kind.as_str(), name));
        diesel::delete(quota).execute(connection).await?;
        Ok(Ok(()))
    }
}

/// Lists quotas by kind, then by name.
impl Query for QuotaFilter {
    type Answer = Page<Quota>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let mut query = quotas::table
            .select(Quota::as_select())
            .order((quotas::subject_kind, quotas::subject))
            .limit(self.page.size + 1)
            .into_boxed();
        if let Some((kind, name)) = self.page.after.as_ref().and_then(|it| it.split_once(' ')) {
            let row = (quotas::subject_kind, quotas::subject);
            let after = row.into_sql::<Record<(Text, Text)>>();
            query = query.filter(after.gt((kind.to_owned(), name.to_owned())));
        }
        let rows = query.load_stream(connection).await?;
        Ok(Ok(collect_page(rows, &self.page).await?))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}
