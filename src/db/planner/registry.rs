//! The list of all statements, which the macros that declare statements fill.

/// A statement of a store, as `tests/db/plans` prepares and explains it.
#[derive(Debug)]
pub struct Statement {
    /// The module that declares it.
    pub module: &'static str,
    /// The type or constant that declares it.
    pub name: &'static str,
    /// Whether it runs over a batch of items, on a connection with
    /// [`BATCH_SETTINGS`](super::BATCH_SETTINGS).
    pub is_batch: bool,
    /// The types of its parameters, as Diesel names them: `Nullable<Text>`.
    pub binds: &'static [&'static str],
    /// Returns its text.
    pub sql: fn() -> String,
}

inventory::collect!(Statement);

/// Returns every statement that the macros declare, in no particular order. The queries of
/// lists are built by Diesel from the filters of a request, so they are not among them.
pub fn statements() -> impl Iterator<Item = &'static Statement> {
    inventory::iter::<Statement>.into_iter()
}

/// Registers a statement.
macro_rules! register {
    ($name:expr, $is_batch:literal, [$($bind:ty),* $(,)?], $sql:expr) => {
        inventory::submit! {
            $crate::db::planner::Statement {
                module: module_path!(),
                name: $name,
                is_batch: $is_batch,
                binds: &[$(stringify!($bind)),*],
                sql: $sql,
            }
        }
    };
}

/// Declares the text of a statement for `sql_query`, with the types of its parameters.
macro_rules! raw_statement {
    ($(#[$doc:meta])* const $name:ident($($bind:ty),*) = $sql:expr;) => {
        $(#[$doc])*
        const $name: &str = $sql;

        $crate::db::planner::register!(
            stringify!($name), false, [$($bind),*], || $name.to_owned()
        );
    };
}

pub(crate) use {raw_statement, register};
