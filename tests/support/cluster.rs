//! PostgreSQL for tests: one shared cluster, and one schema for each test.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::PathBuf,
    sync::{LazyLock, mpsc},
};

use bridgebook::{
    db::DatabaseAddress,
    embedded::{Embedded, Settings},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

/// A temporary directory. It is removed when the value is dropped. It is not under target/,
/// because PostgreSQL's user may lack access to it.
pub struct TempDir(pub PathBuf);

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn temp_dir() -> TempDir {
    let dir = std::env::temp_dir().join(format!("bridgebook-test-{}", Uuid::now_v7().simple()));
    TempDir(dir)
}

/// Starts a cluster for one test that stops or kills it.
pub async fn own_cluster(dir: &TempDir) -> Embedded {
    Embedded::start(Settings::new(&dir.0))
        .await
        .expect("PostgreSQL starts")
}

/// Uses transaction ids that a new cluster has not assigned.
pub async fn use_transaction_ids(url: &str) {
    let use_ids = "DO $$ BEGIN
        FOR number IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$";
    connect(url).await.batch_execute(use_ids).await.unwrap();
}

/// Parses the URL of a database.
pub fn database_address(url: &str) -> DatabaseAddress {
    url.parse().unwrap()
}

/// The URL of the shared cluster. It runs in its own thread until the process ends, when its
/// watchdog stops it. Its directory is kept, so that only the first run creates it.
static SHARED: LazyLock<String> = LazyLock::new(|| {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let cluster = start_shared().await;
            send.send(cluster.database_url()).expect("the test waits");
            std::future::pending::<()>().await;
        });
    });
    receive.recv().expect("PostgreSQL starts")
});

async fn start_shared() -> Embedded {
    let checkout =
        BuildHasherDefault::<DefaultHasher>::default().hash_one(env!("CARGO_MANIFEST_DIR"));
    let dir = std::env::temp_dir().join(format!("bridgebook-tests-{checkout:x}"));
    let settings = Settings {
        durable: false,
        parameters: vec![("max_connections".into(), "500".into())],
        ..Settings::new(dir)
    };
    let cluster = Embedded::start(settings).await.expect("PostgreSQL starts");
    let mut connection = connect(&cluster.database_url()).await;
    // Drops the schemas of earlier runs, one transaction each. A single transaction would
    // hold a lock for every table.
    connection
        .batch_execute(
            "DO $$ DECLARE name TEXT; BEGIN
                 FOR name IN SELECT nspname FROM pg_namespace WHERE nspname LIKE 'test\\_%' LOOP
                     EXECUTE format('DROP SCHEMA %I CASCADE', name);
                     COMMIT;
                 END LOOP;
             END $$",
        )
        .await
        .expect("old schemas are dropped");
    cluster
}

/// All tables, and the rows that record the migrations as applied. `scripts/schema`
/// dumps it from the migrations.
const DDL: &str = include_str!("schema.sql");

/// A schema of the shared cluster.
#[derive(Clone)]
pub struct Schema {
    name: String,
}

impl Schema {
    /// Creates a schema with all tables. One replay of the dumped DDL is faster than
    /// running the migrations one by one.
    ///
    /// The replay creates indexes in the order of their names. The planner breaks ties by
    /// creation order, so tests of query plans migrate an [`empty`](Schema::empty) schema.
    pub async fn create() -> Schema {
        Schema::with(DDL).await
    }

    /// Creates a schema without tables, for tests that run migrations.
    pub async fn empty() -> Schema {
        Schema::with("").await
    }

    /// Creates a schema and runs `ddl` in it, in one round trip and one transaction.
    async fn with(ddl: &str) -> Schema {
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut connection = connect(&SHARED).await;
        connection
            .batch_execute(&format!(
                "CREATE SCHEMA {name}; SET search_path TO {name}; {ddl}"
            ))
            .await
            .expect("a schema");
        Schema { name }
    }

    /// Returns the URL of the schema. Its connections have its name as application_name.
    pub fn url(&self) -> String {
        let name = &self.name;
        format!(
            "{}?options=-csearch_path%3D{name}&application_name={name}",
            *SHARED
        )
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub async fn connect(&self) -> AsyncPgConnection {
        connect(&self.url()).await
    }

    /// Returns the number that a query selects.
    pub async fn count(&self, sql: &str) -> i64 {
        count(&mut self.connect().await, sql).await
    }

    /// Returns the number of the service's sessions that fulfil a condition on `pg_stat_activity`.
    pub async fn sessions(&self, condition: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity
              WHERE application_name = '{}' AND pid <> pg_backend_pid() AND {condition}",
            self.name()
        );
        self.count(&sql).await
    }
}

/// The condition of a session that waits for a lock.
pub const WAITING_FOR_LOCK: &str = "wait_event_type = 'Lock'";

pub async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url)
        .await
        .expect("PostgreSQL answers")
}

pub async fn count(connection: &mut AsyncPgConnection, sql: &str) -> i64 {
    #[derive(diesel::QueryableByName)]
    struct Count {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        count: i64,
    }
    let query = diesel::sql_query(format!("SELECT ({sql})::BIGINT AS count"));
    let row: Count = query.get_result(connection).await.expect("a number");
    row.count
}
