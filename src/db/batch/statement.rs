//! Statements that are prepared once per connection: those that run over many items at
//! once, and those that run again and again.
//!
//! Diesel prepares `sql_query` and multi-row inserts anew at every call. A type
//! with static SQL is prepared once per connection; with arrays for binds however many
//! items it carries.

use super::rounds::Indexed;

/// Declares a statement over items. Each column of the items is one array; in
/// the SQL they are the table `item`, with `ordinality` counting from 1.
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
            pub(super) _items: std::marker::PhantomData<&'a ()>,
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

        impl diesel::query_builder::QueryId for $name<'_> {
            type QueryId = $name<'static>;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl diesel::query_builder::Query for $name<'_> {
            type SqlType = $row;
        }
    };
}

pub(crate) use batch_statement;

/// Declares a statement of which the SQL and the fields that go into it take turns, a
/// field with its type in SQL.
macro_rules! statement {
    (
        $(#[$doc:meta])*
        struct $name:ident { $($field:ident: $rust:ty,)* }
        returns $row:ty;
        $($sql:literal $({$bind:ident: $type:ty})?)+
    ) => {
        $(#[$doc])*
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

        impl diesel::query_builder::QueryId for $name {
            type QueryId = Self;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl diesel::query_builder::Query for $name {
            type SqlType = $row;
        }
    };
}

pub(crate) use statement;

/// The place of the item that a row belongs to, whose `ordinality` it has.
pub fn place(ordinality: i64) -> usize {
    usize::try_from(ordinality - 1).unwrap_or(usize::MAX)
}

/// One column of a statement's items.
pub fn column<'a, T, V>(items: &[Indexed<'a, T>], value: impl Fn(&'a T) -> V) -> Vec<V> {
    items.iter().map(|(_, item)| value(item)).collect()
}
