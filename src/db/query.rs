//! Queries of a single caller, each on a connection of its own.

use std::{future::Future, time::Instant};

use diesel::QueryResult;
use diesel_async::AsyncPgConnection;

use super::DbError;
use crate::domain::{
    error::Result,
    id::TokenId,
    namespace::{Namespace, Scoped},
    page::{Page, PageRow},
};

/// The owner of a query, in whose turn it runs.
#[derive(Debug, Clone)]
pub enum Owner {
    /// The service itself.
    Service,
    /// The operators, together.
    Operators,
    /// A tenant.
    Tenant {
        /// The token of the call; `None` where the service runs without tokens.
        token_id: Option<TokenId>,
        /// The namespace of the request.
        namespace: Namespace,
    },
}

/// A statement, or a few, of one caller.
pub trait Query: Sync {
    /// The result.
    type Answer: Send;

    /// Returns the owner in whose turn the query runs.
    fn owner(&self) -> Owner {
        Owner::Service
    }

    /// Returns the deadline of the call. `None` if the query may wait for its turn as long as any
    /// other.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Returns whether the query runs again after an error that may be transient, or that of a row.
    fn retries_transient(&self) -> bool {
        true
    }

    /// Returns whether the query may run again at all. One that has passed on a part of its answer may
    /// not.
    fn may_run_again(&self) -> bool {
        true
    }

    /// Runs the query. After a database error it may run again.
    fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send;

    /// Returns whether an answer left rows unread on the connection.
    fn leaves_rows(_answer: &Self::Answer) -> bool {
        false
    }
}

/// A query of a tenant: [`Query`] for [`Scoped`] values, which name the tenant.
pub trait TenantQuery: Send + Sync + Sized {
    /// The result.
    type Answer: Send;

    /// Runs the query, see [`Query::run`].
    fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send;

    /// Returns whether an answer left rows unread on the connection.
    fn leaves_rows(_answer: &Self::Answer) -> bool {
        false
    }
}

impl<T: TenantQuery> Query for Scoped<T> {
    type Answer = T::Answer;

    fn owner(&self) -> Owner {
        Owner::Tenant {
            token_id: self.token_id,
            namespace: self.namespace.clone(),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn run(
        &self,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = Result<Result<Self::Answer>, DbError>> + Send {
        T::run(self, connection)
    }

    fn leaves_rows(answer: &Self::Answer) -> bool {
        T::leaves_rows(answer)
    }
}

/// A tenant's list, one page at a time: [`TenantQuery`] for filters.
pub trait PageQuery: Send + Sync + Sized {
    /// A row of the list.
    type Row: PageRow + Send;

    /// Reads one page, with [`collect_page`](super::collect_page::collect_page).
    fn page(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> impl Future<Output = QueryResult<Page<Self::Row>>> + Send;
}

impl<T: PageQuery> TenantQuery for T {
    type Answer = Page<T::Row>;

    async fn run(
        scoped: &Scoped<Self>,
        connection: &mut AsyncPgConnection,
    ) -> Result<Result<Self::Answer>, DbError> {
        Ok(Ok(T::page(scoped, connection).await?))
    }

    fn leaves_rows(page: &Self::Answer) -> bool {
        page.is_cut
    }
}
