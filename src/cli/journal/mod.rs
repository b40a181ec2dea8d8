//! `bridgebook journal`: reads the journal of a running service.

mod print;

use std::io::{self, IsTerminal, Write};

use clap::{Args, ColorChoice, Subcommand, ValueEnum};
use tonic::Status;

use self::print::Printer;
use super::{CliError, reason_or_code, remote};
use crate::{
    client::watch::{Event, Interruption, Watch, oldest_position},
    proto::v1::{FsmTransition, WatchTransitionsRequest, watch_transitions_request},
    util::excerpt::excerpt,
};

/// Prefixes of enums, which the names of states in the journal do not have.
const ENUM_PREFIXES: [&str; 2] = ["WORKFLOW_STATE_", "NODE_HEALTH_"];

/// Maximum length of the error of a service or a connection in a line, in characters.
const MAX_ERROR: usize = 300;

#[derive(Debug, Subcommand)]
pub(super) enum Journal {
    /// Follow the journal: print each state change once, in the order of the journal, until
    /// interrupted. Goes on after a break of the connection.
    Tail(Box<Tail>),
}

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// The namespace; or the beginning of its name and *, as in 'team-*', for all namespaces that
    /// begin so; or bridgebook.registry for the state changes of nodes.
    namespace: String,
    /// Print only state changes of this type: workflow, bridge, node, or a type of your own.
    #[arg(long, value_name = "TYPE")]
    entity_type: Option<String>,
    /// Print only state changes of the entity with this id.
    #[arg(long, value_name = "UUID")]
    entity_id: Option<String>,
    /// Print only state changes that this event caused.
    #[arg(long)]
    event: Option<String>,
    /// Print only state changes that entered this state, such as COMPLETED.
    #[arg(long, value_name = "STATE")]
    to_state: Option<String>,
    #[command(flatten)]
    begin: Begin,
    /// End after this many state changes. Default: never.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print a line of text, or a JSON object with the names of the API, for each state change.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// Color the text. auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
    #[command(flatten)]
    service: remote::Remote,
}

/// Where to begin.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Begin {
    /// Begin with the oldest state change that retention has left. Default: with those from now on.
    #[arg(long)]
    from_start: bool,
    /// Begin after this position, which a state change or a write has returned.
    #[arg(long, value_name = "POSITION")]
    after: Option<String>,
    /// Begin after what this bridge has consumed.
    #[arg(long, value_name = "UUID")]
    after_bridge: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Journal {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Journal::Tail(tail) = self;
        tail.run().await
    }
}

impl Begin {
    fn to_proto(&self) -> watch_transitions_request::Begin {
        use watch_transitions_request::Begin;
        match (&self.after, &self.after_bridge) {
            (Some(position), _) => Begin::After(position.clone()),
            (None, Some(id)) => Begin::AfterBridge(id.clone()),
            (None, None) if self.from_start => Begin::FromStart(true),
            (None, None) => Begin::FromNow(true),
        }
    }
}

impl Tail {
    async fn run(self) -> Result<(), CliError> {
        self.warn_of_prefixes();
        let request = self.request();
        let printer = self.printer();
        let client = self.service.connect().await?;
        let mut watch = Watch::new(&client, request);
        let mut log = ConnectionLog {
            told: None,
            has_begin: !matches!(
                self.begin.to_proto(),
                watch_transitions_request::Begin::FromNow(_)
            ),
        };
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            match watch.next().await.map_err(failed)? {
                Event::Ready => log.ready(),
                Event::Interrupted(interruption) => log.interrupted(&interruption),
                Event::Bookmark(_) | Event::Snapshot(_) => {}
                Event::Transitions(mut transitions) => {
                    transitions.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    left -= transitions.len() as u64;
                    write_lines(&printer, &transitions)?;
                }
            }
        }
        Ok(())
    }

    fn request(&self) -> WatchTransitionsRequest {
        let text = |filter: &Option<String>| filter.clone().unwrap_or_default();
        WatchTransitionsRequest {
            namespace: self.namespace.clone(),
            entity_type: text(&self.entity_type),
            entity_id: text(&self.entity_id),
            transition_event: text(&self.event),
            to_state: text(&self.to_state),
            begin: Some(self.begin.to_proto()),
            ..WatchTransitionsRequest::default()
        }
    }

    /// Says that a filter matches nothing if it has the prefix of an enum.
    fn warn_of_prefixes(&self) {
        for (option, value) in [("--to-state", &self.to_state), ("--event", &self.event)] {
            let value = value.as_deref().unwrap_or_default();
            let mut prefixes = ENUM_PREFIXES.iter();
            if let Some(name) = prefixes.find_map(|prefix| value.strip_prefix(prefix)) {
                say(&format!(
                    "warning: the journal has names without the prefix of an enum: {option} {name}, not {value}"
                ));
            }
        }
    }

    fn printer(&self) -> Printer {
        match self.output {
            Format::Json => Printer::Json,
            Format::Text => Printer::Text {
                has_color: has_color(self.color),
                has_namespace: self.namespace.ends_with('*'),
            },
        }
    }
}

fn has_color(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
            !is_unwanted && io::stdout().is_terminal()
        }
    }
}

/// Writes whole lines at once, so that an interruption leaves no part of one.
fn write_lines(printer: &Printer, transitions: &[FsmTransition]) -> io::Result<()> {
    let lines: String = transitions.iter().map(|it| printer.line(it)).collect();
    let mut output = io::stdout().lock();
    output.write_all(lines.as_bytes())?;
    output.flush()
}

fn failed(status: Status) -> CliError {
    match oldest_position(&status) {
        Some(oldest_position) => CliError::ResumePointGone { oldest_position },
        None => CliError::Call(Box::new(status)),
    }
}

/// Tells on standard error when the connection is lost, and when it is there again. An outage that goes
/// on is told once.
struct ConnectionLog {
    told: Option<String>,
    /// Whether the next stream begins where nothing is missed. One from now on does so only after another
    /// one was ready.
    has_begin: bool,
}

impl ConnectionLog {
    fn interrupted(&mut self, Interruption { status, .. }: &Interruption) {
        let cause = format!("{}: {}", reason_or_code(status), status.message());
        if self.told.as_ref() != Some(&cause) {
            say(&format!("interrupted, watching again soon: {cause}"));
            self.told = Some(cause);
        }
    }

    fn ready(&mut self) {
        if self.told.take().is_some() {
            say(match self.has_begin {
                true => "watching again; nothing was missed",
                false => "watching from now on",
            });
        }
        self.has_begin = true;
    }
}

/// Prints a line on standard error. A closed one is no reason to end.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "bridgebook: {}", excerpt(text, MAX_ERROR));
}
