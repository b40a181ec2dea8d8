//! TLS to PostgreSQL: every mode, with good and with bad certificates.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use bridgebook::{db, proto::v1::ListStampsRequest};
use diesel::sql_types::Bool;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_ED25519,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    Authority, FAR, Identity, RemotePostgres, Server, authority, count, database_address,
    eventually, signed, tenant_on,
};

/// Accepts connections with TLS only.
const ONLY_TLS: &str = "hostssl all all 127.0.0.1/32 trust";

const MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// Starts a server that accepts connections with TLS only. Also returns who signed its certificate.
pub(super) async fn encrypted() -> (RemotePostgres, Authority) {
    let server = RemotePostgres::start().await;
    server.allow(ONLY_TLS).await;
    let root = authority("root");
    let key = KeyPair::generate().unwrap();
    let identity = signed(&root, "localhost", FAR, &key);
    server.present(&identity, None).await;
    (server, root)
}

/// Makes a certificate for localhost that has signed itself, as an authority or not.
fn self_signed(is_ca: bool) -> Identity {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    Identity {
        certificate: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// Connects, and returns whether the connection is encrypted, or why there is none.
async fn outcome(url: &str) -> Result<bool, String> {
    match db::connect(&database_address(url)).await {
        Ok(mut connection) => Ok(is_encrypted(&mut connection).await),
        Err(error) => Err(error.to_string()),
    }
}

async fn is_encrypted(connection: &mut AsyncPgConnection) -> bool {
    #[derive(diesel::QueryableByName)]
    struct Row {
        #[diesel(sql_type = Bool)]
        ssl: bool,
    }
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row: Row = diesel::sql_query(query)
        .get_result(connection)
        .await
        .unwrap();
    row.ssl
}

/// What a connection is expected to be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Encrypted,
    Unencrypted,
    /// The error has this part.
    Refused(&'static str),
}

use Expected::{Encrypted, Refused, Unencrypted};

impl Expected {
    fn is(self, outcome: &Result<bool, String>) -> bool {
        match (self, outcome) {
            (Encrypted, Ok(is_encrypted)) => *is_encrypted,
            (Unencrypted, Ok(is_encrypted)) => !*is_encrypted,
            (Refused(part), Err(error)) => error.contains(part),
            _ => false,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_has_the_meaning_of_libpq() {
    let server = RemotePostgres::start().await;
    server.allow(ONLY_TLS).await;
    let (root, other) = (authority("root"), authority("other"));
    let key = KeyPair::generate().unwrap();
    let roots = server.write("root.crt", &root.pem());
    let no_tls = Refused("set sslmode=require");
    let no_support = Refused("turn on ssl in PostgreSQL");
    let unknown = Refused("set sslrootcert to the file with its root");
    let wrong_name = Refused("set sslmode=verify-ca");
    let expired = Refused("renew the server's certificate");
    let (yes, no) = (Encrypted, Unencrypted);
    // What disable, allow, prefer and require do without a root, then verify-ca and verify-full.
    let cases = [
        (
            ONLY_TLS,
            Some(signed(&root, "localhost", FAR, &key)),
            [no_tls, yes, yes, yes, yes, yes],
        ),
        (
            ONLY_TLS,
            Some(signed(&other, "localhost", FAR, &key)),
            [no_tls, yes, yes, yes, unknown, unknown],
        ),
        (
            ONLY_TLS,
            Some(signed(&root, "db.example", FAR, &key)),
            [no_tls, yes, yes, yes, yes, wrong_name],
        ),
        (
            ONLY_TLS,
            Some(self_signed(false)),
            [no_tls, yes, yes, yes, unknown, unknown],
        ),
        (
            ONLY_TLS,
            Some(signed(&root, "localhost", 2000, &key)),
            [no_tls, yes, yes, yes, expired, expired],
        ),
        (
            ONLY_TLS,
            None,
            [
                no_tls, no_support, no_tls, no_support, no_support, no_support,
            ],
        ),
        (
            "host all all 127.0.0.1/32 trust",
            None,
            [no, no, no, no_support, no_support, no_support],
        ),
        (
            "host all all 127.0.0.1/32 trust",
            Some(signed(&root, "localhost", FAR, &key)),
            [no, no, yes, yes, yes, yes],
        ),
        (
            "hostnossl all all 127.0.0.1/32 trust",
            Some(signed(&root, "localhost", FAR, &key)),
            [no, no, no, Refused("SSL"), Refused("SSL"), Refused("SSL")],
        ),
    ];
    for (number, (rules, identity, expected)) in cases.into_iter().enumerate() {
        server.allow(rules).await;
        match &identity {
            Some(identity) => server.present(identity, None).await,
            None => server.present_nothing().await,
        }
        // PostgreSQL reads its files some time after it was told to. The strict modes tell when.
        for (mode, expected) in MODES.into_iter().zip(expected).rev() {
            let mut parameters = format!("sslmode={mode}");
            if mode.starts_with("verify") {
                parameters.push_str(&format!("&sslrootcert={}", roots.display()));
            }
            let url = server.url(server.user, &parameters);
            let what = format!("{expected:?} in case {number} with {mode}");
            eventually(&what, || async {
                expected.is(&outcome(&url).await).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_leaves_time_to_the_next_one() {
    let server = RemotePostgres::start().await;
    server.allow("host all all 127.0.0.1/32 trust").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let RemotePostgres {
        port,
        user,
        database,
        ..
    } = &server;
    let url = format!("postgres://{user}@{silent},localhost:{port}/{database}");
    expect(Unencrypted, &url).await;
    let url = format!("postgres://{user}@{silent},localhost:{port}/nothing");
    expect(Refused("no answer within"), &url).await;
    expect(Refused("create the database"), &url).await;
}

/// Connects until the outcome is the expected one.
async fn expect(expected: Expected, url: &str) {
    eventually(&format!("{expected:?}"), || async {
        expected.is(&outcome(url).await).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn require_verifies_by_a_root_certificate_which_is_read_again() {
    let server = RemotePostgres::start().await;
    server.allow(ONLY_TLS).await;
    let (root, other) = (authority("root"), authority("other"));
    let key = KeyPair::generate().unwrap();
    server
        .present(&signed(&other, "db.example", FAR, &key), None)
        .await;
    let roots = server.write("root.crt", &root.pem());
    let url = server.url(
        server.user,
        &format!("sslmode=require&sslrootcert={}", roots.display()),
    );
    expect(Refused("set sslrootcert"), &url).await;
    // The same address. The file is read again; the name of the host does not matter.
    let address = database_address(&url);
    assert!(db::connect(&address).await.is_err());
    fs::write(&roots, other.pem()).unwrap();
    db::connect(&address).await.unwrap();
    // A file that is half written leaves the last one in force.
    fs::write(&roots, "-----BEGIN CERTIFICATE-----").unwrap();
    db::connect(&address).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_an_authority_is_refused_as_that_of_a_server() {
    let server = RemotePostgres::start().await;
    server.allow(ONLY_TLS).await;
    let identity = self_signed(true);
    server.present(&identity, None).await;
    let roots = server.write("root.crt", &identity.certificate);
    let parameters = format!("sslmode=verify-full&sslrootcert={}", roots.display());
    expect(Refused("(CA:TRUE)"), &server.url(server.user, &parameters)).await;
    // As a root it need not be one.
    let identity = self_signed(false);
    server.present(&identity, None).await;
    server.write("root.crt", &identity.certificate);
    expect(Encrypted, &server.url(server.user, &parameters)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_that_refuses_the_login_is_asked_once() {
    let server = RemotePostgres::start().await;
    let error = outcome(&server.url(server.user, "sslmode=prefer")).await;
    let error = error.unwrap_err();
    assert_eq!(error.matches("pg_hba.conf rejects").count(), 1, "{error}");
    assert!(!error.contains("with TLS: "), "{error}");
}

/// Starts a server that accepts only clients with a certificate. Also returns who signs them.
pub(super) async fn with_client_certificates() -> (RemotePostgres, Authority) {
    let server = RemotePostgres::start().await;
    server.allow("hostssl all all 127.0.0.1/32 cert").await;
    server.run("CREATE ROLE node LOGIN").await;
    let root = authority("root");
    let key = KeyPair::generate().unwrap();
    let identity = signed(&root, "localhost", FAR, &key);
    server.present(&identity, Some(&root.pem())).await;
    (server, root)
}

/// Writes a certificate of the role `node` and its key. Returns the URL with them.
pub(super) fn client_url(server: &RemotePostgres, by: &Authority, name: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "node");
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap().pem();
    let certificate = server.write(&format!("{name}.crt"), &certificate);
    let key = server.write(&format!("{name}.key"), &key.serialize_pem());
    let files = format!("sslcert={}&sslkey={}", certificate.display(), key.display());
    server.url("node", &format!("sslmode=require&{files}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_takes_the_place_of_a_password() {
    let (server, root) = with_client_certificates().await;
    expect(Encrypted, &client_url(&server, &root, "good")).await;
    let bad = client_url(&server, &authority("other"), "bad");
    expect(Refused("set sslcert and sslkey"), &bad).await;
    let without = server.url("node", "sslmode=require");
    expect(Refused("client certificate"), &without).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_bound_to_the_channel_where_the_certificate_allows_it() {
    let server = RemotePostgres::start().await;
    server
        .allow("hostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 scram-sha-256")
        .await;
    let password = r#"a b:c@d/e?f#g%h&i=j'k"l\m,n;ö"#;
    let quoted = password.replace('\'', "''");
    server
        .run(&format!("CREATE ROLE node LOGIN PASSWORD '{quoted}'"))
        .await;
    let encoded: String = password
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let user = format!("node:{encoded}");
    let root = authority("root");
    let key = KeyPair::generate().unwrap();
    server
        .present(&signed(&root, "localhost", FAR, &key), None)
        .await;
    let bound = "sslmode=require&channel_binding=require";
    expect(Encrypted, &server.url(&user, bound)).await;
    expect(
        Encrypted,
        &server.url(&user, "sslmode=require&channel_binding=disable"),
    )
    .await;
    let unencrypted = "sslmode=allow&channel_binding=require";
    expect(Refused("channel binding"), &server.url(&user, unencrypted)).await;
    expect(
        Refused("password authentication failed"),
        &server.url("node:other", bound),
    )
    .await;
    // A signature with Ed25519 has no digest that could be bound.
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signer = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let root = CertifiedIssuer::self_signed(params, signer).unwrap();
    server
        .present(&signed(&root, "localhost", FAR, &key), None)
        .await;
    expect(Refused("channel binding"), &server.url(&user, bound)).await;
    expect(Encrypted, &server.url(&user, "sslmode=require")).await;
    // A password file, and a password in key=value pairs.
    let escaped = password.replace('\\', "\\\\").replace(':', "\\:");
    let file = server.write("pgpass", &format!("localhost:*:*:node:{escaped}\n"));
    let with_file = format!("sslmode=require&passfile={}", file.display());
    expect(Encrypted, &server.url("node", &with_file)).await;
    let quoted = password.replace('\\', "\\\\").replace('\'', "\\'");
    let RemotePostgres { port, database, .. } = &server;
    let pairs = format!(
        "host=localhost port={port} user=node dbname={database} sslmode=require password='{quoted}'"
    );
    expect(Encrypted, &pairs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_of_the_service_is_encrypted() {
    let (server, root) = encrypted().await;
    let roots = server.write("root.crt", &root.pem());
    let parameters = format!("sslmode=verify-full&sslrootcert={}", roots.display());
    let url = server.url(server.user, &parameters);
    expect(Encrypted, &url).await;
    let (port, codes) = relay_to(server.port).await;
    let url = url.replacen(&format!(":{}/", server.port), &format!(":{port}/"), 1);
    let service = Server::spawn(&["--database-url", &url, "--migrate"]);
    let tenant = tenant_on(service.serving().await);
    let workflow = tenant.start().await;
    tenant.get(&workflow).await;
    let mut local = server.local().await;
    let remote = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr IS NOT NULL";
    assert!(count(&mut local, &format!("SELECT count(*) {remote} AND ssl")).await >= 2);
    assert_eq!(
        count(&mut local, &format!("SELECT count(*) {remote} AND NOT ssl")).await,
        0
    );
    assert!(!service.log().contains("is not verified"));

    // So are the requests that cancel queries, each over a connection of its own.
    let before = codes.lock().unwrap().len();
    let mut blocker = server.local().await;
    let lock = "BEGIN; LOCK TABLE metadata_stamps";
    blocker.batch_execute(lock).await.unwrap();
    let waiting = async |expected| {
        eventually("the query waits, or no longer does", || async {
            let waits = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            let mut local = server.local().await;
            let waiting = count(&mut local, &format!("SELECT count(*) {waits}")).await;
            (waiting == expected).then_some(())
        })
        .await;
    };
    let request = ListStampsRequest {
        namespace: tenant.namespace.clone(),
        ..ListStampsRequest::default()
    };
    let mut client = tenant.client.clone();
    tokio::select! {
        answer = client.list_stamps(request) => panic!("it did not wait: {answer:?}"),
        () = waiting(1) => {}
    }
    waiting(0).await;
    let codes = codes.lock().unwrap().clone();
    assert!(codes.len() > before, "{codes:?}");
    assert!(codes.iter().all(|code| *code == SSL_REQUEST), "{codes:?}");
}

/// The code with which a client asks for TLS, before it sends anything else.
const SSL_REQUEST: u32 = 80_877_103;

/// Relays connections to a port of this machine. Also returns the codes with which they begin.
async fn relay_to(port: u16) -> (u16, Arc<Mutex<Vec<u32>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let codes: Arc<Mutex<Vec<u32>>> = Arc::default();
    let seen = Arc::clone(&codes);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                // The length, and the code.
                let mut head = [0; 8];
                if client.read_exact(&mut head).await.is_err() {
                    return;
                }
                let code = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                seen.lock().unwrap().push(code);
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                server.write_all(&head).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address.port(), codes)
}

/// PostgreSQL 17 and newer begin TLS without a request of their own.
#[tokio::test(flavor = "multi_thread")]
async fn tls_begins_at_once_where_the_server_has_it() {
    let (server, _) = encrypted().await;
    let url = |mode| server.url(server.user, &format!("sslmode={mode}"));
    expect(Encrypted, &url("require")).await;
    let version = "SELECT current_setting('server_version_num')::BIGINT";
    let is_supported = count(&mut server.local().await, version).await >= 170_000;
    let direct = outcome(&url("require&sslnegotiation=direct")).await;
    assert_eq!(direct.is_ok(), is_supported, "{direct:?}");
}
