//! `bridgebook migrate`: applies, reverts and lists migrations.

use std::io::Write;

use clap::Subcommand;

use super::{
    CliError,
    database::{on_database, on_own_database, require_cluster},
};
use crate::{
    config::DatabaseSource,
    db::{
        DatabaseAddress, journal_cluster,
        migrations::{self, Plan, PlannedLock, PlannedMigration, Role, Work},
    },
};

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum Migrate {
    /// Apply all pending migrations, and adopt the journal after a restore into another cluster. The
    /// service may run meanwhile.
    Up {
        /// Print what each pending migration locks, about how long, and what it needs. Applies
        /// nothing.
        #[arg(long)]
        plan: bool,
    },
    /// Revert the last migration and drop its data.
    Down,
    /// List migrations, applied and pending.
    Status,
    /// Revert the last migration and apply it again.
    Redo,
}

impl Migrate {
    pub(super) async fn run(self, database: DatabaseSource) -> Result<(), CliError> {
        let work = async |address: &DatabaseAddress| self.run_on(address).await;
        match self {
            Migrate::Status | Migrate::Up { plan: true } => on_database(database, work).await,
            Migrate::Up { plan: false } => on_own_database(database, work).await,
            Migrate::Down | Migrate::Redo => {
                require_cluster(&database)?;
                on_own_database(database, work).await
            }
        }
    }

    async fn run_on(self, address: &DatabaseAddress) -> Result<(), CliError> {
        let mut out = std::io::stdout();
        match self {
            Migrate::Up { plan: true } => print_plan(&migrations::plan(address).await?, &mut out)?,
            Migrate::Up { plan: false } => up(address, &mut out).await?,
            Migrate::Down => writeln!(out, "reverted {}", migrations::down(address).await?)?,
            Migrate::Redo => {
                let version = migrations::redo(address).await?;
                writeln!(out, "reverted and applied {version}")?;
            }
            Migrate::Status => {
                for migration in migrations::status(address).await? {
                    match migration.applied_at {
                        Some(at) => {
                            let at = at.format("%Y-%m-%d %H:%M:%SZ");
                            writeln!(out, "applied {at}  {}", migration.name)?;
                        }
                        None => writeln!(out, "pending {:20}  {}", "", migration.name)?,
                    }
                }
            }
        }
        Ok(())
    }
}

async fn up(address: &DatabaseAddress, out: &mut impl Write) -> Result<(), CliError> {
    let applied = migrations::up(address).await?;
    for version in &applied {
        writeln!(out, "applied {version}")?;
    }
    if applied.is_empty() {
        writeln!(out, "{UP_TO_DATE}")?;
    }
    if let Some(offset) = journal_cluster::adopt(address).await? {
        writeln!(
            out,
            "adopted the journal of another cluster: new rows add {offset} to their transaction ids"
        )?;
    }
    Ok(())
}

const UP_TO_DATE: &str = "nothing to apply: the schema is up to date";

fn print_plan(plan: &Plan, out: &mut impl Write) -> std::io::Result<()> {
    if plan.migrations.is_empty() {
        return writeln!(out, "{UP_TO_DATE}");
    }
    for migration in &plan.migrations {
        print_migration(migration, out)?;
    }
    writeln!(out)?;
    print_role(&plan.role, out)
}

fn print_migration(migration: &PlannedMigration, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "pending {}", migration.name)?;
    let runs = match migration.runs_in_transaction {
        true => "in a transaction; waits 1 s at a time for each lock, and tries again 3 s later",
        false => {
            "outside of a transaction; waits for the transactions that are open when it begins; \
             run it again if it is interrupted"
        }
    };
    writeln!(out, "  runs   {runs}")?;
    if migration.locks.is_empty() {
        writeln!(out, "  locks  no existing table")?;
    }
    for lock in &migration.locks {
        print_lock(lock, out)?;
    }
    Ok(())
}

fn print_lock(lock: &PlannedLock, out: &mut impl Write) -> std::io::Result<()> {
    let declared = lock.declared;
    let name = declared.table;
    let Some(table) = &lock.table else {
        return writeln!(out, "  locks  {name}, which an earlier migration creates");
    };
    let blocks = declared.blocks();
    writeln!(out, "  locks  {name}: {}, blocks {blocks}", declared.mode)?;
    let does = match declared.work {
        Work::Nothing => "reads no rows".to_owned(),
        Work::Read => format!("reads about {} rows", table.rows),
        Work::Build(1) => format!("builds an index of about {} rows", table.rows),
        Work::Build(indexes) => format!("builds {indexes} indexes of about {} rows", table.rows),
        Work::Write => format!("writes about {} rows again", table.rows),
    };
    let time = match table.time(declared.work).as_secs() {
        0 => "less than a second".to_owned(),
        seconds @ 1..120 => format!("about {seconds} s"),
        seconds => format!("about {} min", seconds / 60),
    };
    writeln!(out, "  takes  {time}: {does}")?;
    let disk = match table.disk(declared.work) {
        0 => String::new(),
        bytes => format!("about {} MB of disk, and ", bytes / 1_000_000 + 1),
    };
    let lacks = if table.is_owner {
        ""
    } else {
        ", which this role is not"
    };
    writeln!(
        out,
        "  needs  {disk}the owner of {name}, {}{lacks}",
        table.owner
    )
}

fn print_role(role: &Role, out: &mut impl Write) -> std::io::Result<()> {
    let name = &role.role;
    match &role.schema {
        Some(schema) if role.may_create => {
            writeln!(
                out,
                "The role {name} may create tables and indexes in the schema {schema}."
            )
        }
        Some(schema) => writeln!(
            out,
            "The role {name} may not create tables and indexes: GRANT CREATE ON SCHEMA {schema} TO {name}"
        ),
        None => writeln!(
            out,
            "The role {name} has no schema: create one of its search_path."
        ),
    }
}
