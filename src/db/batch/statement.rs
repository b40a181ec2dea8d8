//! Macros that declare statements with static SQL, which each connection prepares once.
//!
//! Diesel prepares `sql_query` and inserts of several rows again at every call. A statement
//! with arrays as parameters has the same text for any number of items. The macros also
//! register each statement with [`crate::db::planner::statements`].

use diesel::{
    pg::{Pg, PgQueryBuilder},
    query_builder::{QueryBuilder, QueryFragment},
};

use super::rounds::Indexed;

/// Declares a statement over items. Each column of the items is an array parameter. In the
/// SQL they form the table `item`, with the column `ordinality`, which counts from 1.
macro_rules! batch_statement {
    (
        $(#[$doc:meta])*
        struct $name:ident<'a> { $($column:ident: $rust:ty => $sql:ty,)+ }
        returns $row:ty;
        $body:expr
    ) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(super) struct $name<'a> {
            $(pub(super) $column: Vec<$rust>,)+
        }

        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name<'_> {
            fn walk_ast<'b>(
                &'b self,
                mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                let mut separator = "WITH item AS (SELECT * FROM unnest(";
                $(
                    out.push_sql(separator);
                    out.push_bind_param::<diesel::sql_types::Array<$sql>, _>(&self.$column)?;
                    separator = ", ";
                )+
                let _ = separator;
                out.push_sql(concat!(
                    ") WITH ORDINALITY AS item (",
                    $(stringify!($column), ", ",)+
                    "ordinality))"
                ));
                out.push_sql($body);
                Ok(())
            }
        }

        $crate::db::batch::statement::declare_statement!(
            $name, $name<'_>, $name<'static>, $row, true, [$(diesel::sql_types::Array<$sql>),+]
        );
    };
}

/// Declares a statement whose text alternates between SQL and fields with their SQL types.
/// `is_batch` tells whether it runs on a connection for batches.
macro_rules! statement {
    (
        $(#[$doc:meta])*
        struct $name:ident { $($field:ident: $rust:ty,)* }
        returns $row:ty, is_batch: $is_batch:literal;
        $($sql:literal $({$bind:ident: $type:ty})?)+
    ) => {
        $(#[$doc])*
        #[derive(Default)]
        struct $name {
            $($field: $rust,)*
        }

        impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name {
            fn walk_ast<'b>(
                &'b self,
                mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
            ) -> diesel::QueryResult<()> {
                $(
                    out.push_sql($sql);
                    $(out.push_bind_param::<$type, _>(&self.$bind)?;)?
                )+
                Ok(())
            }
        }

        $crate::db::batch::statement::declare_statement!(
            $name, $name, $name, $row, $is_batch, [$($($type,)?)+]
        );
    };
}

/// Implements what both kinds of statement share.
macro_rules! declare_statement {
    ($name:ident, $type:ty, $id:ty, $row:ty, $is_batch:literal, [$($bind:ty),* $(,)?]) => {
        impl diesel::query_builder::QueryId for $type {
            type QueryId = $id;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl diesel::query_builder::Query for $type {
            type SqlType = $row;
        }

        $crate::db::planner::register!(
            stringify!($name), $is_batch, [$($bind),*],
            || $crate::db::batch::statement::text(&<$id>::default())
        );
    };
}

pub(crate) use {batch_statement, declare_statement, statement};

/// Returns the text of a statement, with `$1` and so on as parameters.
pub fn text(statement: &impl QueryFragment<Pg>) -> String {
    let mut text = PgQueryBuilder::default();
    match statement.to_sql(&mut text, &Pg) {
        Ok(()) => text.finish(),
        Err(error) => error.to_string(),
    }
}

/// Returns the index in the batch of the item that a row with this `ordinality` belongs to.
pub fn index_of(ordinality: i64) -> usize {
    usize::try_from(ordinality - 1).unwrap_or(usize::MAX)
}

/// Returns one column of a statement's items.
pub fn column<'a, T, V>(items: &[Indexed<'a, T>], value: impl Fn(&'a T) -> V) -> Vec<V> {
    items.iter().map(|(_, item)| value(item)).collect()
}
