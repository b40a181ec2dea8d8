//! The key that signs page tokens. It is random, and a row of the database, so that tokens are
//! valid on every replica and after a restart.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl, result::Error as DieselError};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{
    DatabaseAddress,
    connect::{connect, connect_to_any},
    migrations::MigrationError,
    schema::page_token_key,
};
use crate::domain::page_token_key::{KEY_BYTES, PageTokenKey};

/// Returns the key. The first replica that finds none adds one.
///
/// # Errors
/// [`MigrationError::Connect`] and [`MigrationError::Statement`].
pub async fn load_or_create(address: &DatabaseAddress) -> Result<PageTokenKey, MigrationError> {
    // Reading works on a standby, too.
    let mut connection = connect_to_any(address).await?;
    if let Some(key) = stored(&mut connection).await? {
        return Ok(key);
    }
    let mut connection = connect(address).await?;
    // The column's default makes the key. If another replica adds its row first, that one stays.
    diesel::insert_into(page_token_key::table)
        .values(page_token_key::is_only_row.eq(true))
        .on_conflict_do_nothing()
        .execute(&mut *connection)
        .await?;
    let key = stored(&mut connection).await?;
    Ok(key.ok_or(DieselError::NotFound)?)
}

async fn stored(connection: &mut AsyncPgConnection) -> Result<Option<PageTokenKey>, DieselError> {
    let key: Option<Vec<u8>> = page_token_key::table
        .select(page_token_key::key)
        .first(connection)
        .await
        .optional()?;
    // A constraint of the table keeps the length.
    let key = key.and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
    Ok(key.map(PageTokenKey::new))
}
