//! The program `bridgebook`: parses the command line, starts telemetry and runs the command.
//!
//! Exit status: 0 for success, 1 for a failure, 64 for an invalid command line or setting (EX_USAGE),
//! 141 if the reader of the output has gone.

use std::{io::Write, process::ExitCode};

use bridgebook::{
    cli::{Cli, CliError},
    ops::telemetry::Telemetry,
};
use clap::Parser;

/// Gives the memory of large documents back to the system, which glibc's allocator does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EX_USAGE: u8 = 64;

/// The exit status that a shell reports for a program that SIGPIPE has ended.
const CLOSED_PIPE: u8 = 128 + 13;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed output leaves no place to report the error.
            let _ = error.print();
            let is_error = error.use_stderr();
            return ExitCode::from(if is_error { EX_USAGE } else { 0 });
        }
    };
    // Lives until the end, so that the last lines are written.
    let telemetry = match Telemetry::start(cli.log()) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EX_USAGE);
        }
    };

    match cli.run(&telemetry).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::from(CLOSED_PIPE),
        Err(error) => {
            let cause = bridgebook::util::error_chain::error_chain(&error);
            match error {
                // A failure of the service belongs into its log.
                CliError::Serve(_) => tracing::error!("{cause}"),
                _ => complain(&cause),
            }
            match error {
                CliError::Usage(_) => ExitCode::from(EX_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints an error. Unlike `eprintln`, does not panic if standard error is closed.
fn complain(error: &str) {
    let _ = writeln!(std::io::stderr(), "bridgebook: {error}");
}
