//! Filling tables by COPY.

use std::{ops::Range, pin::pin};

use futures_util::SinkExt;
use prost::bytes::{Bytes, BytesMut};
use tokio_postgres::{Client, NoTls};

use crate::Result;

/// How much text is sent at a time, in bytes: enough for messages not to matter.
const CHUNK: usize = 256 * 1024;

/// A connection that fills a database.
pub struct Filler {
    client: Client,
}

impl Filler {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        // It ends with the client.
        tokio::spawn(connection);
        // A superuser's: foreign keys are not looked at, what is filled in meets
        // them. The memory is for building indexes.
        client
            .batch_execute(
                "SET session_replication_role = replica; SET maintenance_work_mem = '512MB'",
            )
            .await?;
        Ok(Filler { client })
    }

    /// Takes away the indexes that are not a constraint's, and answers how to
    /// build them: all at once in the end they cost much less than row by row.
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

    /// Fills a table, which `into` names with its columns. `write` writes the
    /// line, or the lines, of a number.
    ///
    /// What was truncated by the transaction need not go through the log, and
    /// can be frozen at once.
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

/// Writes the columns of a row as COPY reads them: with tabs in between, and a
/// new line after the last. None of our texts has characters to be escaped.
macro_rules! row {
    ($out:expr, $first:expr $(, $rest:expr)* $(,)?) => {{
        write!($out, "{}", $first)?;
        $(write!($out, "\t{}", $rest)?;)*
        writeln!($out)
    }};
}

pub(crate) use row;

/// NULL.
pub const NULL: &str = "\\N";

/// A digest of a request, 16 bytes as text; which one does not matter to reads.
pub const DIGEST: &str = "\\\\x000102030405060708090a0b0c0d0e0f";
