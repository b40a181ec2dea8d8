//! `bridgebook token`: manages tokens directly in the database, for the first token and for scripts.

use std::io::Write;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use diesel_async::AsyncPgConnection;

use super::{CliError, database};
use crate::{
    config::{ConfigErrors, DatabaseSettings},
    db::{self, DatabaseAddress, Query},
    domain::{limits::ContentLimits, page_token_key::PageTokenKey, role::Role, time},
    proto::v1::{self, CreateTokenRequest, ListTokensRequest, RevokeTokenRequest},
    rpc::{
        admit::FromRequest,
        auth::token::{NewToken, Revocation, Token, TokenFilter, TokenRequest},
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
    /// Create a token and print its credential, which is not shown again.
    Create(Create),
    /// List tokens, newest first.
    List {
        /// List only active tokens: neither revoked nor expired.
        #[arg(long)]
        active_only: bool,
    },
    /// Revoke a token permanently. Running services reject it within 5 seconds.
    Revoke {
        /// The id of the token.
        id: String,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// Give the token this name, for operators.
    #[arg(long)]
    name: String,
    /// Allow what this role may do.
    #[arg(long)]
    role: RoleName,
    /// Allow this namespace, or all namespaces with a prefix, as in team-a-*. Can be given more
    /// than once; an admin token has none, because it is valid in all namespaces.
    #[arg(long = "namespace", value_name = "NAMESPACE")]
    namespaces: Vec<String>,
    /// Let the token expire after this many days. Default: it never expires.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    days: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// May read.
    Reader,
    /// May read and write.
    Writer,
    /// May do everything in all namespaces.
    Admin,
}

impl TokenCommand {
    pub(super) async fn run(self) -> Result<(), CliError> {
        // Before the database, which may have to be started for it.
        let work = Work::new(self.action)?;
        let database = database::checked(self.database)?;
        database::on_current_database(database, async |address| work.run(address).await).await
    }
}

/// A valid action.
enum Work {
    Create(NewToken),
    List { active_only: bool },
    Revoke(Revocation),
}

impl Work {
    fn new(action: Action) -> Result<Self, CliError> {
        Ok(match action {
            Action::Create(create) => Work::Create(create.new_token()?),
            Action::List { active_only } => Work::List { active_only },
            Action::Revoke { id } => Work::Revoke(checked(RevokeTokenRequest { id })?),
        })
    }

    async fn run(self, address: &DatabaseAddress) -> Result<(), CliError> {
        let mut session = db::connect(address).await?;
        let connection = &mut *session;
        match self {
            Work::Create(wanted) => create(&wanted, connection).await,
            Work::List { active_only } => list(active_only, connection).await,
            Work::Revoke(revocation) => {
                let token = answer(&revocation, connection).await?;
                Ok(writeln!(std::io::stdout(), "{}", described(&token))?)
            }
        }
    }
}

/// Creates a token and prints its credential. Revokes the token if that fails, because nothing can
/// show the credential again.
async fn create(wanted: &NewToken, connection: &mut AsyncPgConnection) -> Result<(), CliError> {
    let token = answer(wanted, connection).await?;
    // Only the credential goes to standard output, for scripts. It must not get lost because the
    // other output is closed.
    let _ = writeln!(std::io::stderr(), "{}", described(&token));
    let written = writeln!(std::io::stdout(), "{}", wanted.credential());
    if written.is_err() {
        let revoked = answer(&Revocation { id: token.id }, connection).await?;
        let _ = writeln!(
            std::io::stderr(),
            "revoked, because its credential could not be written: {}",
            described(&revoked)
        );
    }
    Ok(written?)
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
    fn new_token(self) -> Result<NewToken, CliError> {
        let role = match self.role {
            RoleName::Reader => v1::Role::Reader,
            RoleName::Writer => v1::Role::Writer,
            RoleName::Admin => v1::Role::Admin,
        };
        let expires_at = self
            .days
            .map(|days| Utc::now() + TimeDelta::days(days.into()));
        let wanted: TokenRequest = checked(CreateTokenRequest {
            id: String::new(),
            name: self.name,
            role: role.into(),
            namespaces: self.namespaces,
            expires_at: expires_at.map(time::to_proto),
        })?;
        Ok(wanted.with_secret()?)
    }
}

/// Validates a request as an RPC does.
fn checked<R, T: FromRequest<R>>(request: R) -> Result<T, CliError> {
    // The page tokens of `token list` stay within this command, so that any key will do.
    let check = Validator::new(ContentLimits::default());
    let mut check = check.with_page_tokens(PageTokenKey::default());
    let value = T::from_request(request, &mut check);
    check.finish(value).map_err(|violations| {
        let unlisted = violations.unlisted;
        let listed = violations.listed.into_iter();
        let mut errors: Vec<_> = listed
            .map(|it| format!("{} {}", argument_of(&it.field), it.description))
            .collect();
        if unlisted > 0 {
            errors.push(format!("violations that are not listed: {unlisted}"));
        }
        ConfigErrors::from(errors).into()
    })
}

/// Returns the argument that sets a field of a request.
fn argument_of(field: &str) -> String {
    let name = field.split('[').next().unwrap_or_default();
    match name {
        "id" => "ID".to_owned(),
        "namespaces" => "--namespace".to_owned(),
        "expires_at" => "--days".to_owned(),
        name => format!("--{}", name.replace('_', "-")),
    }
}

async fn answer<Q: Query>(
    query: &Q,
    connection: &mut AsyncPgConnection,
) -> Result<Q::Answer, CliError> {
    let outcome = query.run(connection).await;
    let outcome = outcome.map_err(CliError::Database)?;
    outcome.map_err(CliError::from)
}

/// Formats a token as one line.
fn described(token: &Token) -> String {
    let day = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M:%SZ").to_string();
    let at = |what: &str, time: Option<DateTime<Utc>>| {
        time.map_or_else(String::new, |time| format!("  {what} {}", day(time)))
    };
    format!(
        "{}  {:6}  {}  {}  created {}{}{}{}",
        token.id,
        token.role.name(Role::as_str),
        token.namespaces.patterns().join(","),
        token.name,
        day(token.created_at),
        at("expires", token.expires_at),
        at("last used", token.last_used_at),
        at("revoked", token.revoked_at),
    )
}
