//! What a process tells of itself while it runs: its log, and its traces if somebody
//! takes them. Figures are in `metrics`.

mod otlp;

use std::{io::IsTerminal, panic::PanicHookInfo};

use clap::{Args, ValueEnum};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
};

use self::otlp::Traces;
use crate::ops::spans;

/// How many lines may wait until somebody takes them. Beyond that they are left out,
/// and counted: who serves calls does not wait for who reads the log.
const BUFFERED_LINES: usize = 65_536;

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// What to log: a level, and others for some targets, as in
    /// info,bridgebook::call=warn,bridgebook::audit=off
    #[arg(
        long,
        env = "BRIDGEBOOK_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true
    )]
    log: String,

    /// How to log: for people, or an object in JSON on each line.
    #[arg(
        long,
        env = "BRIDGEBOOK_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "pretty",
        global = true
    )]
    log_format: LogFormat,

    /// Whom to send traces to, over OTLP and gRPC, as in http://localhost:4317; what else
    /// OpenTelemetry's SDKs read from the environment (OTEL_TRACES_SAMPLER,
    /// OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_BSP_*) holds, too. Default: nobody.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", global = true)]
    otlp_endpoint: Option<String>,
}

/// How to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line for people.
    Pretty,
    /// An object in JSON.
    Json,
}

/// Writes what is still to be written when it is dropped.
pub struct Telemetry {
    _traces: Option<Traces>,
    _lines: WorkerGuard,
    dropped_lines: ErrorCounter,
}

impl Telemetry {
    /// Begins to log, and to trace if that is wanted. Has to be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn start(settings: &LogSettings) -> Result<Self, String> {
        let filter = EnvFilter::try_new(&settings.log)
            .map_err(|error| format!("--log: {:?}: {error}", settings.log))?;
        let (writer, lines) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(BUFFERED_LINES)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped_lines = writer.error_counter();
        // Spans are for traces, and not for the log.
        let is_event = filter_fn(|metadata| metadata.target() != spans::TARGET);
        let log = log(settings, writer).with_filter(filter.and(is_event));
        // Set but empty is how some files say "not set".
        let endpoint = settings
            .otlp_endpoint
            .as_deref()
            .filter(|it| !it.is_empty());
        let traces = endpoint.map(Traces::to).transpose()?;
        let spans = traces.as_ref().map(Traces::layer);
        let subscriber = Registry::default().with(log).with(spans);
        // There is one already only where somebody uses us as a library.
        let _ = tracing::subscriber::set_global_default(subscriber);
        std::panic::set_hook(Box::new(log_panic));
        Ok(Telemetry {
            _traces: traces,
            _lines: lines,
            dropped_lines,
        })
    }

    /// How many lines were left out because nobody took them.
    #[must_use]
    pub fn dropped_lines(&self) -> ErrorCounter {
        self.dropped_lines.clone()
    }
}

fn log(settings: &LogSettings, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match settings.log_format {
        LogFormat::Pretty => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Where something is wrong that never should be.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        location = panic.location().map(tracing::field::display),
        "panicked: {}",
        text.unwrap_or("without a word")
    );
}
