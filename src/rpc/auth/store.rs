//! SQL of tokens.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::{
    dsl::{SqlTypeOf, now, sql},
    pg::Pg,
    prelude::*,
    sql_types::{Array, Nullable, Record, Timestamptz, Uuid},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::future::BoxFuture;

use super::token::{NewToken, Revocation, Token, TokenFilter};
use crate::{
    db::{
        DbError, Query,
        batch::{Answers, Operation, statement::statement},
        collect_page::collect_page,
        planner::raw_statement,
        schema::api_tokens,
    },
    domain::{
        error::{CredentialError, Error, Resource, Result},
        id::TokenId,
        page::Page,
    },
};

statement! {
    /// Reads the columns of [`Token`], in order.
    struct SelectTokens { ids: Vec<TokenId>, }
    returns SqlTypeOf<<Token as Selectable<Pg>>::SelectExpression>, is_batch: true;
    "SELECT t.* FROM unnest(" {ids: Array<Uuid>} ") AS item (id)
      CROSS JOIN LATERAL (
            SELECT id, name, role, namespaces, secret_sha256, created_at, expires_at,
                   last_used_at, revoked_at
              FROM api_tokens WHERE api_tokens.id = item.id LIMIT 1) t"
}

/// Reads the tokens of many calls in one round trip.
pub struct FindTokens;

impl Operation for FindTokens {
    const NAME: &'static str = "FindTokens";

    type Item = TokenId;
    type Answer = Token;
    type Key = TokenId;

    fn key(item: &TokenId) -> TokenId {
        *item
    }

    /// No tenant is known before the token is.
    fn tenant(_item: &TokenId) -> &str {
        ""
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a TokenId],
    ) -> BoxFuture<'a, Result<Answers<Self::Answer>, DbError>> {
        Box::pin(async move {
            let ids = items.iter().map(|id| **id).collect();
            let tokens: Vec<Token> = SelectTokens { ids }.load(connection).await?;
            let tokens = tokens.into_iter().map(|token| (token.id, token));
            let tokens: HashMap<_, _> = tokens.collect();
            let unknown = || Error::Unauthenticated(CredentialError::Unknown);
            let answers = items.iter().map(|id| tokens.get(id).cloned());
            Ok(answers
                .map(|token| Some(token.ok_or_else(unknown)))
                .collect())
        })
    }
}

/// Creates a token.
impl Query for NewToken {
    type Answer = Token;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let digest = self.secret.digest();
        let created = diesel::insert_into(api_tokens::table)
            .values((
                api_tokens::id.eq(self.id),
                api_tokens::name.eq(&self.name),
                api_tokens::role.eq(self.role),
                api_tokens::namespaces.eq(&self.namespaces),
                api_tokens::secret_sha256.eq(digest),
                api_tokens::expires_at.eq(self.expires_at),
            ))
            .on_conflict(diesel::upsert::on_constraint("api_tokens_pkey"))
            .do_nothing()
            .returning(Token::as_returning())
            .get_result(connection)
            .await
            .optional()?;
        if let Some(token) = created {
            return Ok(Ok(token));
        }
        let existing: Token = api_tokens::table
            .find(self.id)
            .select(Token::as_select())
            .first(connection)
            .await?;
        // The same secret means that an earlier attempt of this call has succeeded, and
        // its answer was lost.
        Ok(match existing.require_secret(&self.secret) {
            Ok(()) => Ok(existing),
            Err(_) => Err(Error::IdConflict {
                resource: Resource::Token,
                field: "id",
                name: self.id.to_string(),
            }),
        })
    }
}

/// Lists tokens, newest first.
impl Query for TokenFilter {
    type Answer = Page<Token>;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let mut query = api_tokens::table
            .select(Token::as_select())
            .order((api_tokens::created_at.desc(), api_tokens::id.desc()))
            .limit(self.page.size + 1)
            .into_boxed();
        if self.active_only {
            let unexpired = api_tokens::expires_at.is_null();
            let unexpired =
                unexpired.or(api_tokens::expires_at.gt(now.into_sql::<Timestamptz>().nullable()));
            query = query.filter(api_tokens::revoked_at.is_null().and(unexpired));
        }
        if let Some((time, id)) = self.page.after {
            let row = (api_tokens::created_at, api_tokens::id);
            query = query.filter(row.into_sql::<Record<(Timestamptz, Uuid)>>().lt((time, id)));
        }
        let page = collect_page(query.load_stream(connection).await?, &self.page).await?;
        Ok(Ok(page))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}

/// Revokes a token. A repeated revocation keeps the time of the first one.
impl Query for Revocation {
    type Answer = Token;

    async fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        let revoked_at = sql::<Nullable<Timestamptz>>("coalesce(revoked_at, now())");
        let revoked = diesel::update(api_tokens::table.find(self.id))
            .set(api_tokens::revoked_at.eq(revoked_at))
            .returning(Token::as_returning())
            .get_result(connection)
            .await
            .optional()?;
        Ok(revoked.ok_or_else(|| Error::NotFound {
            resource: Resource::Token,
            field: "id",
            name: self.id.to_string(),
            namespace: None,
        }))
    }
}

/// Writes when tokens were last used.
pub struct LastUses(pub Vec<(TokenId, DateTime<Utc>)>);

raw_statement! {
/// Keeps a later time that another replica has written.
const WRITE_LAST_USES(Array<Uuid>, Array<Timestamptz>) = "
    UPDATE api_tokens SET last_used_at = used.at
      FROM unnest($1, $2) AS used (id, at)
     WHERE api_tokens.id = used.id
       AND (api_tokens.last_used_at IS NULL OR api_tokens.last_used_at < used.at)";
}

impl Query for LastUses {
    type Answer = ();

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<()>, DbError> {
        // All replicas lock rows in the same order, so they do not deadlock.
        let mut uses = self.0.clone();
        uses.sort_unstable_by_key(|(id, _)| *id);
        let (ids, times): (Vec<_>, Vec<_>) = uses.into_iter().unzip();
        diesel::sql_query(WRITE_LAST_USES)
            .bind::<Array<Uuid>, _>(ids)
            .bind::<Array<Timestamptz>, _>(times)
            .execute(connection)
            .await?;
        Ok(Ok(()))
    }
}
