//! `bridgebook quota`: manages the quotas of a running service.
//!
//! The commands call AdminService and not the database: so the service validates the values, and its
//! audit log has a line for each change, with the token of the operator.

use std::io::Write;

use clap::{ArgGroup, Args, Subcommand};

use super::{CliError, remote};
use crate::proto::v1::{
    DeleteQuotaRequest, ListQuotasRequest, Quota, QuotaLimits, SetQuotaRequest,
    delete_quota_request, quota, set_quota_request,
};

#[derive(Debug, Subcommand)]
pub(super) enum QuotaCommand {
    /// Set the quota of a namespace or a token, in force on every replica within 5 seconds. A limit that
    /// is left out is the default of the service again.
    Set(Set),
    /// List the defaults of the service, and all quotas.
    List(List),
    /// Delete the quota of a namespace or a token. The defaults of the service apply again.
    Delete(Delete),
}

#[derive(Debug, Args)]
#[command(group(
    ArgGroup::new("limits")
        .args(["calls_per_second", "items_per_second", "calls_in_progress", "weight"])
        .required(true)
        .multiple(true)
))]
pub(super) struct Set {
    #[command(flatten)]
    subject: Subject,
    /// Allow this many calls per second; 0 for no limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    calls_per_second: Option<i32>,
    /// Allow this many items per second, in batches and other calls; 0 for no limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    items_per_second: Option<i32>,
    /// Allow this many concurrent calls; 0 for no limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    calls_in_progress: Option<i32>,
    /// Give a namespace this many turns where others get one, 1 to 100.
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(i32).range(1..=100),
        conflicts_with = "token_id"
    )]
    weight: Option<i32>,
    #[command(flatten)]
    service: remote::Remote,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    service: remote::Remote,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    service: remote::Remote,
}

/// The tenant or the token of a quota.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// The namespace.
    #[arg(long)]
    namespace: Option<String>,
    /// The id of the token, as `token list` prints it.
    #[arg(long, value_name = "ID")]
    token_id: Option<String>,
}

impl QuotaCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        match self {
            QuotaCommand::Set(set) => set.run().await,
            QuotaCommand::List(list) => list.run().await,
            QuotaCommand::Delete(delete) => delete.run().await,
        }
    }
}

impl Set {
    async fn run(self) -> Result<(), CliError> {
        let Subject {
            namespace,
            token_id,
        } = self.subject;
        let namespace = namespace.map(set_quota_request::Subject::Namespace);
        let request = SetQuotaRequest {
            subject: namespace.or(token_id.map(set_quota_request::Subject::TokenId)),
            calls_per_second: self.calls_per_second,
            items_per_second: self.items_per_second,
            calls_in_progress: self.calls_in_progress,
            weight: self.weight,
        };
        let client = self.service.connect().await?;
        let response = client.admin().set_quota(request).await.map_err(failed)?;
        let quota = response.into_inner().quota.unwrap_or_default();
        Ok(writeln!(std::io::stdout(), "{}", described(&quota))?)
    }
}

impl List {
    async fn run(self) -> Result<(), CliError> {
        let client = self.service.connect().await?;
        let mut page_token = String::new();
        loop {
            let is_first = page_token.is_empty();
            let request = ListQuotasRequest {
                page_token,
                ..ListQuotasRequest::default()
            };
            let response = client.admin().list_quotas(request).await.map_err(failed)?;
            let page = response.into_inner();
            let defaults = [
                ("namespaces", page.namespace_defaults),
                ("tokens", page.token_defaults),
            ];
            let defaults = defaults.iter().filter(|_| is_first);
            for (subjects, limits) in defaults {
                // An older service does not tell them.
                if let Some(limits) = limits {
                    writeln!(
                        std::io::stdout(),
                        "default of {subjects}  {}",
                        limits_or(limits, "unlimited")
                    )?;
                }
            }
            for quota in &page.quotas {
                writeln!(std::io::stdout(), "{}", described(quota))?;
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Delete {
    async fn run(self) -> Result<(), CliError> {
        let Subject {
            namespace,
            token_id,
        } = self.subject;
        let namespace = namespace.map(delete_quota_request::Subject::Namespace);
        let request = DeleteQuotaRequest {
            subject: namespace.or(token_id.map(delete_quota_request::Subject::TokenId)),
        };
        let client = self.service.connect().await?;
        let response = client.admin().delete_quota(request).await.map_err(failed)?;
        let outcome = match response.into_inner().deleted {
            true => "deleted",
            false => "there was no quota",
        };
        Ok(writeln!(std::io::stdout(), "{outcome}")?)
    }
}

fn failed(status: tonic::Status) -> CliError {
    CliError::Call(Box::new(status))
}

/// Formats a quota as one line.
fn described(quota: &Quota) -> String {
    let subject = match &quota.subject {
        Some(quota::Subject::Namespace(name)) => format!("namespace {name}"),
        Some(quota::Subject::TokenId(id)) => format!("token {id}"),
        None => "a subject of a newer version".to_owned(),
    };
    let limits = QuotaLimits {
        calls_per_second: quota.calls_per_second,
        items_per_second: quota.items_per_second,
        calls_in_progress: quota.calls_in_progress,
    };
    let weight = quota.weight.map(|weight| format!("  weight {weight}"));
    let weight = weight.unwrap_or_default();
    format!("{subject}  {}{weight}", limits_or(&limits, "default"))
}

/// Formats limits. `unset` stands for those that are not set.
fn limits_or(limits: &QuotaLimits, unset: &str) -> String {
    let limit = |limit: Option<i32>| match limit {
        None => unset.to_owned(),
        Some(0) => "unlimited".to_owned(),
        Some(limit) => limit.to_string(),
    };
    format!(
        "calls per second {}  items per second {}  calls in progress {}",
        limit(limits.calls_per_second),
        limit(limits.items_per_second),
        limit(limits.calls_in_progress),
    )
}
