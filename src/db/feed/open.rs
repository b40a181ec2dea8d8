//! Finds where readers begin, for many at once: after a restart all of them come back together.

use diesel_async::AsyncPgConnection;
use futures_util::future::BoxFuture;

use super::{
    begin::{Begin, Wanted, find_begins},
    follower::Following,
    scope::Scope,
};
use crate::{
    db::{
        Database, DbError, Owner, Query,
        batch::{Answers, Batcher, Operation},
    },
    domain::error::Result,
};

/// A reader that asks where to begin.
#[derive(Debug)]
pub struct Opening {
    following: Following,
    wanted: Wanted,
}

/// Finds where readers of one namespace each begin.
pub struct FindBegins;

impl Operation for FindBegins {
    const NAME: &'static str = "FindBegins";

    type Item = Opening;
    type Answer = Begin;
    type Key = String;

    fn key(item: &Opening) -> String {
        item.following.namespace.to_string()
    }

    fn tenant(item: &Opening) -> &str {
        item.following.namespace.as_str()
    }

    fn run<'a>(
        connection: &'a mut AsyncPgConnection,
        items: &'a [&'a Opening],
    ) -> BoxFuture<'a, Result<Answers<Begin>, DbError>> {
        Box::pin(async move {
            let readers = items.iter().map(|item| (item.scope(), item.wanted));
            let readers: Vec<_> = readers.collect();
            let begins = find_begins(connection, &readers).await?;
            Ok(begins.into_iter().map(|begin| Some(Ok(begin))).collect())
        })
    }
}

impl Opening {
    fn scope(&self) -> Scope {
        Scope::of(&self.following.namespace)
    }
}

/// Finds where a reader of several namespaces begins. It may have to look at many of them.
impl Query for Opening {
    type Answer = Begin;

    fn owner(&self) -> Owner {
        self.following.owner()
    }

    async fn run(&self, connection: &mut AsyncPgConnection) -> Result<Result<Begin>, DbError> {
        let begins = find_begins(connection, &[(self.scope(), self.wanted)]).await?;
        Ok(Ok(begins.into_iter().next().unwrap_or_default()))
    }
}

/// Finds where a reader begins.
///
/// # Errors
/// Errors of the database.
pub async fn find_begin(
    database: &Database,
    batcher: &Batcher<FindBegins>,
    following: &Following,
    wanted: Wanted,
) -> Result<Begin> {
    let opening = Opening {
        following: following.clone(),
        wanted,
    };
    match opening.scope() {
        Scope::Namespace(_) => batcher.submit(opening).await,
        Scope::Prefix(_) => database.run(&opening).await,
    }
}
