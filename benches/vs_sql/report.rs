//! Formats the results as Markdown tables.

use std::{fmt::Write, thread::available_parallelism, time::Duration};

use crate::{
    guard::{CALLERS, Guard, OVERLOAD_LIMIT},
    measured::{Measured, median, median_of},
    options::Options,
    pages::{LATE_PAGE, MOVES, PAGE_SIZE, Pages},
    pair::{PairRounds, Round},
    pgbench::CONNECTIONS,
    prune::Pruned,
    scenario::Comparison,
};

/// All results.
#[derive(Default)]
pub struct Report {
    /// The version of PostgreSQL.
    pub version: String,
    /// The RPCs that were compared with pgbench.
    pub comparisons: Vec<Comparison>,
    /// The RPCs that were compared with another build.
    pub builds: Vec<PairRounds>,
    /// The pages of a long list.
    pub pages: Option<Pages>,
    /// The cost of tokens and limits.
    pub guard: Option<Guard>,
    /// The cost of pruning.
    pub prune: Vec<Pruned>,
    /// The server's peak memory in KiB.
    pub peak_memory: Option<u64>,
    /// The startup times on an existing cluster.
    pub starts: Vec<Duration>,
}

impl Report {
    /// Writes all tables.
    pub fn write(&self, options: &Options) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let cores = available_parallelism().map_or(0, usize::from);
        writeln!(
            out,
            "{cores} cores shared by PostgreSQL {}, the server and the load generator; {} rounds of \
             {} s in turns; medians.\n",
            self.version,
            options.rounds,
            options.window().counted.as_secs()
        )?;
        if !self.comparisons.is_empty() {
            self.write_ratios(&mut out)?;
            self.write_peer(&mut out)?;
        }
        if !self.builds.is_empty() {
            write_pairs(&mut out, ["new", "old"], &self.builds)?;
        }
        if let Some(pages) = &self.pages {
            write_pages(&mut out, pages)?;
        }
        if let Some(guard) = &self.guard {
            write_pairs(
                &mut out,
                ["with tokens and limits", "without"],
                &guard.costs,
            )?;
            write_rejections(&mut out, &guard.rejections)?;
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
                "Startup on an existing cluster, from the process start to SERVING: {:.0} ms",
                median.as_secs_f64() * 1e3
            )?;
        }
        Ok(out)
    }

    fn write_ratios(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "| | callers | bridgebook | p50 | p99 | pgbench | p50 | p99 | ratio of rates (rounds) \
             | ratio of p50 |"
        )?;
        writeln!(out, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for comparison in &self.comparisons {
            for (callers, service) in comparison.service.medians() {
                write_ratio(out, comparison, callers, service)?;
            }
        }
        writeln!(out)
    }

    /// Writes pgbench's rates for each number of connections.
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

/// Up to this number, each caller could have its own database connection, so pgbench gets one
/// per caller. More callers share connections in any service, so pgbench gets its best number.
const MAX_DEDICATED_CONNECTIONS: usize = 16;

/// Returns the number of connections that pgbench is compared with.
fn peer_of(comparison: &Comparison, callers: usize) -> Option<usize> {
    match callers <= MAX_DEDICATED_CONNECTIONS && CONNECTIONS.contains(&callers) {
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
        // With fewer connections than callers, a caller would first wait for a connection.
        // pgbench's latency leaves that out.
        false => writeln!(out, " |"),
    }
}

/// Writes the comparison of two services. Ratios are those of the first to the second.
fn write_pairs(out: &mut String, names: [&str; 2], pairs: &[PairRounds]) -> std::fmt::Result {
    let [candidate, baseline] = names;
    writeln!(
        out,
        "| | callers | {candidate} | p50 | p99 | {baseline} | p50 | p99 | ratio of rates (rounds) \
         | ratio of p50 (rounds) | server CPU per call or row | ratio of CPU (rounds) |"
    )?;
    writeln!(out, "|---|{}", "--:|".repeat(11))?;
    for pair in pairs {
        write_pair(out, pair)?;
    }
    writeln!(out)
}

fn write_pair(out: &mut String, pair: &PairRounds) -> std::fmt::Result {
    let middle = |rounds: &[Round]| {
        let measured: Vec<_> = rounds.iter().map(|round| round.measured).collect();
        let cpu_time = median(rounds.iter().map(|round| round.cpu_time), Ord::cmp);
        median_of(&measured).zip(cpu_time)
    };
    let sides = middle(&pair.candidate).zip(middle(&pair.baseline));
    let Some(((candidate, cpu), (baseline, baseline_cpu))) = sides else {
        return Ok(());
    };
    let ratio = |of: fn(&Round) -> f64| {
        let rounds = pair.candidate.iter().zip(&pair.baseline);
        let ratios = rounds.map(move |(candidate, baseline)| of(candidate) / of(baseline));
        let (low, high) = range(ratios.clone());
        let median = median(ratios, f64::total_cmp).unwrap_or(f64::NAN);
        format!("**{median:.2}** ({low:.2}–{high:.2})")
    };
    write!(out, "| {} | {} |", pair.title, pair.callers)?;
    for side in [candidate, baseline] {
        write!(out, " {:.0} {}/s |", side.per_second, pair.unit)?;
        write!(out, " {} | {} |", millis(side.p50), millis(side.p99))?;
    }
    write!(out, " {} |", ratio(|round| round.measured.per_second))?;
    write!(
        out,
        " {} |",
        ratio(|round| round.measured.p50.as_secs_f64())
    )?;
    write!(
        out,
        " {:.1} µs, {:.1} µs |",
        micros(cpu),
        micros(baseline_cpu)
    )?;
    writeln!(out, " {} |", ratio(|round| round.cpu_time.as_secs_f64()))
}

/// Writes the cost of pruning.
fn write_pruned(out: &mut String, pruned: &[Pruned]) -> std::fmt::Result {
    writeln!(
        out,
        "| 64 callers | rows pruned | p50, p99 with pruning | p50, p99 without \
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

/// Writes the latencies of rejected calls.
fn write_rejections(out: &mut String, sorted: &[Duration]) -> std::fmt::Result {
    let at = |percent: usize| sorted.get(sorted.len() * percent / 100);
    let (Some(p50), Some(p99)) = (at(50), at(99)) else {
        return writeln!(out, "No call was rejected.");
    };
    writeln!(
        out,
        "Rejected calls, {CALLERS} callers and --max-requests {OVERLOAD_LIMIT}: {}, p50 {}, p99 {}\n",
        sorted.len(),
        millis(*p50),
        millis(*p99)
    )
}

/// Writes the latency of the late page and of the first one.
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

/// Returns the lowest and the highest ratio.
fn range(ratios: impl Iterator<Item = f64>) -> (f64, f64) {
    ratios.fold((f64::MAX, f64::MIN), |(low, high), ratio| {
        (low.min(ratio), high.max(ratio))
    })
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
