//! Shows how many entities of a namespace are in each state, live.
//!
//!     cargo run --example state_board -- --namespace demo --once   # without --once, live
//!
//! It begins with a snapshot of the present states, and changes the counts with each transition. No
//! query is repeated, so the board costs the service almost nothing while nothing happens. Workflows
//! that have ended are counted only from the begin on.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use bridgebook::{
    client::{
        self, Client,
        watch::{Event, Watch},
    },
    proto::v1::{FsmTransition, WatchTransitionsRequest, WatchedState},
    util::excerpt::excerpt,
};
use clap::Parser;
use tokio::time::timeout;

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
    /// Host and port of bridgebook, with the prefix https:// for TLS.
    #[arg(long, env = "BRIDGEBOOK_ADDRESS", default_value = "localhost:50051")]
    address: String,
    /// Credential of a token, if bridgebook requires tokens.
    #[arg(long, env = "BRIDGEBOOK_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Tenant whose entities are counted; or bridgebook.registry for nodes.
    #[arg(long, default_value = "demo")]
    namespace: String,
    /// Print the present board once, and end.
    #[arg(long)]
    once: bool,
}

/// The number of entities, by their type and state.
#[derive(Debug, Default)]
struct Board(BTreeMap<(String, String), u64>);

impl Board {
    fn add(&mut self, state: WatchedState) {
        let key = (state.entity_type, state.current_state);
        *self.0.entry(key).or_default() += 1;
    }

    fn apply(&mut self, transition: FsmTransition) {
        let kind = transition.entity_type;
        if let Some(state) = transition.from_state {
            let left = self.0.get_mut(&(kind.clone(), state));
            // None: the transition into this state was removed.
            if let Some(count) = left {
                *count = count.saturating_sub(1);
            }
        }
        *self.0.entry((kind, transition.to_state)).or_default() += 1;
    }

    fn draw(&self) -> String {
        let most = self.0.values().copied().max().unwrap_or_default().max(1);
        let mut text = String::new();
        for ((kind, state), count) in self.0.iter().filter(|(_, count)| **count > 0) {
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
    let channel = client::endpoint(&arguments.address)?.connect_lazy();
    let client = match &arguments.token {
        Some(token) => Client::with_token(channel, token)?,
        None => Client::new(channel),
    };
    let request = WatchTransitionsRequest {
        namespace: arguments.namespace.clone(),
        with_snapshot: true,
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
            Some(Event::Transitions(transitions)) => {
                transitions.into_iter().for_each(|it| board.apply(it));
                has_changed = true;
            }
            // Those of a snapshot that broke off come again.
            Some(Event::Interrupted(_)) if !is_ready => board = Board::default(),
            Some(Event::Snapshot(states)) => states.into_iter().for_each(|it| board.add(it)),
            Some(Event::Ready) if arguments.once => return Ok(show(&board, is_live)?),
            Some(Event::Ready) => is_ready = true,
            Some(Event::Interrupted(it)) => eprintln!("interrupted: {}", it.status.message()),
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
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "state_board: {}",
                bridgebook::util::error_chain::error_chain(error.as_ref())
            );
            ExitCode::FAILURE
        }
    }
}
