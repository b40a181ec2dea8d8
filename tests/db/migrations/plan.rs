//! `migrate up --plan`, and whether migrations lock what they declare.

use std::collections::{BTreeMap, BTreeSet};

use bridgebook::db::{
    DatabaseAddress,
    migrations::{self, PlannedMigration, Work},
};
use diesel::sql_types::{Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};

use super::{migrate, stdout};
use crate::support::{
    Schema, bridgebook, connect_database, count, database_address, eventually, own_cluster,
    temp_dir,
};

/// Migrations that read or write rows under a lock that blocks writers, and why they may.
const BLOCKING: [(&str, &str); 8] = [
    ("007", "no installation is older than 016"),
    ("008", "no installation is older than 016"),
    ("011", "no installation is older than 016"),
    ("012", "no installation is older than 016"),
    ("013", "no installation is older than 016"),
    ("014", "no installation is older than 016"),
    ("021", "the table has a row for each version of a machine"),
    ("027", "the table has one row"),
];

/// The locks that matter, from weak to strong. Every query takes ACCESS SHARE.
const MODES: [&str; 6] = [
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
];

/// The strongest lock of each table, and whether its rows were read.
type Locks = BTreeMap<String, (&'static str, bool)>;

/// Reverts the migrations one by one, and looks at the locks of each when it is applied again.
#[tokio::test]
async fn every_migration_declares_its_locks() {
    let dir = temp_dir();
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let address = database_address(&url);
    migrations::up(&address).await.unwrap();
    for migration in migrations::status(&address).await.unwrap().iter().rev() {
        migrations::down(&address).await.unwrap();
        let plan = migrations::plan(&address).await.unwrap();
        // Those after it are not applied again.
        let planned = &plan.migrations[0];
        assert_eq!(planned.name, migration.name);
        check_declared_locks(&url, &address, planned).await;
    }
}

async fn check_declared_locks(url: &str, address: &DatabaseAddress, planned: &PlannedMigration) {
    let name = planned.name;
    let mut connection = connect_database(url).await;
    let tables = names(&mut connection, TABLES).await;
    let indexes = names(&mut connection, INDEXES).await;
    let declared: Locks = planned
        .locks
        .iter()
        .map(|lock| {
            let lock = lock.declared;
            (
                lock.table.to_owned(),
                (lock.mode, lock.work != Work::Nothing),
            )
        })
        .collect();
    for lock in &planned.locks {
        assert!(
            lock.table.is_some(),
            "{name} locks a missing table: {lock:?}"
        );
        let is_blocking = lock.declared.mode != "SHARE UPDATE EXCLUSIVE";
        let may_block = BLOCKING
            .iter()
            .any(|(version, _)| name.starts_with(version));
        let is_short = lock.declared.work == Work::Nothing;
        assert!(
            !is_blocking || is_short || may_block,
            "{name} blocks writers: {lock:?}"
        );
    }
    let built;
    if planned.runs_in_transaction {
        let path = format!("{}/migrations/{name}/up.sql", env!("CARGO_MANIFEST_DIR"));
        let up = std::fs::read_to_string(path).unwrap();
        connection.batch_execute("BEGIN").await.unwrap();
        connection.batch_execute(&up).await.unwrap();
        let taken = locks(&mut connection, "pg_backend_pid()", &tables).await;
        assert_eq!(taken, declared, "{name}");
        built = names(&mut connection, INDEXES).await;
        connection.batch_execute("ROLLBACK").await.unwrap();
    } else {
        let version = name.split('_').next().unwrap();
        for later in migrations::pending(address).await.unwrap().iter().skip(1) {
            let later = later.split('_').next().unwrap();
            let skip = format!("INSERT INTO __diesel_schema_migrations VALUES ('{later}')");
            connection.batch_execute(&skip).await.unwrap();
        }
        check_concurrent_locks(url, address, &declared, &tables).await;
        built = names(&mut connection, INDEXES).await;
        let forget = format!("DELETE FROM __diesel_schema_migrations WHERE version > '{version}'");
        connection.batch_execute(&forget).await.unwrap();
        migrations::down(address).await.unwrap();
    }
    for lock in &planned.locks {
        let Work::Build(declared) = lock.declared.work else {
            continue;
        };
        let prefix = format!("{} ", lock.declared.table);
        let new = built
            .difference(&indexes)
            .filter(|it| it.starts_with(&prefix));
        assert_eq!(
            u32::try_from(new.count()).unwrap(),
            declared,
            "{name}: {lock:?}"
        );
    }
}

/// Holds each table up in turn, so that the migration waits for it with its lock.
async fn check_concurrent_locks(
    url: &str,
    address: &DatabaseAddress,
    declared: &Locks,
    tables: &BTreeSet<String>,
) {
    let mut blockers = BTreeMap::new();
    for table in declared.keys() {
        let mut blocker = connect_database(url).await;
        let lock = format!("BEGIN; LOCK TABLE {table} IN ROW EXCLUSIVE MODE");
        blocker.batch_execute(&lock).await.unwrap();
        blockers.insert(table.clone(), blocker);
    }
    let address = address.clone();
    let up = tokio::spawn(async move { migrations::up(&address).await });
    while !blockers.is_empty() {
        let taken = eventually("the migration waits", async || {
            let mut looking = connect_database(url).await;
            let taken = locks(&mut looking, MIGRATING, tables).await;
            let waits = taken.keys().any(|table| blockers.contains_key(table));
            waits.then_some(taken)
        })
        .await;
        for (table, (mode, _)) in taken {
            assert_eq!(mode, declared[&table].0, "{table}");
            blockers.remove(&table);
        }
    }
    up.await.unwrap().unwrap();
}

/// The session that builds an index.
const MIGRATING: &str = "(SELECT pid FROM pg_stat_progress_create_index)";

const TABLES: &str = "SELECT relname::text AS name FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname NOT LIKE '\\_\\_diesel%'";

/// The table and the oid of each index, because migration 014 builds one that keeps its name.
const INDEXES: &str = "SELECT indrelid::regclass || ' ' || indexrelid AS name FROM pg_index
     WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)";

async fn names(connection: &mut AsyncPgConnection, sql: &str) -> BTreeSet<String> {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let rows: Vec<Row> = diesel::sql_query(sql).load(connection).await.unwrap();
    rows.into_iter().map(|row| row.name).collect()
}

/// Returns the locks of a session on some tables.
async fn locks(connection: &mut AsyncPgConnection, pid: &str, tables: &BTreeSet<String>) -> Locks {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Text)]
        table: String,
        #[diesel(sql_type = Text)]
        mode: String,
        #[diesel(sql_type = Bool)]
        is_read: bool,
    }
    let query = format!(
        "SELECT relname::text AS table, mode, pg_stat_get_xact_numscans(relation) > 0 AS is_read
           FROM pg_locks JOIN pg_class ON pg_class.oid = relation
          WHERE relkind = 'r' AND pid = {pid}"
    );
    let rows: Vec<Row> = diesel::sql_query(query).load(connection).await.unwrap();
    let mut strongest = Locks::new();
    for row in rows.into_iter().filter(|row| tables.contains(&row.table)) {
        // AccessExclusiveLock is ACCESS EXCLUSIVE.
        let words = row.mode.trim_end_matches("Lock").chars();
        let words: Vec<_> = words
            .flat_map(|c| {
                c.is_uppercase()
                    .then_some(' ')
                    .into_iter()
                    .chain([c.to_ascii_uppercase()])
            })
            .collect();
        let words: String = words.into_iter().skip(1).collect();
        let rank = |mode: &str| MODES.iter().position(|it| *it == mode);
        let Some(new) = rank(&words) else {
            continue;
        };
        let old = strongest.get(&row.table).and_then(|(mode, _)| rank(mode));
        if old.is_none_or(|old| old < new) {
            strongest.insert(row.table, (MODES[new], row.is_read));
        }
    }
    strongest
}

#[tokio::test]
async fn a_plan_says_what_each_pending_migration_locks_and_applies_nothing() {
    let schema = Schema::create().await;
    let name = schema.name();
    let forget = "DELETE FROM __diesel_schema_migrations WHERE version IN ('021', '023', '024')";
    let mut connection = schema.connect().await;
    connection.batch_execute(forget).await.unwrap();
    // As on a standby.
    let url = format!(
        "{}%20-cdefault_transaction_read_only%3Don",
        read_only(&schema)
    );
    let text = plan(&url);
    for expected in [
        "pending 021_add_fsm_entity_types
  runs   in a transaction; waits 1 s at a time for each lock, and tries again 3 s later
  locks  fsm_machines: ACCESS EXCLUSIVE, blocks reads and writes
  takes  less than a second: builds an index of about 0 rows
",
        "  runs   outside of a transaction; waits for the transactions that are open when it begins; \
         run it again if it is interrupted
  locks  metadata_stamps: SHARE UPDATE EXCLUSIVE, blocks no reads and no writes, only VACUUM and changes",
        "MB of disk, and the owner of metadata_stamps, ",
        "pending 024_create_page_token_key
  runs   in a transaction; waits 1 s at a time for each lock, and tries again 3 s later
  locks  no existing table
",
        &format!("may create tables and indexes in the schema {name}."),
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(text.matches("pending").count(), 3, "{text}");
    let versions = "SELECT count(*) FROM __diesel_schema_migrations WHERE version = '023'";
    assert_eq!(count(&mut connection, versions).await, 0);
}

/// Returns the URL of a schema without the end of its options, so that one can be added.
fn read_only(schema: &Schema) -> String {
    let url = schema.url();
    url.split('&').next().unwrap().to_owned()
}

fn plan(url: &str) -> String {
    let arguments = ["migrate", "up", "--plan", "--database-url", url];
    let output = bridgebook().args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    stdout(output)
}

#[tokio::test]
async fn a_plan_estimates_by_the_size_of_the_tables() {
    let schema = Schema::create().await;
    let rows = "INSERT INTO metadata_stamps (id, namespace, file_hash)
                SELECT gen_random_uuid(), 'tenant', 'hash' FROM generate_series(1, 20000);
                ANALYZE metadata_stamps;
                DELETE FROM __diesel_schema_migrations WHERE version = '023'";
    schema.connect().await.batch_execute(rows).await.unwrap();
    let plan = migrations::plan(&database_address(&schema.url()))
        .await
        .unwrap();
    let lock = &plan.migrations[0].locks[0];
    let table = lock.table.as_ref().unwrap();
    assert_eq!(table.rows, 20_000);
    assert!(table.is_owner);
    assert!(
        (200_000..20_000_000).contains(&table.disk(lock.declared.work)),
        "{table:?}"
    );
}

#[tokio::test]
async fn a_plan_of_an_empty_database_knows_that_its_tables_are_new() {
    let schema = Schema::empty().await;
    let text = plan(&schema.url());
    let new = "  locks  metadata_stamps, which an earlier migration creates\n";
    assert!(text.contains(new), "{text}");
    migrate(&schema.url(), "up");
    assert_eq!(
        plan(&schema.url()),
        "nothing to apply: the schema is up to date\n"
    );
}

#[tokio::test]
async fn a_plan_says_which_rights_the_role_lacks() {
    let schema = Schema::create().await;
    let (name, role) = (schema.name(), format!("{}_app", schema.name()));
    let setup = format!(
        "DELETE FROM __diesel_schema_migrations WHERE version = '023';
         CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {name} TO {role};
         GRANT SELECT ON __diesel_schema_migrations TO {role}"
    );
    let mut connection = schema.connect().await;
    connection.batch_execute(&setup).await.unwrap();
    let url = format!("{}%20-crole%3D{role}", read_only(&schema));
    let text = plan(&url);
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    connection.batch_execute(&drop).await.unwrap();
    assert!(text.contains(", which this role is not\n"), "{text}");
    let grant = format!("GRANT CREATE ON SCHEMA {name} TO {role}\n");
    assert!(text.ends_with(&grant), "{text}");
}
