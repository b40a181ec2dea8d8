//! `bridgebook fsm`: shows state machines of a running service.

use std::io::Write;

use clap::{Args, Subcommand};

use super::{CliError, remote};
use crate::proto::v1::GetMachineRequest;

#[derive(Debug, Subcommand)]
pub(super) enum Fsm {
    /// Print a state machine as a Mermaid diagram.
    Show(Show),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The entity type of the machine; `workflow` is built in.
    entity_type: String,
    /// The namespace of the machine.
    #[arg(long)]
    namespace: String,
    /// The version of the machine. Default: the current version.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    version: i32,
    #[command(flatten)]
    service: remote::Remote,
}

impl Fsm {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let Fsm::Show(show) = self;
        let request = GetMachineRequest {
            namespace: show.namespace,
            entity_type: show.entity_type,
            version: show.version,
        };
        let client = show.service.connect().await?;
        let answer = client.fsm().get_machine(request).await;
        let answer = answer.map_err(|status| CliError::Call(Box::new(status)))?;
        Ok(write!(
            std::io::stdout(),
            "{}",
            answer.into_inner().mermaid
        )?)
    }
}
