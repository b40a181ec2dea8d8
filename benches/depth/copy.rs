//! Loads tables by COPY.

use std::{ops::Range, pin::pin};

use futures_util::SinkExt;
use prost::bytes::{Bytes, BytesMut};
use tokio_postgres::{Client, NoTls};

use crate::Result;

/// The size of a COPY message in bytes: large enough to amortize the cost per message.
const CHUNK: usize = 256 * 1024;

/// A connection that loads a database.
pub struct Loader {
    client: Client,
}

impl Loader {
    /// Connects as a superuser.
    pub async fn connect(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // The task ends when the client is dropped.
        tokio::spawn(connection);
        // Skips foreign-key checks, because the generated rows satisfy them. The memory is for
        // building the indexes.
        client
            .batch_execute(
                "SET session_replication_role = replica; SET maintenance_work_mem = '512MB'",
            )
            .await?;
        Ok(Loader { client })
    }

    /// Drops the indexes that no constraint owns and returns their definitions. Building them
    /// after the load costs much less than updating them row by row.
    pub async fn drop_indexes(&self) -> Result<Vec<String>> {
        let indexes = self
            .client
            .query(
                "SELECT i.indexname::text, i.indexdef FROM pg_indexes i
                  WHERE i.schemaname = 'public'
                    AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conname = i.indexname)
                  ORDER BY i.indexname",
                &[],
            )
            .await?;
        let mut definitions = Vec::new();
        for index in indexes {
            let name: String = index.try_get(0)?;
            self.execute(&format!("DROP INDEX {name}")).await?;
            definitions.push(index.try_get(1)?);
        }
        Ok(definitions)
    }

    /// Runs a statement.
    pub async fn execute(&self, statement: &str) -> Result<()> {
        Ok(self.client.batch_execute(statement).await?)
    }

    /// Loads a table. `into` names the table and its columns; `write` writes the lines of a
    /// number.
    ///
    /// Because the same transaction truncates the table, COPY bypasses the write-ahead log and
    /// freezes the rows.
    pub async fn fill(
        &self,
        into: &str,
        numbers: Range<u64>,
        write: impl Fn(&mut BytesMut, u64) -> std::fmt::Result,
    ) -> Result<()> {
        let table = into.split(' ').next().unwrap_or(into);
        self.execute(&format!("BEGIN; TRUNCATE {table} CASCADE"))
            .await?;
        let copy = format!("COPY {into} FROM STDIN WITH (FREEZE)");
        let mut sink = pin!(self.client.copy_in::<_, Bytes>(&copy).await?);
        let mut text = BytesMut::with_capacity(2 * CHUNK);
        for number in numbers {
            write(&mut text, number)?;
            if text.len() >= CHUNK {
                sink.feed(text.split().freeze()).await?;
            }
        }
        sink.feed(text.freeze()).await?;
        sink.finish().await?;
        self.execute("COMMIT").await
    }
}

/// Writes a row in COPY's text format: columns separated by tabs, then a newline. The generated
/// texts need no escaping.
macro_rules! row {
    ($out:expr, $first:expr $(, $rest:expr)* $(,)?) => {{
        write!($out, "{}", $first)?;
        $(write!($out, "\t{}", $rest)?;)*
        writeln!($out)
    }};
}

pub(crate) use row;

/// NULL in COPY's text format.
pub const NULL: &str = "\\N";

/// A request digest of 16 bytes in COPY's text format. Reads never compare it.
pub const DIGEST: &str = "\\\\x000102030405060708090a0b0c0d0e0f";
