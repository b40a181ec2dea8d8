//! The database of commands that need no running service.

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use super::CliError;
use crate::{
    config::{ConfigErrors, DatabaseSettings, DatabaseSource},
    db::{DatabaseAddress, migrations},
    embedded::{self, CommandLock, Embedded, EmbeddedError},
};

/// Checks the settings of the database alone.
pub(super) fn checked(database: DatabaseSettings) -> Result<DatabaseSource, CliError> {
    let mut errors = ConfigErrors::default();
    let database = database.check(&mut errors);
    Ok(errors.finish(database)?)
}

/// Runs `work` on a database whose schema is current. A private PostgreSQL that no service runs is
/// started and migrated first.
pub(super) async fn on_current_database(
    database: DatabaseSource,
    work: impl AsyncFnOnce(&DatabaseAddress) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let data_dir = match &database {
        DatabaseSource::External(address) => {
            require_current(address).await?;
            return work(address).await;
        }
        DatabaseSource::Embedded(data_dir) => data_dir,
    };
    match Access::to(data_dir).await? {
        Access::Service(address) => {
            wait_for_migrations(&address).await?;
            require_current(&address).await?;
            work(&address).await
        }
        Access::Own(own) => {
            own.run(async |address| {
                migrations::up(address).await?;
                work(address).await
            })
            .await
        }
    }
}

/// Runs `work` on a database as it is, whether or not a service runs.
pub(super) async fn on_database(
    database: DatabaseSource,
    work: impl AsyncFnOnce(&DatabaseAddress) -> Result<(), CliError>,
) -> Result<(), CliError> {
    match database {
        DatabaseSource::External(address) => work(&address).await,
        DatabaseSource::Embedded(data_dir) => match Access::to(&data_dir).await? {
            Access::Service(address) => work(&address).await,
            Access::Own(own) => own.run(work).await,
        },
    }
}

/// Runs `work` on a database that no service may use meanwhile, if it is private. Creates a private
/// one that is missing.
pub(super) async fn on_own_database(
    database: DatabaseSource,
    work: impl AsyncFnOnce(&DatabaseAddress) -> Result<(), CliError>,
) -> Result<(), CliError> {
    match database {
        DatabaseSource::External(address) => work(&address).await,
        DatabaseSource::Embedded(data_dir) => {
            let lock = CommandLock::acquire(&data_dir).await?;
            Own::start(&data_dir, lock).await?.run(work).await
        }
    }
}

/// Fails if a data directory has no cluster. Only `serve` and `migrate up` create one, so a mistyped
/// path is an error.
pub(super) fn require_cluster(database: &DatabaseSource) -> Result<(), CliError> {
    match database {
        DatabaseSource::External(_) => Ok(()),
        DatabaseSource::Embedded(data_dir) => {
            embedded::require_cluster(data_dir).map_err(CliError::NoDatabase)
        }
    }
}

/// How a command uses the cluster of a data directory.
enum Access {
    /// A service runs it at this address.
    Service(DatabaseAddress),
    /// The command runs it.
    Own(Box<Own>),
}

impl Access {
    async fn to(data_dir: &Path) -> Result<Self, CliError> {
        loop {
            if !embedded::is_running(data_dir) {
                embedded::require_cluster(data_dir).map_err(CliError::NoDatabase)?;
            }
            let lock = CommandLock::acquire(data_dir).await?;
            // Not another command: it would hold the lock.
            if embedded::is_running(data_dir) {
                drop(lock);
                embedded::wait_until_ready(data_dir).await?;
                return Ok(Access::Service(embedded::database_url(data_dir)?.parse()?));
            }
            match Own::start(data_dir, lock).await {
                // A service has just started.
                Err(EmbeddedError::InUse { .. }) => {}
                own => return Ok(Access::Own(Box::new(own?))),
            }
        }
    }
}

/// A private PostgreSQL that this command runs.
struct Own {
    embedded: Embedded,
    _lock: CommandLock,
}

impl Own {
    async fn start(data_dir: &Path, lock: CommandLock) -> Result<Self, EmbeddedError> {
        Ok(Own {
            embedded: Embedded::start(embedded::Settings::new(data_dir)).await?,
            _lock: lock,
        })
    }

    /// Runs `work`, and stops PostgreSQL.
    async fn run(
        self,
        work: impl AsyncFnOnce(&DatabaseAddress) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let address = self.embedded.database_url().parse()?;
        let result = work(&address).await;
        self.embedded.stop().await?;
        result
    }
}

async fn require_current(address: &DatabaseAddress) -> Result<(), CliError> {
    match migrations::pending(address).await? {
        pending if pending.is_empty() => Ok(()),
        pending => Err(CliError::SchemaBehind(pending)),
    }
}

/// Waits until a service that has just started has migrated its private PostgreSQL, for 10 s at most:
/// an older version that runs does not migrate further.
async fn wait_for_migrations(address: &DatabaseAddress) -> Result<(), CliError> {
    const LIMIT: Duration = Duration::from_secs(10);
    const POLL: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + LIMIT;
    while !migrations::pending(address).await?.is_empty() && Instant::now() < deadline {
        sleep(POLL).await;
    }
    Ok(())
}
