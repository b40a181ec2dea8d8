//! Outages: a full disk, a read-only or frozen database, dead connections, slow queries.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bridgebook::{
    embedded::{Embedded, Settings},
    proto::v1::{ListStampsRequest, ListWorkflowsRequest},
};
use diesel_async::SimpleAsyncConnection;
use futures_util::future::join_all;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::{Code, Request, Status};

use crate::support::{
    App, Failure, Frozen, Server, Tenant, connect_database, eventually, failure, send_signal,
    temp_dir, tenant_on,
};

async fn start(tenant: &Tenant, patience: Duration) -> Result<(), Status> {
    let mut request = Request::new(tenant.new_workflow());
    request.set_timeout(patience);
    tenant
        .client
        .clone()
        .start_workflow(request)
        .await
        .map(drop)
}

async fn starts_again(tenant: &Tenant) {
    eventually("workflows start again", || async {
        start(tenant, Duration::from_secs(20)).await.ok()
    })
    .await;
}

/// The trigger raises the SQLSTATE of PostgreSQL's error, with a text in another language.
#[tokio::test]
async fn a_full_disk_is_an_outage_and_not_an_internal_error() {
    let app = App::start().await;
    let tenant = app.tenant();
    let mut admin = app.schema.connect().await;
    let fills_up = "CREATE FUNCTION fill_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE 'konnte Datei nicht erweitern: Auf dem Gerät ist kein Speicherplatz mehr verfügbar'
                USING ERRCODE = 'disk_full';
        END $$;
        CREATE TRIGGER is_full BEFORE INSERT ON workflow_executions
            FOR EACH ROW EXECUTE FUNCTION fill_up()";
    admin.batch_execute(fills_up).await.unwrap();
    let starts = (0..8).map(|_| start(&tenant, Duration::from_secs(20)));
    for refused in join_all(starts).await {
        let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
        assert_eq!(failure(refused), away);
    }
    let has_room = "DROP TRIGGER is_full ON workflow_executions";
    admin.batch_execute(has_room).await.unwrap();
    start(&tenant, Duration::from_secs(20)).await.unwrap();
}

#[tokio::test]
async fn a_read_only_database_is_an_outage_until_it_is_writable() {
    let dir = temp_dir();
    let cluster = Embedded::start(Settings::new(&dir.0)).await.unwrap();
    let url = cluster.database_url();
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    start(&tenant, Duration::from_secs(20)).await.unwrap();
    let mut admin = connect_database(&url).await;
    admin
        .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await
        .unwrap();
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    eventually("writes are refused", || async {
        let refused = start(&tenant, Duration::from_secs(20)).await;
        refused.is_err().then(|| assert_eq!(failure(refused), away))
    })
    .await;
    admin
        .batch_execute("ALTER SYSTEM RESET default_transaction_read_only")
        .await
        .unwrap();
    admin
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    starts_again(&tenant).await;
}

/// Proxies to the cluster's socket. On request its existing connections fall silent, as when
/// a host dies.
async fn proxy(cluster: &Embedded, silence: watch::Receiver<usize>) -> SocketAddr {
    let socket = cluster
        .socket_dir()
        .join(format!(".s.PGSQL.{}", cluster.port()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let socket = socket.clone();
            let mut silence = silence.clone();
            silence.mark_unchanged();
            tokio::spawn(async move { link(client, &socket, &mut silence).await });
        }
    });
    address
}

async fn link(
    mut client: TcpStream,
    socket: &std::path::Path,
    silence: &mut watch::Receiver<usize>,
) {
    let mut server = tokio::net::UnixStream::connect(socket).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = silence.changed() => {
            // Both ends stay open without reading.
            std::future::pending::<()>().await;
        }
    }
}

#[tokio::test]
async fn connections_that_die_silently_are_replaced() {
    let dir = temp_dir();
    let cluster = Embedded::start(Settings::new(&dir.0)).await.unwrap();
    let (silence, listen) = watch::channel(0);
    let address = proxy(&cluster, listen).await;
    // The cluster trusts every client of its socket.
    let url = format!(
        "postgres://{}@{address}/{}",
        cluster.user(),
        cluster.database()
    );
    let server = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    start(&tenant, Duration::from_secs(20)).await.unwrap();
    silence.send(1).unwrap();
    starts_again(&tenant).await;
}

/// Long enough for the service to detect the outage by itself.
const PATIENCE: Duration = Duration::from_secs(25);

#[tokio::test]
async fn calls_fail_during_an_outage_and_succeed_after_it() {
    let dir = temp_dir();
    let cluster = Embedded::start(Settings::new(&dir.0)).await.unwrap();
    let server = Server::spawn(&["--database-url", &cluster.database_url(), "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    start(&tenant, PATIENCE).await.unwrap();
    let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    let frozen = Frozen::freeze(&cluster);
    // One call in progress when the database freezes, and one after the outage is known.
    assert_eq!(failure(start(&tenant, PATIENCE).await), away);
    let refused = list_workflows(&tenant, PATIENCE).await;
    assert_eq!(failure(refused), away);
    drop(frozen);
    starts_again(&tenant).await;
    list_workflows(&tenant, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_unavailable_and_never_queued_while_postgresql_restarts() {
    let dir = temp_dir();
    let mut cluster = Embedded::start(Settings::new(&dir.0)).await.unwrap();
    let server = Server::spawn(&["--database-url", &cluster.database_url(), "--migrate"]);
    let tenant = tenant_on(server.serving().await);
    list_workflows(&tenant, PATIENCE).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let listed = Arc::new(AtomicUsize::new(0));
    let callers = (0..100).map(|_| {
        let (tenant, stopped, listed) = (tenant.clone(), stopped.clone(), Arc::clone(&listed));
        tokio::spawn(async move {
            let mut failures = Vec::new();
            while !*stopped.borrow() {
                match list_workflows(&tenant, PATIENCE).await {
                    Ok(()) => drop(listed.fetch_add(1, Ordering::Relaxed)),
                    Err(failure) => failures.push(failure),
                }
            }
            failures
        })
    });
    let callers: Vec<_> = callers.collect();
    // All callers are in the middle of a list then, most of them waiting for a connection.
    eventually("the callers are busy", async || {
        (listed.load(Ordering::Relaxed) > 500).then_some(())
    })
    .await;
    send_signal("QUIT", cluster.pid());
    cluster.crashed().await;
    eventually("the service notices the outage", async || {
        server.log().contains("NOT_SERVING").then_some(())
    })
    .await;
    cluster.restart().await.unwrap();
    eventually("lists succeed again", async || {
        list_workflows(&tenant, PATIENCE).await.ok()
    })
    .await;
    stop.send_replace(true);
    let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    for failures in join_all(callers).await {
        for refused in failures.unwrap() {
            assert_eq!(failure::<()>(Err(refused)), away);
        }
    }
}

/// The numbers of calls in each line of the call log about an outage.
fn logged_failures(server: &Server) -> Vec<u64> {
    let log = server.log();
    let lines = log.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_failure = line["target"] == "bridgebook::call" && line["code"] == "Unavailable";
        is_failure.then(|| line["repeated"].as_u64().unwrap_or(1))
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_to_a_frozen_database_are_unavailable_and_few_lines() {
    let dir = temp_dir();
    let cluster = Embedded::start(Settings::new(&dir.0)).await.unwrap();
    let url = cluster.database_url();
    let server = Server::spawn(&["--database-url", &url, "--migrate", "--log-format", "json"]);
    let mut tenants = vec![tenant_on(server.serving().await)];
    tenants.extend((1..5).map(|_| tenant_on(server.channel())));
    for tenant in &tenants {
        list_workflows(tenant, PATIENCE).await.unwrap();
    }
    let frozen = Frozen::freeze(&cluster);
    let calls = (0..1000).map(|number| {
        let tenant = &tenants[number % tenants.len()];
        async move {
            match number % 3 {
                0 => start(tenant, PATIENCE).await,
                _ => list_workflows(tenant, PATIENCE).await,
            }
        }
    });
    let away = Failure::new(Code::Unavailable, "DATABASE_UNAVAILABLE");
    for refused in join_all(calls).await {
        assert_eq!(failure(refused), away);
    }
    drop(frozen);
    let lines = eventually("all calls are logged", || async {
        let lines = logged_failures(&server);
        (lines.iter().sum::<u64>() == 1000).then_some(lines)
    })
    .await;
    // A line for each cause and second.
    assert!(lines.len() < 50, "{lines:?}");
}

async fn list_workflows(tenant: &Tenant, patience: Duration) -> Result<(), Status> {
    let mut request = Request::new(ListWorkflowsRequest {
        namespace: tenant.namespace.clone(),
        ..ListWorkflowsRequest::default()
    });
    request.set_timeout(patience);
    let answer = tenant.client.clone().list_workflows(request).await;
    answer.map(drop)
}

/// One tenant gets one of the two connections for queries of tenants.
#[tokio::test]
async fn slow_lists_of_one_tenant_do_not_delay_other_tenants() {
    let app = App::start_with(|config| config.database_connections = 8).await;
    let [slow, other] = [app.tenant(), app.tenant()];
    let mut blocker = app.schema.connect().await;
    let lock = "BEGIN; LOCK TABLE metadata_stamps";
    blocker.batch_execute(lock).await.unwrap();
    let lists = (0..8).map(|_| {
        let request = ListStampsRequest {
            namespace: slow.namespace.clone(),
            ..ListStampsRequest::default()
        };
        let mut client = slow.client.clone();
        tokio::spawn(async move { client.list_stamps(request).await })
    });
    let lists: Vec<_> = lists.collect();
    let full = Failure::new(Code::ResourceExhausted, "QUEUE_FULL");
    let refused = eventually("the tenant has its share", || async {
        list_workflows(&slow, Duration::from_secs(20)).await.err()
    })
    .await;
    assert_eq!(failure::<()>(Err(refused)), full);
    for _ in 0..10 {
        let patience = Duration::from_secs(20);
        list_workflows(&other, patience).await.unwrap();
    }
    blocker.batch_execute("COMMIT").await.unwrap();
    let served = join_all(lists).await.into_iter();
    assert!(served.map(Result::unwrap).any(|list| list.is_ok()));
}

#[tokio::test]
async fn cancelled_reads_do_not_delay_later_ones() {
    let (app, tenant) = App::with_tenant().await;
    let mut blocker = app.schema.connect().await;
    blocker
        .batch_execute("BEGIN; LOCK TABLE metadata_stamps")
        .await
        .unwrap();
    let stuck = (0..40).map(|_| {
        let mut request = Request::new(ListStampsRequest {
            namespace: tenant.namespace.clone(),
            ..ListStampsRequest::default()
        });
        request.set_timeout(Duration::from_millis(200));
        let mut client = tenant.client.clone();
        async move { client.list_stamps(request).await }
    });
    assert!(join_all(stuck).await.iter().all(Result::is_err));
    list_workflows(&tenant, Duration::from_secs(20))
        .await
        .unwrap();
}
