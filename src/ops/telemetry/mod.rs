//! Telemetry: sets up the log of the process, and its traces if an endpoint is set.

mod otlp;

use std::{io::IsTerminal, panic::PanicHookInfo};

use clap::{Args, ValueEnum};
use tracing::{Dispatch, dispatcher::set_global_default};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, LevelFilter, filter_fn},
    layer::SubscriberExt,
};

use self::otlp::Traces;
use crate::{ops::spans, util::excerpt::excerpt};

/// The lines that wait for a slow reader of the log. Further lines are dropped and counted, because
/// calls must not wait for the log.
const BUFFERED_LINES: usize = 65_536;

/// The levels of libraries that log what clients send, once per frame at worst. `--log` can raise
/// them.
const QUIET: &str = "h2=error,hyper=error";
/// Maximum length of the text of a panic, in characters: it may repeat a value of a request.
const MAX_PANIC: usize = 1000;

/// Settings of logs and traces.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// Log events of this level and above, with other levels for some targets, as in
    /// info,bridgebook::call=warn,bridgebook::audit=off
    #[arg(
        long,
        env = "BRIDGEBOOK_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true
    )]
    log: String,

    /// Write the log in this format.
    #[arg(
        long,
        env = "BRIDGEBOOK_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "pretty",
        global = true
    )]
    log_format: LogFormat,

    /// Send traces to this collector with OTLP over gRPC, as in http://localhost:4317. The
    /// variables OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_BSP_*
    /// apply too. Default: off.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", global = true)]
    otlp_endpoint: Option<String>,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One readable line for each event.
    Pretty,
    /// One JSON object for each event.
    Json,
}

/// The running telemetry. Dropping it writes the last lines and spans.
pub struct Telemetry {
    _traces: Option<Traces>,
    _lines: WorkerGuard,
    dropped_lines: ErrorCounter,
}

impl Telemetry {
    /// Starts the log, and traces if an endpoint is set. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub fn start(settings: &LogSettings) -> Result<Self, String> {
        check_directives(&settings.log)?;
        let filter = EnvFilter::try_new(format!("{QUIET},{}", settings.log)).map_err(|error| {
            format!("--log: expected a filter, got {:?}: {error}", settings.log)
        })?;
        let (writer, lines) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(BUFFERED_LINES)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped_lines = writer.error_counter();
        // Some tools set a variable to nothing instead of unsetting it.
        let endpoint = settings
            .otlp_endpoint
            .as_deref()
            .filter(|it| !it.is_empty());
        let traces = endpoint.map(Traces::to).transpose()?;
        // Fails only if a program that uses this library has set one already.
        let _ = set_global_default(dispatch(log(settings, writer), filter, traces.as_ref()));
        std::panic::set_hook(Box::new(log_panic));
        Ok(Telemetry {
            _traces: traces,
            _lines: lines,
            dropped_lines,
        })
    }

    /// Returns the counter of lines that were dropped because the buffer was full.
    #[must_use]
    pub fn dropped_lines(&self) -> ErrorCounter {
        self.dropped_lines.clone()
    }
}

/// Rejects a mistyped level, which `EnvFilter` takes for the name of a target. It would then log
/// nothing else, not even why the service does not start.
fn check_directives(log: &str) -> Result<(), String> {
    let is_unknown = |directive: &&str| {
        let is_level = directive.trim().parse::<LevelFilter>().is_ok();
        !is_level && !directive.contains(['=', '['])
    };
    // The fields of a span may contain commas.
    let mut directives = log
        .split(',')
        .filter(|_| !log.is_empty() && !log.contains('['));
    match directives.find(is_unknown) {
        Some(unknown) => Err(format!(
            "--log: expected off, error, warn, info, debug, trace, or TARGET=LEVEL, got {unknown:?}"
        )),
        None => Ok(()),
    }
}

/// Puts the log and the traces together. Spans go to traces only.
fn dispatch(
    log: impl Layer<Registry> + Send + Sync,
    filter: EnvFilter,
    traces: Option<&Traces>,
) -> Dispatch {
    let is_event = filter_fn(|metadata| metadata.target() != spans::TARGET);
    let subscriber = Registry::default().with(log.with_filter(filter.and(is_event)));
    match traces {
        Some(traces) => subscriber.with(traces.layer()).into(),
        // With a layer that is `None`, the registry would keep every span.
        None => subscriber.into(),
    }
}

fn log(settings: &LogSettings, writer: NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match settings.log_format {
        LogFormat::Pretty => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Logs a panic as one line instead of printing it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        location = panic.location().map(tracing::field::display),
        "panicked: {}",
        excerpt(text.unwrap_or("no message"), MAX_PANIC)
    );
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tracing::dispatcher::with_default;
    use tracing_subscriber::fmt;

    use super::*;
    use crate::proto::Method;

    #[tokio::test]
    async fn spans_are_kept_for_traces_only() {
        let span = || spans::call(Method::from_path("/a.B/C"), &HeaderMap::new());
        let filter = || EnvFilter::new("trace");
        let traces = Traces::to("http://127.0.0.1:1").unwrap();
        with_default(&dispatch(fmt::layer(), filter(), Some(&traces)), || {
            assert!(!span().is_disabled());
        });
        with_default(&dispatch(fmt::layer(), filter(), None), || {
            assert!(span().is_disabled());
        });
    }
}
