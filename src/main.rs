//! Parses the command line, sets up logging, runs, and chooses the exit status:
//! 0, 1 for a failure, 64 for a wrong command line or setting (EX_USAGE).

use std::{io::IsTerminal, process::ExitCode};

use bridgebook::cli::{Cli, CliError};
use clap::Parser;
use tracing_subscriber::EnvFilter;

const EX_USAGE: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where there is no terminal to print to, there is nobody to tell.
            let _ = error.print();
            let is_error = error.use_stderr();
            return ExitCode::from(if is_error { EX_USAGE } else { 0 });
        }
    };
    let filter = EnvFilter::try_from_env("BRIDGEBOOK_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();

    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bridgebook: {}", bridgebook::error::chain(&error));
            match error {
                CliError::Usage(_) => ExitCode::from(EX_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
