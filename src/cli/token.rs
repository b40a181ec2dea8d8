//! `bridgebook token`: tokens, straight on the database, for the first one and for scripts.

use std::io::Write;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use diesel_async::AsyncPgConnection;

use super::CliError;
use crate::{
    config::{DatabaseSettings, DatabaseSource},
    db::{self, Query},
    domain::{limits::ContentLimits, time},
    proto::v1::{self, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest},
    rpc::{
        admit::FromRequest,
        auth::token::{NewToken, Revocation, Token, TokenFilter},
        validate::Validator,
    },
};

#[derive(Debug, Args)]
pub(super) struct TokenCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    database: DatabaseSettings,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a token, and print its credential, this once.
    Create(Create),
    /// List tokens, newest first.
    List {
        /// List only active tokens: neither revoked nor expired.
        #[arg(long)]
        active_only: bool,
    },
    /// End a token for ever; running services take note within 5 seconds.
    Revoke {
        /// The token's id.
        id: String,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// What people call it.
    #[arg(long)]
    name: String,
    /// What it may do.
    #[arg(long)]
    role: RoleName,
    /// Where: a namespace, or the beginning of namespaces and an asterisk; can be
    /// given more than once. An admin's token holds for all.
    #[arg(long = "namespace", value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// For how many days it is good. Default: for ever.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    days: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Reads.
    Reader,
    /// Reads and writes.
    Writer,
    /// Everything, everywhere.
    Admin,
}

impl TokenCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let action = self.action;
        let database = self.database.check()?;
        if let (Action::List { .. } | Action::Revoke { .. }, DatabaseSource::Embedded(data_dir)) =
            (&action, &database)
        {
            // The first token may come before the first start; these may not.
            super::require_cluster(data_dir)?;
        }
        super::on_live_database(database, async |url| act(action, url).await).await
    }
}

async fn act(action: Action, url: &str) -> Result<(), CliError> {
    let connection = &mut db::connect(url).await?;
    let mut out = std::io::stdout();
    match action {
        Action::Create(create) => {
            let wanted = create.wanted()?;
            let token = answer(&wanted, connection).await?;
            // Alone on the standard output, for scripts.
            writeln!(std::io::stderr(), "{}", described(&token))?;
            writeln!(out, "{}", wanted.credential())?;
        }
        Action::List { active_only } => list(active_only, connection).await?,
        Action::Revoke { id } => {
            let revocation = checked::<_, Revocation>(RevokeTokenRequest { id })?;
            let token = answer(&revocation, connection).await?;
            writeln!(out, "{}", described(&token))?;
        }
    }
    Ok(())
}

async fn list(active_only: bool, connection: &mut AsyncPgConnection) -> Result<(), CliError> {
    let mut page_token = String::new();
    loop {
        let filter: TokenFilter = checked(ListTokensRequest {
            active_only,
            page_token,
            ..ListTokensRequest::default()
        })?;
        let page = answer(&filter, connection).await?;
        for token in &page.rows {
            writeln!(std::io::stdout(), "{}", described(token))?;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

impl Create {
    fn wanted(self) -> Result<NewToken, CliError> {
        let role = match self.role {
            RoleName::Reader => v1::Role::Reader,
            RoleName::Writer => v1::Role::Writer,
            RoleName::Admin => v1::Role::Admin,
        };
        let expires_at = self
            .days
            .map(|days| Utc::now() + TimeDelta::days(days.into()));
        checked(CreateTokenRequest {
            id: String::new(),
            name: self.name,
            role: role.into(),
            namespaces: self.namespaces,
            expires_at: expires_at.map(time::to_proto),
        })
    }
}

/// The same checks as for a call.
fn checked<R, T: FromRequest<R>>(request: R) -> Result<T, CliError> {
    let mut check = Validator::new(ContentLimits::default());
    let value = T::from_request(request, &mut check);
    check.finish(value).map_err(|violations| {
        let faults = violations.0.into_iter();
        let faults = faults.map(|fault| format!("{} {}", fault.field, fault.description));
        CliError::Usage(faults.collect())
    })
}

async fn answer<Q: Query>(
    query: &Q,
    connection: &mut AsyncPgConnection,
) -> Result<Q::Answer, CliError> {
    let outcome = query.run(connection).await;
    let outcome = outcome.map_err(CliError::Database)?;
    outcome.map_err(|error| CliError::Refused(Box::new(error)))
}

/// A token on one line.
fn described(token: &Token) -> String {
    let day = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%SZ").to_string();
    let at = |what: &str, time: Option<DateTime<Utc>>| {
        time.map_or_else(String::new, |time| format!("  {what} {}", day(time)))
    };
    format!(
        "{}  {:6}  {}  {}  created {}{}{}{}",
        token.id,
        token.role.as_str(),
        token.namespaces.patterns().join(","),
        token.name,
        day(token.created_at),
        at("expires", token.expires_at),
        at("last used", token.last_used_at),
        at("revoked", token.revoked_at),
    )
}
