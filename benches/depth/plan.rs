//! Parses and prints the query plans that auto_explain logs.

use std::fmt::{self, Write};

use serde_json::Value;

/// A query with its executed plan.
#[derive(Debug, Default)]
pub struct ExplainedQuery {
    /// The query text.
    pub query: String,
    /// The number of rows that its table scans read, including those that they filtered out.
    pub rows_read: f64,
    plan: Value,
}

impl ExplainedQuery {
    /// Returns all plans in a part of the server's log.
    pub fn all(log: &str) -> impl Iterator<Item = ExplainedQuery> {
        // A continuation line begins with a tab.
        let plans = log.split("plan:\n").skip(1).map(|rest| {
            let lines = rest.lines().map_while(|line| line.strip_prefix('\t'));
            lines.collect::<String>()
        });
        plans.filter_map(|plan| ExplainedQuery::read(&serde_json::from_str(&plan).ok()?))
    }

    fn read(value: &Value) -> Option<Self> {
        let query = value.get("Query Text")?.as_str()?;
        let plan = value.get("Plan")?;
        Some(ExplainedQuery {
            query: query.split_whitespace().collect::<Vec<_>>().join(" "),
            rows_read: rows_read(plan),
            plan: plan.clone(),
        })
    }
}

/// Returns the number of rows that the table scans returned or filtered out. PostgreSQL does not
/// report the index entries that an index scan skips; the number of pages shows them.
fn rows_read(node: &Value) -> f64 {
    let reads_table = node.get("Relation Name").is_some();
    let counters = [
        "Actual Rows",
        "Rows Removed by Filter",
        "Rows Removed by Index Recheck",
    ];
    let rows: f64 = counters.iter().map(|name| number(node, name)).sum();
    let own = if reads_table {
        rows * number(node, "Actual Loops")
    } else {
        0.0
    };
    own + children(node).map(rows_read).sum::<f64>()
}

fn number(node: &Value, name: &str) -> f64 {
    node.get(name).and_then(Value::as_f64).unwrap_or(0.0)
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    let plans = node.get("Plans").and_then(Value::as_array);
    plans.into_iter().flatten()
}

/// Writes the query, and below it the plan as a tree.
impl fmt::Display for ExplainedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.query)?;
        let pages =
            number(&self.plan, "Shared Hit Blocks") + number(&self.plan, "Shared Read Blocks");
        writeln!(f, "({pages} pages)")?;
        write_node(f, &self.plan, 0)
    }
}

fn write_node(out: &mut fmt::Formatter<'_>, node: &Value, depth: usize) -> fmt::Result {
    let text = |name: &str| node.get(name).and_then(Value::as_str);
    write!(
        out,
        "{:indent$}{}",
        "",
        text("Node Type").unwrap_or("?"),
        indent = depth * 2
    )?;
    for (word, name) in [("using", "Index Name"), ("on", "Relation Name")] {
        if let Some(value) = text(name) {
            write!(out, " {word} {value}")?;
        }
    }
    let (rows, loops) = (number(node, "Actual Rows"), number(node, "Actual Loops"));
    let planned = number(node, "Plan Rows");
    write!(out, " (rows={rows} loops={loops} planned={planned})")?;
    for name in [
        "Index Cond",
        "Recheck Cond",
        "Filter",
        "Sort Key",
        "Sort Method",
    ] {
        if let Some(value) = node.get(name) {
            write!(out, " {name}: {value}")?;
        }
    }
    let removed = number(node, "Rows Removed by Filter");
    if removed > 0.0 {
        write!(out, " Removed: {removed}")?;
    }
    out.write_char('\n')?;
    children(node).try_for_each(|child| write_node(out, child, depth + 1))
}
