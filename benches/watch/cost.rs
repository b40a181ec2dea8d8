//! Measures what the feed costs writers: by its index, and by watchers.
//!
//! The measurements alternate, so that noise of the machine and growth of the tables affect both sides
//! alike. CPU time per call shows small differences better than the rate.

use std::{sync::Arc, time::Duration};

use bridgebook::proto::v1::{WatchTransitionsRequest, watch_transitions_request::Begin};

use crate::{
    Result,
    calls::{NAMESPACE, Record, Start},
    load::{self, Call},
    measured::median,
    options::Options,
    stage::{Served, Stage},
    watchers::{PER_CONNECTION, Running, Watchers, connections},
    writers::entity_id,
};

/// The number of concurrent callers.
const CALLERS: usize = 64;
/// The index that only the feed needs.
const INDEX: &str = "idx_fsm_transitions_namespace_xid_seq";

/// Whether, and what, watchers watch during a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Nothing,
    /// Another namespace, in which nothing happens.
    Other,
    /// One entity each of the namespace that is written.
    Entities,
    /// All of it.
    All,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Round {
    per_second: f64,
    /// CPU time of the service and PostgreSQL per call.
    cpu_time: Duration,
}

/// The rounds of one variant and of what it is compared with.
struct Rounds {
    variant: Vec<Round>,
    baseline: Vec<Round>,
}

/// Prints the ratios of both calls.
pub async fn measure(stage: &Stage, options: &Options) -> Result<()> {
    let indexed = stage.serve("cost").await?;
    let bare = stage.serve("cost_without_index").await?;
    let drop = format!("DROP INDEX {INDEX}");
    stage.execute(bare.database, &drop).await?;
    println!(
        "| | | calls/s | without | ratio of rates (rounds) | ratio of CPU per call, service and PostgreSQL (rounds) |"
    );
    println!("|---|---|--:|--:|--:|--:|");
    let (start, record) = (Arc::new(Start), Arc::new(Record::default()));
    measure_index(stage, &start, [&indexed, &bare], options).await?;
    measure_index(stage, &record, [&indexed, &bare], options).await?;
    bare.service.stop().await?;
    for (watched, title) in [
        (Watched::Other, "watchers of another namespace"),
        (Watched::Entities, "watchers of one entity each"),
        (Watched::All, "watchers of every row"),
    ] {
        let title = format!("{} {title}", options.watchers);
        measure_watchers(stage, &start, &indexed, (watched, &title), options).await?;
        measure_watchers(stage, &record, &indexed, (watched, &title), options).await?;
    }
    println!();
    indexed.service.stop().await
}

/// Measures a call with the index and without it.
async fn measure_index<C: Call>(
    stage: &Stage,
    call: &Arc<C>,
    [indexed, bare]: [&Served; 2],
    options: &Options,
) -> Result<()> {
    let measure = async |is_variant| {
        let served = if is_variant { indexed } else { bare };
        measure_one(stage, call, served, Watched::Nothing, options).await
    };
    let rounds = alternate(options, measure).await?;
    rounds.print(C::TITLE, "the index");
    Ok(())
}

/// Measures a call with watchers and without them.
async fn measure_watchers<C: Call>(
    stage: &Stage,
    call: &Arc<C>,
    served: &Served,
    (watched, title): (Watched, &str),
    options: &Options,
) -> Result<()> {
    let measure = async |is_variant| {
        let watched = if is_variant {
            watched
        } else {
            Watched::Nothing
        };
        measure_one(stage, call, served, watched, options).await
    };
    let rounds = alternate(options, measure).await?;
    rounds.print(C::TITLE, title);
    Ok(())
}

/// Measures both sides in turns. Each goes first in every other round.
async fn alternate(
    options: &Options,
    measure: impl AsyncFn(bool) -> Result<Round>,
) -> Result<Rounds> {
    let (mut variant, mut baseline) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        for is_variant in [round % 2 != 0, round % 2 == 0] {
            let measured = measure(is_variant).await?;
            match is_variant {
                true => variant.push(measured),
                false => baseline.push(measured),
            }
        }
    }
    Ok(Rounds { variant, baseline })
}

async fn measure_one<C: Call>(
    stage: &Stage,
    call: &Arc<C>,
    served: &Served,
    watched: Watched,
    options: &Options,
) -> Result<Round> {
    let running = watch(served, watched, options).await?;
    stage.execute(served.database, "CHECKPOINT").await?;
    let window = options.window();
    let before = stage.cpu_time(served);
    let target = served.service.address.into();
    let measured = load::measure(call, &target, CALLERS, window).await?;
    let after = stage.cpu_time(served);
    if let Some(running) = running {
        running.finish(stage, served).await?;
    }
    let calls = measured.per_second * (window.warm_up + window.counted).as_secs_f64();
    let cpu_time = after.service - before.service + (after.postgres - before.postgres);
    let per_second = measured.per_second;
    eprintln!("  {} {watched:?}: {per_second:.0} calls/s", C::TITLE);
    Ok(Round {
        per_second,
        cpu_time: cpu_time.div_f64(calls),
    })
}

/// Opens watchers. They begin after a position, because a row of the round before may not be in the
/// feed yet, and one that watches from now leaves it out.
async fn watch(served: &Served, watched: Watched, options: &Options) -> Result<Option<Running>> {
    let namespace = match watched {
        Watched::Nothing => return Ok(None),
        Watched::Other => "other",
        Watched::Entities | Watched::All => NAMESPACE,
    };
    let request = WatchTransitionsRequest {
        namespace: namespace.to_owned(),
        ..WatchTransitionsRequest::default()
    };
    let address = served.service.address;
    let count = usize::try_from(options.watchers)?;
    let connections = connections(address, count.div_ceil(PER_CONNECTION)).await?;
    let now = Watchers::open(address, &connections, vec![request.clone()]).await?;
    let begin = Begin::After(now.ready()?);
    let requests = (0..options.watchers).map(|number| WatchTransitionsRequest {
        entity_id: match watched {
            Watched::Entities => entity_id(0, number).to_string(),
            Watched::Nothing | Watched::Other | Watched::All => String::new(),
        },
        begin: Some(begin.clone()),
        ..request.clone()
    });
    let watchers = Watchers::open(address, &connections, requests.collect()).await?;
    Ok(Some(watchers.run(None)))
}

impl Rounds {
    fn print(&self, call: &str, title: &str) {
        let middle = |rounds: &[Round]| {
            let rates = rounds.iter().map(|round| round.per_second);
            median(rates, f64::total_cmp).unwrap_or_default()
        };
        println!(
            "| {call} | {title} | {:.0} | {:.0} | {} | {} |",
            middle(&self.variant),
            middle(&self.baseline),
            self.ratio(|round| round.per_second),
            self.ratio(|round| round.cpu_time.as_secs_f64())
        );
    }

    /// Returns the ratio of the medians, and the lowest and highest ratio of a round.
    fn ratio(&self, of: fn(&Round) -> f64) -> String {
        let middle = |rounds: &[Round]| median(rounds.iter().map(of), f64::total_cmp);
        let ratio =
            middle(&self.variant).unwrap_or_default() / middle(&self.baseline).unwrap_or_default();
        let rounds = self.variant.iter().zip(&self.baseline);
        let ratios = rounds.map(|(variant, baseline)| of(variant) / of(baseline));
        let (low, high) = ratios.fold((f64::MAX, f64::MIN), |(low, high), ratio| {
            (low.min(ratio), high.max(ratio))
        });
        format!("**{ratio:.3}** ({low:.2}–{high:.2})")
    }
}
