//! The forms of SQL that steer the planner, explained in [`super`].

/// Joins each item with the rows of a subquery, as `$alias`. Items without rows drop out.
macro_rules! lateral {
    ($alias:literal, $($query:expr),+ $(,)?) => {
        concat!(" CROSS JOIN LATERAL (", $($query),+, ") ", $alias)
    };
}

/// [`lateral!`] that keeps items without rows, with NULLs.
macro_rules! left_lateral {
    ($alias:literal, $($query:expr),+ $(,)?) => {
        concat!(" LEFT JOIN LATERAL (", $($query),+, ") ", $alias, " ON true")
    };
}

/// Joins each item with the row of `$table`, as `$alias`, that meets a condition. Items
/// without a row drop out.
macro_rules! lookup {
    ($table:literal, $alias:literal, $($condition:expr),+ $(,)?) => {
        $crate::db::planner::lateral!(
            $alias, "SELECT * FROM ", $table, " ", $alias, " WHERE ", $($condition),+, " LIMIT 1"
        )
    };
}

/// [`lookup!`] that keeps items without a row, with NULLs.
macro_rules! left_lookup {
    ($table:literal, $alias:literal, $($condition:expr),+ $(,)?) => {
        $crate::db::planner::left_lateral!(
            $alias, "SELECT * FROM ", $table, " ", $alias, " WHERE ", $($condition),+, " LIMIT 1"
        )
    };
}

/// Joins each item with the first row of `$table` in an order, as `$alias`, if it has the wanted
/// key, else with NULLs. The range begins at the key, which must not be NULL.
macro_rules! left_neighbour {
    ($alias:literal, $table:literal, $condition:expr, $range:literal, $order:literal, $key:expr) => {
        $crate::db::planner::left_lateral!(
            $alias,
            "SELECT it.* FROM (SELECT * FROM ",
            $table,
            " it WHERE ",
            $condition,
            " AND ",
            $range,
            " ORDER BY ",
            $order,
            " LIMIT 1) it WHERE ",
            $key
        )
    };
}

/// Compares two columns without NULLs in a way that no index serves.
macro_rules! unindexed_eq {
    ($left:expr, $right:expr) => {
        concat!($left, " IS NOT DISTINCT FROM ", $right)
    };
}

/// Keeps rows of `$alias` that belong to the tenant of `$other`, by default of the item.
macro_rules! same_namespace {
    ($alias:literal) => {
        $crate::db::planner::same_namespace!($alias, "item")
    };
    ($alias:literal, $other:literal) => {
        $crate::db::planner::unindexed_eq!(
            concat!($alias, ".namespace"),
            concat!($other, ".namespace")
        )
    };
}

/// Whether a value is in a set, by a hash table.
macro_rules! in_set {
    ($value:literal, $set:literal) => {
        concat!("(", $value, " IN (", $set, ")) IS TRUE")
    };
}

/// Whether a row of `$table`, as `$alias`, meets a condition; NULL if there is none. The
/// condition has to name the key, because more than one row is an error.
macro_rules! row_exists {
    ($table:literal, $alias:literal, $($condition:expr),+ $(,)?) => {
        concat!("(SELECT true FROM ", $table, " ", $alias, " WHERE ", $($condition),+, ")")
    };
}

/// Compares a column with a value, and keeps the column in the sort order.
macro_rules! ordered_eq {
    ($column:literal, $value:literal) => {
        concat!($column, " = ANY (ARRAY[", $value, "])")
    };
}

/// A column in the byte order of an index with the collation "C".
macro_rules! byte_order {
    ($column:literal) => {
        concat!($column, " COLLATE \"C\"")
    };
}

pub(crate) use {
    byte_order, in_set, lateral, left_lateral, left_lookup, left_neighbour, lookup, ordered_eq,
    row_exists, same_namespace, unindexed_eq,
};
