//! Enums that the database stores as text.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    pg::{Pg, PgValue},
    sql_types::Text,
};

/// A stored value of a text enum. During an upgrade a newer version may store values that this one
/// does not know. They must not fail the lists and batches that contain their rows.
#[derive(Debug, Clone, PartialEq, Eq, FromSqlRow)]
pub enum Stored<T> {
    /// A value of the enum.
    Known(T),
    /// The text of a value that only a newer version knows.
    Unknown(String),
}

impl<T: Copy> Stored<T> {
    /// Returns the value, if this version knows it.
    #[must_use]
    pub fn known(&self) -> Option<T> {
        match self {
            Stored::Known(value) => Some(*value),
            Stored::Unknown(_) => None,
        }
    }

    /// Returns the name under which the value is stored. `known` returns that of a known one.
    pub fn name(&self, known: impl FnOnce(T) -> &'static str) -> &str {
        match self {
            Stored::Known(value) => known(*value),
            Stored::Unknown(name) => name,
        }
    }
}

impl<T: FromSql<Text, Pg>> FromSql<Text, Pg> for Stored<T> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match T::from_sql(value) {
            Ok(value) => Ok(Stored::Known(value)),
            Err(_) => Ok(Stored::Unknown(FromSql::<Text, Pg>::from_sql(value)?)),
        }
    }
}

/// Declares an enum whose values are stored under the given names.
macro_rules! text_enum {
    (
        $(#[$doc:meta])*
        pub enum $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash,
            diesel::expression::AsExpression, diesel::deserialize::FromSqlRow,
        )]
        #[diesel(sql_type = diesel::sql_types::Text)]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// Returns the name under which the value is stored.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg> for $name {
            fn to_sql<'b>(
                &'b self,
                out: &mut diesel::serialize::Output<'b, '_, diesel::pg::Pg>,
            ) -> diesel::serialize::Result {
                <str as diesel::serialize::ToSql<diesel::sql_types::Text, diesel::pg::Pg>>::to_sql(
                    self.as_str(), out,
                )
            }
        }

        impl diesel::deserialize::FromSql<diesel::sql_types::Text, diesel::pg::Pg> for $name {
            fn from_sql(value: diesel::pg::PgValue<'_>) -> diesel::deserialize::Result<Self> {
                match value.as_bytes() {
                    $(bytes if bytes == $text.as_bytes() => Ok(Self::$value),)+
                    bytes => Err(format!(
                        "{:?} is not a {}", String::from_utf8_lossy(bytes), stringify!($name),
                    ).into()),
                }
            }
        }
    };
}

pub(crate) use text_enum;
