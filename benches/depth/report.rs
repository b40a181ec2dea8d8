//! What is printed: a table for each service, then the plans. In Markdown.

use std::{fmt::Write, thread::available_parallelism, time::Duration};

use crate::{measure::Compared, options::Options, plans::Found};

/// All that was found out.
pub struct Report {
    /// The version of PostgreSQL.
    pub version: String,
    /// The cases that were measured.
    pub compared: Vec<Compared>,
    /// The most memory that the service on the deep database ever had, in KiB.
    pub peak_memory: Option<u64>,
    /// The queries that read much, or why they are not known.
    pub plans: Result<Vec<Found>, String>,
}

impl Report {
    /// Puts it all down.
    pub fn write(&self, options: &Options) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let cores = available_parallelism().map_or(0, usize::from);
        writeln!(
            out,
            "{} workflows against {}; one caller, in turns; {cores} cores shared by PostgreSQL {}, \
             two services and the caller. The aim is a ratio of at most 1.5. Cases with a + count \
             what grows with the database.\n",
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
        match &self.plans {
            Ok(found) => write_plans(&mut out, found)?,
            Err(error) => writeln!(out, "There are no plans: {error}")?,
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
        let mark = if case.grows { " +" } else { "" };
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

fn write_plans(out: &mut String, found: &[Found]) -> std::fmt::Result {
    writeln!(
        out,
        "{} queries of the deep database read more than ten times the rows that were answered. Read \
         are all rows that scans of tables gave or threw away; answered are the rows of the RPC's \
         answer, and with those of GetWorkflow and ListWorkflows the steps and stamps that belong \
         to them.\n",
        found.len()
    )?;
    for it in found {
        let read = it.explained.rows_read;
        writeln!(
            out,
            "{}: {read:.0} rows read, {} answered\n",
            it.case, it.answered
        )?;
        writeln!(out, "```text\n{}```\n", it.explained)?;
    }
    Ok(())
}
