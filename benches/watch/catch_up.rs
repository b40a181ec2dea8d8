//! Measures a watcher that reads an old journal.

use std::time::Instant;

use bridgebook::proto::v1::{WatchTransitionsRequest, watch_transitions_request::Begin};

use crate::{
    Result,
    measured::median,
    options::Options,
    stage::{Served, Stage},
    watchers::{Watchers, connections},
    writers::{ENTITY_TYPE, entity_id},
};

/// The namespace of the journal.
const NAMESPACE: &str = "catch-up";
/// The entities of the journal. The filter selects the rows of one of them.
const ENTITIES: u64 = 1000;
/// The rows of a transaction, as of a batch of the service.
const PER_COMMIT: u64 = 500;

/// Prints the rows per second of one watcher, with and without a filter.
pub async fn measure(stage: &Stage, options: &Options) -> Result<()> {
    eprintln!("catch_up: {} rows", options.journal);
    let served = stage.serve("catch_up").await?;
    fill(stage, &served, options.journal).await?;
    println!(
        "| | rows of the journal | rows received | rows/s (rounds) | CPU of the service, PostgreSQL |"
    );
    println!("|---|--:|--:|--:|--:|");
    // The entity of the last row, so that the watcher passes all rows before it.
    let last = entity_id(0, options.journal % ENTITIES).to_string();
    for (title, entity_id) in [("every row", String::new()), ("rows of an entity", last)] {
        let request = WatchTransitionsRequest {
            namespace: NAMESPACE.to_owned(),
            entity_id,
            begin: Some(Begin::FromStart(true)),
            ..WatchTransitionsRequest::default()
        };
        let (mut rates, mut received, mut cpu_time) = (Vec::new(), 0, String::new());
        for _ in 0..options.rounds {
            let connections = connections(served.service.address, 1).await?;
            let requests = vec![request.clone()];
            let before = stage.cpu_time(&served);
            let begun = Instant::now();
            let watchers = Watchers::open(served.service.address, &connections, requests).await?;
            let all = watchers.run(None).finish(stage, &served).await?;
            let ended = all.iter().filter_map(|it| it.last_at).max();
            let time = ended.ok_or("no row was received")? - begun;
            cpu_time = stage.cpu_time(&served).percent_since(before, time);
            received = all.iter().map(|it| it.seen.rows).sum();
            rates.push(options.journal as f64 / time.as_secs_f64());
        }
        let low = rates.iter().copied().fold(f64::MAX, f64::min);
        let high = rates.iter().copied().fold(f64::MIN, f64::max);
        let median = median(rates.iter().copied(), f64::total_cmp).unwrap_or_default();
        println!(
            "| {title} | {} | {received} | **{median:.0}** ({low:.0}–{high:.0}) | {cpu_time} |",
            options.journal
        );
    }
    println!();
    served.service.stop().await
}

/// Inserts the journal.
async fn fill(stage: &Stage, served: &Served, rows: u64) -> Result<()> {
    let (high, _) = entity_id(0, 0).as_u64_pair();
    let fill = format!(
        "DO $$ BEGIN
            FOR low IN 1..{rows} BY {PER_COMMIT} LOOP
                INSERT INTO fsm_transitions
                    (id, namespace, entity_id, entity_type, to_state, transition_event)
                SELECT gen_random_uuid(), '{NAMESPACE}',
                       (lpad(to_hex({high}), 16, '0') || lpad(to_hex(number % {ENTITIES}), 16, '0'))::uuid,
                       '{ENTITY_TYPE}', 'RUNNING', 'progress'
                  FROM generate_series(low, least(low + {PER_COMMIT} - 1, {rows})) AS number;
                COMMIT;
            END LOOP;
         END $$"
    );
    stage.execute(served.database, &fill).await?;
    stage.execute(served.database, "VACUUM ANALYZE").await
}
