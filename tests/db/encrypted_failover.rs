//! Several hosts, and a standby that is promoted, with TLS.

use bridgebook::db::{self, migrations};
use tonic::Code;

use super::tls::encrypted;
use crate::support::{
    Failure, RemotePostgres, Server, count, database_address, eventually, failure, tenant_on,
};

/// Returns the number of connections from other machines that are encrypted, and of those that are not.
pub(super) async fn connections(server: &RemotePostgres) -> [i64; 2] {
    let remote = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL";
    let mut local = server.local().await;
    let encrypted = format!("SELECT count(*) {remote} AND ssl");
    let other = format!("SELECT count(*) {remote} AND NOT ssl");
    [
        count(&mut local, &encrypted).await,
        count(&mut local, &other).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_takes_over_with_tls() {
    let (mut primary, root) = encrypted().await;
    let standby = primary.standby().await;
    let roots = standby.write("root.crt", &root.pem());
    let parameters = format!("sslmode=verify-full&sslrootcert={}", roots.display());
    let (user, database) = (primary.user, primary.database);
    // The standby is the first host, so each connection finds that it is read-only.
    let url = format!(
        "postgres://{user}@localhost:{},localhost:{}/{database}?{parameters}",
        standby.port, primary.port
    );
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    tenant.start().await;
    let [encrypted, other] = connections(&primary).await;
    assert!(encrypted >= 2 && other == 0, "{encrypted} {other}");
    eventually("the standby has no connection that stays", || async {
        (connections(&standby).await == [0, 0]).then_some(())
    })
    .await;
    eventually("the standby has the workflow", || async {
        let mut standby = standby.local().await;
        let workflows = "SELECT count(*) FROM workflow_executions";
        (count(&mut standby, workflows).await == 1).then_some(())
    })
    .await;

    primary.kill();
    let request = tenant.new_workflow();
    let mut client = tenant.client.clone();
    let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    let refused = client.start_workflow(request.clone()).await;
    assert_eq!(failure(refused), away);
    standby.run("SELECT pg_promote()").await;
    eventually("workflows start again", || async {
        let mut client = client.clone();
        client.start_workflow(request.clone()).await.ok()
    })
    .await;
    let [encrypted, other] = connections(&standby).await;
    assert!(encrypted >= 1 && other == 0, "{encrypted} {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn target_session_attrs_chooses_the_kind_of_server() {
    let (primary, root) = encrypted().await;
    let standby = primary.standby().await;
    let roots = standby.write("root.crt", &root.pem());
    let connect = async |attrs: &str| {
        let parameters = format!("sslmode=verify-full&sslrootcert={}{attrs}", roots.display());
        let url = standby.url(standby.user, &parameters);
        db::connect(&database_address(&url)).await
    };
    for attrs in [
        "",
        "&target_session_attrs=read-write",
        "&target_session_attrs=primary",
    ] {
        let error = connect(attrs).await.err().unwrap().to_string();
        assert!(error.contains("does not allow writes"), "{error}");
    }
    connect("&target_session_attrs=any").await.unwrap();

    // A service waits for the promotion, and says so.
    let parameters = format!("sslmode=verify-full&sslrootcert={}", roots.display());
    let migrated = primary.url(primary.user, &parameters);
    migrations::up(&database_address(&migrated)).await.unwrap();
    let url = standby.url(standby.user, &parameters);
    let address = database_address(&url);
    eventually("the standby has the schema", || async {
        let pending = migrations::pending(&address).await.ok()?;
        pending.is_empty().then_some(())
    })
    .await;
    let server = Server::spawn(&["--database-url", &url]);
    eventually("the cause is logged", || async {
        let log = server.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("waiting for the database"));
        lines
            .any(|line| line.contains("does not allow writes"))
            .then_some(())
    })
    .await;
    standby.run("SELECT pg_promote()").await;
    server.serving().await;
}
