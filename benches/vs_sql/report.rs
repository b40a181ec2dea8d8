//! The tables, in Markdown.

use std::{fmt::Write, thread::available_parallelism, time::Duration};

use crate::{
    guard::{Guard, Guarded, Round},
    measured::{Measured, median, median_of},
    options::Options,
    pages::{LATE_PAGE, MOVES, PAGE_SIZE, Pages},
    pgbench::CONNECTIONS,
    prune::Pruned,
    scenario::Comparison,
};

/// All that was found out.
pub struct Report {
    /// The version of PostgreSQL.
    pub version: String,
    /// The scenarios that were measured.
    pub comparisons: Vec<Comparison>,
    /// The pages of a long list.
    pub pages: Option<Pages>,
    /// What tokens and limits cost.
    pub guard: Option<Guard>,
    /// What the removal of old rows costs.
    pub prune: Vec<Pruned>,
    /// The most memory that the server ever had, in KiB.
    pub peak_memory: Option<u64>,
    /// How long each start on an existing cluster took.
    pub starts: Vec<Duration>,
}

impl Report {
    /// Puts it all down.
    pub fn write(&self, options: &Options) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let cores = available_parallelism().map_or(0, usize::from);
        writeln!(
            out,
            "{cores} cores shared by PostgreSQL {}, server and load; {} rounds of {} s in turns, \
             medians.\n",
            self.version,
            options.rounds,
            options.window().counted.as_secs()
        )?;
        if !self.comparisons.is_empty() {
            self.write_ratios(&mut out)?;
            self.write_peer(&mut out)?;
        }
        if let Some(pages) = &self.pages {
            write_pages(&mut out, pages)?;
        }
        if let Some(guard) = &self.guard {
            write_guarded(&mut out, &guard.costs)?;
            write_refusals(&mut out, &guard.refusals)?;
        }
        if !self.prune.is_empty() {
            write_pruned(&mut out, &self.prune)?;
        }
        if let Some(kib) = self.peak_memory {
            writeln!(
                out,
                "Peak memory of the server: {:.1} MiB",
                kib as f64 / 1024.0
            )?;
        }
        if let Some(median) = median(self.starts.iter().copied(), Ord::cmp) {
            writeln!(
                out,
                "Start on an existing cluster, from the start of the process to SERVING: {:.0} ms",
                median.as_secs_f64() * 1e3
            )?;
        }
        Ok(out)
    }

    fn write_ratios(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "| | callers | bridgebook | p50 | p99 | pgbench | p50 | p99 | ratio of rates (rounds) | ratio of p50 |"
        )?;
        writeln!(out, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for comparison in &self.comparisons {
            for (callers, service) in comparison.service.medians() {
                write_ratio(out, comparison, callers, service)?;
            }
        }
        writeln!(out)
    }

    /// How pgbench did with each number of connections.
    fn write_peer(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "| pgbench, by connections |")?;
        for connections in CONNECTIONS {
            write!(out, " {connections} |")?;
        }
        writeln!(out, "\n|---|{}", "--:|".repeat(CONNECTIONS.len()))?;
        for comparison in &self.comparisons {
            write!(out, "| {}, {}/s |", comparison.title, comparison.unit)?;
            for (_, measured) in comparison.direct.medians() {
                write!(out, " {:.0} |", measured.per_second)?;
            }
            writeln!(out)?;
        }
        writeln!(out)
    }
}

/// Up to so many callers may have a connection of their own, so pgbench has just
/// as many. More callers than that share connections in any service, so pgbench
/// has whatever number it does best with.
const CONNECTION_EACH: usize = 16;

/// With how many connections pgbench stands against so many callers.
fn peer_of(comparison: &Comparison, callers: usize) -> Option<usize> {
    match callers <= CONNECTION_EACH && CONNECTIONS.contains(&callers) {
        true => Some(callers),
        false => comparison.direct.best(),
    }
}

fn write_ratio(
    out: &mut String,
    comparison: &Comparison,
    callers: usize,
    service: Measured,
) -> std::fmt::Result {
    let connections = peer_of(comparison, callers).unwrap_or(callers);
    let peer_rounds = comparison.direct.with(connections);
    let Some(peer) = median_of(peer_rounds) else {
        return Ok(());
    };
    let rounds = comparison.service.with(callers).iter().zip(peer_rounds);
    let (low, high) = range(rounds.map(|(service, peer)| service.per_second / peer.per_second));
    write!(out, "| {} | {callers} |", comparison.title)?;
    write!(out, " {:.0} {}/s |", service.per_second, comparison.unit)?;
    write!(out, " {} | {} |", millis(service.p50), millis(service.p99))?;
    write!(out, " {:.0} at {connections} |", peer.per_second)?;
    write!(out, " {} | {} |", millis(peer.p50), millis(peer.p99))?;
    write!(
        out,
        " **{:.2}** ({low:.2}–{high:.2}) |",
        service.per_second / peer.per_second
    )?;
    match connections == callers {
        true => {
            let ratio = service.p50.as_secs_f64() / peer.p50.as_secs_f64();
            writeln!(out, " {ratio:.2} |")
        }
        // With fewer connections than callers, a caller of pgbench's would have
        // to wait for a connection first, which its latency leaves out.
        false => writeln!(out, " |"),
    }
}

/// What tokens and limits cost.
fn write_guarded(out: &mut String, guarded: &[Guarded]) -> std::fmt::Result {
    writeln!(
        out,
        "| 64 callers | with tokens and limits | p50 | without | p50 | ratio of rates (rounds) \
         | server's CPU per call, with and without | ratio (rounds) |"
    )?;
    writeln!(out, "|---|--:|--:|--:|--:|--:|--:|--:|")?;
    for Guarded {
        title,
        with,
        without,
    } in guarded
    {
        let ratio = |of: fn(&Round) -> f64| {
            let rounds = with.iter().zip(without);
            let ratios = rounds.map(move |(with, without)| of(with) / of(without));
            let (low, high) = range(ratios.clone());
            let median = median(ratios, f64::total_cmp).unwrap_or(f64::NAN);
            format!("**{median:.2}** ({low:.2}–{high:.2})")
        };
        let middle = |rounds: &[Round]| {
            let measured: Vec<_> = rounds.iter().map(|round| round.measured).collect();
            let time = median(rounds.iter().map(|round| round.processor_time), Ord::cmp);
            median_of(&measured).zip(time)
        };
        let (Some((fast, time)), Some((faster, less))) = (middle(with), middle(without)) else {
            continue;
        };
        write!(out, "| {title} | {:.0} calls/s |", fast.per_second)?;
        write!(
            out,
            " {} | {:.0} calls/s |",
            millis(fast.p50),
            faster.per_second
        )?;
        write!(out, " {} |", millis(faster.p50))?;
        write!(out, " {} |", ratio(|round| round.measured.per_second))?;
        write!(out, " {:.1} µs, {:.1} µs |", micros(time), micros(less))?;
        writeln!(
            out,
            " {} |",
            ratio(|round| round.processor_time.as_secs_f64())
        )?;
    }
    writeln!(out)
}

/// What the removal of old rows costs.
fn write_pruned(out: &mut String, pruned: &[Pruned]) -> std::fmt::Result {
    writeln!(
        out,
        "| 64 callers | rows removed meanwhile | p50, p99 while | p50, p99 while not \
         | ratio of p99 (rounds) |"
    )?;
    writeln!(out, "|---|--:|--:|--:|--:|")?;
    for Pruned {
        title,
        with,
        without,
        removed,
    } in pruned
    {
        let (Some(slow), Some(fast)) = (median_of(with), median_of(without)) else {
            continue;
        };
        let rounds = with.iter().zip(without);
        let ratios = rounds.map(|(with, without)| with.p99.div_duration_f64(without.p99));
        let (low, high) = range(ratios.clone());
        let median = median(ratios, f64::total_cmp).unwrap_or(f64::NAN);
        writeln!(
            out,
            "| {title} | {removed} | {}, {} | {}, {} | **{median:.2}** ({low:.2}–{high:.2}) |",
            millis(slow.p50),
            millis(slow.p99),
            millis(fast.p50),
            millis(fast.p99),
        )?;
    }
    writeln!(out)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// How long calls took that were turned away.
fn write_refusals(out: &mut String, sorted: &[Duration]) -> std::fmt::Result {
    let at = |percent: usize| sorted.get(sorted.len() * percent / 100);
    let (Some(p50), Some(p99)) = (at(50), at(99)) else {
        return writeln!(out, "No call was turned away.");
    };
    writeln!(
        out,
        "Turned away, of 64 callers where 4 calls may be under way: {} calls, p50 {}, p99 {}\n",
        sorted.len(),
        millis(*p50),
        millis(*p99)
    )
}

/// How the late page of a long list compares with the first one.
fn write_pages(out: &mut String, pages: &Pages) -> std::fmt::Result {
    let (Some(first), Some(late)) = (median_of(&pages.first), median_of(&pages.late)) else {
        return Ok(());
    };
    let ratio =
        |late: &Measured, first: &Measured| late.p50.as_secs_f64() / first.p50.as_secs_f64();
    let rounds = pages.late.iter().zip(&pages.first);
    let (low, high) = range(rounds.map(|(late, first)| ratio(late, first)));
    writeln!(
        out,
        "| | p50 of page 1 | p50 of page {LATE_PAGE} | ratio of p50 (rounds) |"
    )?;
    writeln!(out, "|---|--:|--:|--:|")?;
    write!(out, "| ListTransitions, {PAGE_SIZE} of {MOVES} |")?;
    write!(out, " {} | {} |", millis(first.p50), millis(late.p50))?;
    writeln!(
        out,
        " **{:.2}** ({low:.2}–{high:.2}) |\n",
        ratio(&late, &first)
    )
}

/// The lowest and the highest.
fn range(ratios: impl Iterator<Item = f64>) -> (f64, f64) {
    ratios.fold((f64::MAX, f64::MIN), |(low, high), ratio| {
        (low.min(ratio), high.max(ratio))
    })
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
