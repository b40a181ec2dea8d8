//! Shows how many entities of a namespace are in each state, live.
//!
//!     cargo run --example state_board -- --namespace demo --once   # without --once, live
//!
//! A watch begins with the present states of all entities, and goes on with their transitions, so that
//! the board is a live copy. No query is repeated, so it costs the service almost nothing while nothing
//! happens.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use bridgebook::{
    client::watch::{Event, Watch},
    proto::v1::WatchTransitionsRequest,
    util::excerpt::excerpt,
};
use clap::Parser;
use tokio::time::timeout;

mod service;

use service::{Service, exit_code};

/// How long the board waits for further transitions before it is drawn, and how long at most. Faster
/// changes cannot be read.
const QUIET: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(250);

/// Length of the longest bar, in characters.
const BAR: u64 = 40;

/// Clears the screen and moves the cursor to its begin.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Shows how many entities are in each state, until Ctrl-C.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    service: Service,
    /// Tenant whose entities are counted; or bridgebook.registry for nodes.
    #[arg(long, default_value = "demo")]
    namespace: String,
    /// Print the present board once, and end.
    #[arg(long)]
    once: bool,
}

/// The states of workflows, all of which the board shows.
const WORKFLOW_STATES: [&str; 5] = ["PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"];

/// The types of the service whose entities can be deleted, with the state that the journal has then. For
/// other types these are names like any other.
const GONE: [(&str, &str); 3] = [
    ("workflow", "DELETED"),
    ("bridge", "DELETED"),
    ("node", "DEREGISTERED"),
];

/// The present states, by the type and the id of the entities.
#[derive(Debug, Default)]
struct Board(HashMap<(String, String), String>);

impl Board {
    fn set(&mut self, entity_type: String, entity_id: String, state: String) {
        match GONE.contains(&(&*entity_type, &*state)) {
            true => self.0.remove(&(entity_type, entity_id)),
            false => self.0.insert((entity_type, entity_id), state),
        };
    }

    fn draw(&self) -> String {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for ((kind, _), state) in &self.0 {
            *counts.entry((kind, state)).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or(1);
        let mut text = String::new();
        for ((kind, state), count) in counts {
            let bar = "█".repeat(usize::try_from(count * BAR / most).unwrap_or_default());
            let (kind, state) = (excerpt(kind, 20), excerpt(state, 24));
            let _ = writeln!(text, "{kind:20}  {state:24}  {count:>8}  {bar}");
        }
        text
    }
}

fn show(board: &Board, is_live: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    let clear = if is_live { CLEAR } else { "" };
    write!(output, "{clear}{}", board.draw())?;
    output.flush()
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let client = arguments.service.client()?;
    let request = WatchTransitionsRequest {
        namespace: arguments.namespace.clone(),
        with_snapshot: true,
        workflow_states: WORKFLOW_STATES.map(str::to_owned).into(),
        ..WatchTransitionsRequest::default()
    };
    let mut watch = Watch::new(&client, request);
    let mut board = Board::default();
    let is_live = !arguments.once && io::stdout().is_terminal();
    let (mut is_ready, mut has_changed) = (false, true);
    let mut drawn_at = Instant::now();
    loop {
        // Nothing is lost if the wait for the next event is given up.
        let event = timeout(QUIET, watch.next()).await;
        let is_quiet = event.is_err();
        match event.ok().transpose()? {
            Some(Event::Snapshot(states)) => {
                for it in states {
                    board.set(it.entity_type, it.entity_id, it.current_state);
                }
                has_changed = true;
            }
            Some(Event::Transitions(transitions)) => {
                for it in transitions {
                    board.set(it.entity_type, it.entity_id, it.to_state);
                }
                has_changed = true;
            }
            Some(Event::Ready) if arguments.once => return Ok(show(&board, is_live)?),
            Some(Event::Ready) => is_ready = true,
            Some(Event::Interrupted(it)) => {
                eprintln!("interrupted: {}", it.status.message());
                if watch.position().is_none() {
                    // The next stream begins with all states again.
                    board = Board::default();
                    is_ready = false;
                }
            }
            Some(Event::Bookmark(_)) | None => {}
        }
        let is_due = is_quiet || drawn_at.elapsed() > LONGEST;
        if is_ready && has_changed && is_due {
            show(&board, is_live)?;
            (has_changed, drawn_at) = (false, Instant::now());
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code("state_board", run(Arguments::parse()).await)
}
