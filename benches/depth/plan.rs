//! Plans, as auto_explain writes them.

use std::fmt::{self, Write};

use serde_json::Value;

/// A query with the plan that it ran by.
#[derive(Debug, Default)]
pub struct Explained {
    /// The query.
    pub query: String,
    /// How many rows its scans of tables read, whatever became of them.
    pub rows_read: f64,
    plan: Value,
}

impl Explained {
    /// Finds all plans in a piece of the server's log.
    pub fn all(log: &str) -> impl Iterator<Item = Explained> {
        // A line that belongs to the one before begins with a tab.
        let plans = log.split("plan:\n").skip(1).map(|rest| {
            let lines = rest.lines().map_while(|line| line.strip_prefix('\t'));
            lines.collect::<String>()
        });
        plans.filter_map(|plan| Explained::read(&serde_json::from_str(&plan).ok()?))
    }

    fn read(value: &Value) -> Option<Self> {
        let query = value.get("Query Text")?.as_str()?;
        let plan = value.get("Plan")?;
        Some(Explained {
            query: query.split_whitespace().collect::<Vec<_>>().join(" "),
            rows_read: rows_read(plan),
            plan: plan.clone(),
        })
    }
}

/// The rows that came out of the scans of tables, and those that scans read in
/// vain. (Entries that an index scan passes over inside of the index are not
/// told of by PostgreSQL; the pages that were read tell of them.)
fn rows_read(node: &Value) -> f64 {
    let reads_table = node.get("Relation Name").is_some();
    let kept = [
        "Actual Rows",
        "Rows Removed by Filter",
        "Rows Removed by Index Recheck",
    ];
    let rows: f64 = kept.iter().map(|name| number(node, name)).sum();
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

/// The query, and under it the plan as a tree.
impl fmt::Display for Explained {
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
