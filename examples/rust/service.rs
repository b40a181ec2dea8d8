//! How the examples reach the service, and how they end.

use std::{error::Error, process::ExitCode};

use bridgebook::{
    client::{self, Client},
    util::error_chain::error_chain,
};
use clap::Args;

/// The service that an example calls.
#[derive(Debug, Args)]
pub struct Service {
    /// Host and port of bridgebook, with the prefix https:// for TLS.
    #[arg(long, env = "BRIDGEBOOK_ADDRESS", default_value = "localhost:50051")]
    address: String,
    /// Credential of a token, if bridgebook requires tokens.
    #[arg(long, env = "BRIDGEBOOK_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Service {
    /// Returns a client, which connects with its first call.
    pub fn client(&self) -> Result<Client, Box<dyn Error>> {
        let channel = client::endpoint(&self.address)?.connect_lazy();
        Ok(match &self.token {
            Some(token) => Client::with_token(channel, token)?,
            None => Client::new(channel),
        })
    }
}

/// Returns the exit status of a program, and prints its error.
pub fn exit_code(program: &str, outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {}", error_chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
