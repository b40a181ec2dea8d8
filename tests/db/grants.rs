//! The rights of the service's role: `bridgebook database grants` prints exactly those that it needs.

use bridgebook::{
    db::{
        grants,
        planner::{Statement, statements},
    },
    proto::Rpc,
};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use tokio_postgres::NoTls;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::plans;
use crate::{
    samples::{Rows, call, sample},
    support::{
        App, Failure, Schema, Server, bridgebook, database_address, eventually, failure, stderr,
        tenant_on,
    },
};

/// A role that has only the printed rights on a schema, and none to create anything in it.
struct Limited {
    schema: Schema,
    role: String,
    /// The owner of the tables.
    owner: AsyncPgConnection,
}

impl Limited {
    async fn new() -> Self {
        let schema = Schema::create().await;
        let role = format!("{}_app", schema.name());
        let mut owner = schema.connect().await;
        let create = format!(
            "CREATE ROLE {role} LOGIN; {}",
            printed(schema.name(), &role)
        );
        owner.batch_execute(&create).await.unwrap();
        Limited {
            schema,
            role,
            owner,
        }
    }

    fn url(&self) -> String {
        let url = self.schema.url();
        url.replacen("//bridgebook@", &format!("//{}@", self.role), 1)
    }

    /// Runs SQL as the owner. `ROLE` and `SCHEMA` stand for the names.
    async fn run(&mut self, sql: &str) {
        let sql = sql.replace("ROLE", &self.role);
        let sql = sql.replace("SCHEMA", &format!("SCHEMA {}", self.schema.name()));
        self.owner.batch_execute(&sql).await.unwrap();
    }

    /// Drops the role, which belongs to the cluster and not to the schema.
    async fn drop_role(mut self) {
        let role = self.role.clone();
        let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
        self.owner.batch_execute(&drop).await.unwrap();
    }
}

/// Returns the GRANT statements that the command prints.
fn printed(schema: &str, role: &str) -> String {
    let mut grants = bridgebook();
    grants.args(["database", "grants", "--role", role, "--schema", schema]);
    let output = grants.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The service starts with --migrate, and has nothing to migrate.
#[tokio::test(flavor = "multi_thread")]
async fn the_printed_rights_are_enough() {
    let limited = Limited::new().await;
    let app = App::start_by(limited.schema.clone(), limited.url()).await;
    let rows = Rows::make(&app, "tenant", None).await;
    for rpc in Rpc::ALL {
        let request = rows.fill(&sample(*rpc).request(0));
        // The service logs an error with INTERNAL, which fails the test.
        drop(call(&app, *rpc, None, &request).await);
    }
    // EXPLAIN checks the rights of a statement.
    let connected = tokio_postgres::connect(&limited.url(), NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    for statement in statements() {
        let Statement { name, .. } = statement;
        let plan = plans::explain_statement(&client, statement).await;
        assert!(plan.is_object(), "{name}");
    }
    let mut prune = bridgebook();
    prune.args(["prune", "--retain-workflows=1", "--retain-transitions=1"]);
    prune.args(["--retain-batches=1", "--retain-stamps=1"]);
    let output = prune
        .args(["--database-url", &limited.url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    drop((app, client));
    limited.drop_role().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_right_is_named_as_the_grant_that_gives_it() {
    let mut limited = Limited::new().await;
    let url = limited.url();
    let none: [String; 0] = [];
    assert_eq!(
        grants::missing(&database_address(&url)).await.unwrap(),
        none
    );
    let (schema, role) = (limited.schema.name().to_owned(), limited.role.clone());
    for (table, verbs) in grants::NEEDED {
        for verb in *verbs {
            let revoke = format!("REVOKE {verb} ON {table} FROM ROLE");
            limited.run(&revoke).await;
            let missing = grants::missing(&database_address(&url)).await.unwrap();
            let kind = match table.ends_with("_seq") {
                true => "SEQUENCE",
                false => "TABLE",
            };
            let expected = format!("GRANT {verb} ON {kind} {schema}.{table} TO {role}");
            assert_eq!(missing, [expected.as_str()]);
            limited.run(&expected).await;
            assert_eq!(
                grants::missing(&database_address(&url)).await.unwrap(),
                none
            );
        }
    }
    // Nothing else is granted.
    let granted = format!(
        "SELECT count(*) FROM pg_class c, aclexplode(c.relacl) granted
          WHERE c.relnamespace = '{schema}'::regnamespace AND granted.grantee = '{role}'::regrole"
    );
    let needed: usize = grants::NEEDED.iter().map(|(_, verbs)| verbs.len()).sum();
    assert_eq!(limited.schema.count(&granted).await, needed as i64);
    limited.drop_role().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_revoked_while_the_service_runs_is_named_in_the_log() {
    let mut limited = Limited::new().await;
    let server = Server::spawn(&["--database-url", &limited.url()]).expect_errors();
    let tenant = tenant_on(server.serving().await);
    let revoke = "REVOKE INSERT ON workflow_executions FROM ROLE";
    limited.run(revoke).await;
    let request = tenant.new_workflow();
    let refused = tenant.client.clone().start_workflow(request).await;
    assert_eq!(failure(refused), Failure::new(Code::Internal, "INTERNAL"));
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE workflow_executions TO ";
    eventually("the right is logged", async || {
        server.log().contains(grant).then_some(())
    })
    .await;
    drop(server);
    limited.drop_role().await;
}

/// PostgreSQL says that the tables do not exist.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_the_role_may_no_longer_use_is_named_and_is_no_outage() {
    let mut limited = Limited::new().await;
    let server = Server::spawn(&["--database-url", &limited.url()]).expect_errors();
    let tenant = tenant_on(server.serving().await);
    tenant.start().await;
    limited.run("REVOKE USAGE ON SCHEMA FROM ROLE").await;
    let problem = "NOT_SERVING: the database cannot be used";
    let grant = "GRANT USAGE ON SCHEMA <the schema of __diesel_schema_migrations> TO ";
    eventually("health names the right", async || {
        let log = server.log();
        let mut lines = log.lines().filter(|line| line.contains(problem));
        let line = lines.next()?;
        assert!(line.contains(grant), "{line}");
        Some(())
    })
    .await;
    let request = tenant.new_workflow();
    let refused = tenant.client.clone().start_workflow(request).await;
    assert_eq!(failure(refused), Failure::new(Code::Internal, "INTERNAL"));
    limited.run("GRANT USAGE ON SCHEMA TO ROLE").await;
    server.serving().await;
    tenant.start().await;
    drop(server);
    limited.drop_role().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_a_right_is_refused_at_the_start() {
    let mut limited = Limited::new().await;
    let (schema, role) = (limited.schema.name().to_owned(), limited.role.clone());
    for (revoke, grant) in [
        (
            "REVOKE INSERT, DELETE ON workflow_executions FROM ROLE",
            format!("GRANT INSERT, DELETE ON TABLE {schema}.workflow_executions TO {role}"),
        ),
        (
            "REVOKE SELECT ON __diesel_schema_migrations FROM ROLE",
            format!("GRANT SELECT ON TABLE {schema}.__diesel_schema_migrations TO {role}"),
        ),
        (
            "REVOKE USAGE ON SCHEMA FROM ROLE",
            format!("GRANT USAGE ON SCHEMA {schema} TO {role}"),
        ),
    ] {
        limited.run(revoke).await;
        for migrate in [&["--migrate"][..], &[]] {
            let mut serve = bridgebook();
            serve.args([
                "serve",
                "--listen=127.0.0.1:0",
                "--database-url",
                &limited.url(),
            ]);
            let output = serve.args(migrate).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{revoke}");
            assert!(
                stderr(&output).contains(&grant),
                "{grant}: {}",
                stderr(&output)
            );
        }
        limited.owner.batch_execute(&grant).await.unwrap();
    }
    limited.drop_role().await;
}

/// Only the owner can alter the default of a column.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_adopt_a_restored_journal_names_the_owner() {
    let mut limited = Limited::new().await;
    let owner = App::start_on(limited.schema.clone(), |_| {}).await;
    owner.tenant().start().await;
    drop(owner);
    let restore = "UPDATE fsm_transitions SET xid = '9000000000';
                   UPDATE journal_cluster SET system_identifier = 1";
    limited.run(restore).await;
    let (url, owned) = (limited.url(), limited.schema.url());
    let run = |arguments: &[&str], url: &str| {
        let mut command = bridgebook();
        let command = command.args(arguments).args(["--database-url", url]);
        command.output().unwrap()
    };
    for arguments in [
        &["serve", "--listen=127.0.0.1:0"][..],
        &["serve", "--listen=127.0.0.1:0", "--migrate"],
        &["migrate", "up"],
    ] {
        let output = run(arguments, &url);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let error = stderr(&output);
        let remedy = "run `bridgebook migrate up` once as bridgebook";
        assert!(error.contains(remedy), "{error}");
    }
    let output = run(&["migrate", "up"], &owned);
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("adopted the journal"), "{printed}");
    let app = App::start_by(limited.schema.clone(), url).await;
    app.tenant().start().await;
    let after = "SELECT count(*) FROM fsm_transitions WHERE xid > '9000000000'";
    assert_eq!(limited.schema.count(after).await, 1);
    drop(app);
    limited.drop_role().await;
}

/// The connections of health checks and of lists still work.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_gets_no_new_connection_is_not_serving() {
    let mut limited = Limited::new().await;
    let server = Server::spawn(&["--database-url", &limited.url()]);
    let tenant = tenant_on(server.serving().await);
    let limit = |limit| format!("ALTER ROLE {} CONNECTION LIMIT {limit}", limited.role);
    let (none, any) = (limit(0), limit(-1));
    limited.owner.batch_execute(&none).await.unwrap();
    let is_healthy = async || {
        let mut health = HealthClient::new(tenant.channel.clone());
        health
            .check(HealthCheckRequest::default())
            .await
            .is_ok_and(|it| it.into_inner().status() == ServingStatus::Serving)
    };
    eventually("health says so", async || {
        let new = tenant.new_workflow();
        let started = tenant.client.clone().start_workflow(new).await;
        assert_eq!(started.unwrap_err().code(), Code::Unavailable);
        (!is_healthy().await).then_some(())
    })
    .await;
    limited.owner.batch_execute(&any).await.unwrap();
    eventually("it is healthy again", async || {
        is_healthy().await.then_some(())
    })
    .await;
    tenant.start().await;
    drop(server);
    limited.drop_role().await;
}

#[tokio::test]
async fn the_names_of_a_role_and_a_schema_may_have_any_characters() {
    let schema = Schema::create().await;
    let mut owner = schema.connect().await;
    let role = format!("{} \"app; it's", schema.name());
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    owner
        .batch_execute(&format!("CREATE ROLE {quoted}"))
        .await
        .unwrap();
    let grants = printed(schema.name(), &role);
    owner.batch_execute(&grants).await.unwrap();
    let drop = format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}");
    owner.batch_execute(&drop).await.unwrap();
}
