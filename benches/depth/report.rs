//! Formats the results as Markdown: a table per service, then the plans.

use std::{fmt::Write, thread::available_parallelism, time::Duration};

use crate::{measure::Compared, options::Options, plans::ExpensiveQuery, sizes::TableSize};

/// All results.
pub struct Report {
    /// The version of PostgreSQL.
    pub version: String,
    /// The cases that were measured.
    pub compared: Vec<Compared>,
    /// The disk space of the deep database.
    pub sizes: Vec<TableSize>,
    /// The peak memory of the service on the deep database, in KiB.
    pub peak_memory: Option<u64>,
    /// The expensive queries, or why they are unknown.
    pub plans: Result<Vec<ExpensiveQuery>, String>,
}

impl Report {
    /// Writes all tables and plans.
    pub fn write(&self, options: &Options) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let cores = available_parallelism().map_or(0, usize::from);
        writeln!(
            out,
            "{} workflows against {}; one caller, in turns; {cores} cores shared by PostgreSQL {}, \
             two services and the caller. The target is a ratio of at most 1.5. Cases with a + \
             aggregate rows whose number grows with the database.\n",
            options.workflows, options.small, self.version,
        )?;
        for services in self.compared.chunk_by(|a, b| service(a) == service(b)) {
            write_service(&mut out, services)?;
        }
        if let Some(kib) = self.peak_memory {
            let mib = kib as f64 / 1024.0;
            writeln!(
                out,
                "Peak memory of the service on the deep database: {mib:.1} MiB\n"
            )?;
        }
        write_sizes(&mut out, &self.sizes)?;
        match &self.plans {
            Ok(found) => write_plans(&mut out, found)?,
            Err(error) => writeln!(out, "No plans: {error}")?,
        }
        Ok(out)
    }
}

fn service(compared: &Compared) -> &str {
    compared.method.split('/').next().unwrap_or_default()
}

fn write_service(out: &mut String, cases: &[Compared]) -> std::fmt::Result {
    let name = cases.first().map(service).unwrap_or_default();
    writeln!(
        out,
        "| {name} | calls | rows | rows, deep | p50 | p50, deep | ratio | p99 | p99, deep | ratio |"
    )?;
    writeln!(out, "|---|{}", "--:|".repeat(9))?;
    for case in cases {
        let rpc = case.method.split('/').next_back().unwrap_or_default();
        let mark = if case.scales_with_data { " +" } else { "" };
        let (small, deep) = (&case.small, &case.deep);
        write!(
            out,
            "| {} | {} |",
            format!("{rpc} {}{mark}", case.title).trim_end(),
            case.calls
        )?;
        write!(out, " {:.0} | {:.0} |", small.rows, deep.rows)?;
        write_pair(out, small.p50, deep.p50)?;
        write_pair(out, small.p99, deep.p99)?;
        writeln!(out)?;
    }
    writeln!(out)
}

fn write_pair(out: &mut String, small: Duration, deep: Duration) -> std::fmt::Result {
    let ratio = deep.as_secs_f64() / small.as_secs_f64();
    let millis = |it: Duration| it.as_secs_f64() * 1e3;
    write!(
        out,
        " {:.2} ms | {:.2} ms | **{ratio:.2}** |",
        millis(small),
        millis(deep)
    )
}

/// Writes bytes per row, which do not depend on the number of rows much.
fn write_sizes(out: &mut String, sizes: &[TableSize]) -> std::fmt::Result {
    writeln!(
        out,
        "| table | rows | bytes of a row | of its index entries |"
    )?;
    writeln!(out, "|---|--:|--:|--:|")?;
    for table in sizes {
        let [bytes, index_bytes] = [table.bytes, table.index_bytes].map(|it| it / table.rows);
        let (name, rows) = (&table.name, table.rows);
        writeln!(out, "| {name} | {rows} | {bytes} | {index_bytes} |")?;
    }
    writeln!(out)
}

fn write_plans(out: &mut String, found: &[ExpensiveQuery]) -> std::fmt::Result {
    writeln!(
        out,
        "{} queries of the deep database read more than ten times the rows in the response. Rows \
         read are those that table scans returned or filtered out. The rows of GetWorkflow and \
         ListWorkflows include steps and stamps.\n",
        found.len()
    )?;
    for it in found {
        let read = it.explained.rows_read;
        writeln!(
            out,
            "{}: {read:.0} rows read, {} returned\n",
            it.case, it.returned
        )?;
        writeln!(out, "```text\n{}```\n", it.explained)?;
    }
    Ok(())
}
