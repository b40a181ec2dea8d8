//! Parses the command line, sets up logging, runs, and chooses the exit status:
//! 0, 1 for a failure, 64 for a wrong command line or setting (EX_USAGE).

use std::process::ExitCode;

use bridgebook::{
    cli::{Cli, CliError},
    ops::telemetry::Telemetry,
};
use clap::Parser;

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
    // Kept until the end, so that the last lines are written.
    let telemetry = match Telemetry::start(cli.log()) {
        Ok(telemetry) => telemetry,
        Err(fault) => {
            eprintln!("bridgebook: {fault}");
            return ExitCode::from(EX_USAGE);
        }
    };

    match cli.run(&telemetry).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = bridgebook::util::error_chain::error_chain(&error);
            match error {
                // Whoever collects the log wants to know of it most of all.
                CliError::Serve(_) => tracing::error!("{cause}"),
                _ => eprintln!("bridgebook: {cause}"),
            }
            match error {
                CliError::Usage(_) => ExitCode::from(EX_USAGE),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
