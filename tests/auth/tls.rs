use std::sync::Arc;

use bridgebook::{
    client::Client,
    domain::role::Role,
    proto::v1::{ListWorkflowsRequest, RevokeTokenRequest},
    rpc::{auth::certificate::CertificateMapping, transport::tls::Tls},
};
use chrono::Utc;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
        version::{TLS12, TLS13},
    },
};
use tonic::{Code, Status, transport::Channel};

use crate::support::{
    App, Failure, Pki, bridgebook, connect, eventually, failure, send_part, stderr,
};

async fn call(client: &Client) -> Result<(), Status> {
    let request = ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    };
    client.workflows().list_workflows(request).await.map(drop)
}

/// Calls over a channel without a token.
async fn certified_call(channel: &Channel) -> Result<(), Status> {
    call(&Client::new(channel.clone())).await
}

/// Completes a handshake with this version of TLS.
async fn handshake(
    app: &App,
    pki: &Pki,
    version: &'static SupportedProtocolVersion,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(pki.path("root.pem")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(app.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn calls_over_tls_still_need_a_token() {
    let pki = Pki::new();
    let app = App::start_private(&pki, |_| {}).await;
    let token = app.issue(Role::Reader, &["team-a"]).await;
    call(&token.client(&app.channel)).await.unwrap();
    let missing = Failure::new(Code::Unauthenticated, "CREDENTIAL_MISSING");
    assert_eq!(failure(certified_call(&app.channel).await), missing);
    // A client without TLS cannot connect.
    let plain = call(&token.client(&connect(app.address)))
        .await
        .unwrap_err();
    assert!(std::error::Error::source(&plain).is_some(), "{plain:?}");
    // The client may have its answer before the server has counted it.
    eventually("the failed handshake is counted", async || {
        let refused = "bridgebook_connections_refused_total";
        let count = app.figures().sum(refused, &[("cause", "handshake")]);
        (count >= 1.0).then_some(())
    })
    .await;
    let expiry = "bridgebook_tls_certificate_expiry_timestamp_seconds";
    let ends = app.figures().sum(expiry, &[]);
    assert!(ends > Utc::now().timestamp() as f64);
}

#[tokio::test]
async fn both_versions_of_tls_carry_http_2() {
    let pki = Pki::new();
    let app = App::start_private(&pki, |_| {}).await;
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let stream = handshake(&app, &pki, version).await;
        let connection = stream.get_ref().1;
        assert_eq!(connection.protocol_version(), Some(expected));
        assert_eq!(connection.alpn_protocol(), Some(b"h2".as_slice()));
    }
}

#[tokio::test]
async fn a_client_certificate_maps_to_a_token() {
    let pki = Pki::new();
    let app = App::start_private(&pki, |_| {}).await;
    let token = app.issue(Role::Reader, &["team-a"]).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let certified = pki.trust().identity(pki.identity("node 7", "Team A"));
    let channel = pki.connect_with(app.address, certified);
    let unknown = Failure::new(Code::Unauthenticated, "CERTIFICATE_UNMAPPED");
    assert_eq!(failure(certified_call(&channel).await), unknown);

    // The mapping file is reloaded, and applies to existing connections.
    pki.map(&[("CN=node 7,O=Team A", &token.id)]);
    eventually("it is mapped", async || certified_call(&channel).await.ok()).await;
    let mut workflows = Client::new(channel.clone()).workflows();
    let foreign = ListWorkflowsRequest {
        namespace: "team-b".into(),
        ..ListWorkflowsRequest::default()
    };
    let failed = failure(workflows.list_workflows(foreign).await);
    assert_eq!(failed.reason, "NAMESPACE_DENIED");
    // A credential takes precedence over the certificate.
    let other = app.issue(Role::Reader, &["team-b"]).await;
    let failed = failure(call(&other.client(&channel)).await);
    assert_eq!(failed.reason, "NAMESPACE_DENIED");

    let revocation = RevokeTokenRequest { id: token.id };
    let mut operator = admin.client(&app.channel).admin();
    operator.revoke_token(revocation).await.unwrap();
    let failed = eventually("it ends", async || certified_call(&channel).await.err()).await;
    assert_eq!(failure::<()>(Err(failed)).reason, "CREDENTIAL_REVOKED");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let (pki, others) = (Pki::new(), Pki::new());
    let app = App::start_private(&pki, |_| {}).await;
    let certified = pki.trust().identity(others.identity("node 7", "Team A"));
    let channel = pki.connect_with(app.address, certified);
    let refused = certified_call(&channel).await.unwrap_err();
    assert!(std::error::Error::source(&refused).is_some(), "{refused:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_loaded_without_closing_connections() {
    let pki = Pki::new();
    let app = App::start_private(&pki, |_| {}).await;
    let before = handshake(&app, &pki, &TLS13).await;
    let (mut old, connection) = h2::client::handshake(before).await.unwrap();
    let connection = tokio::spawn(connection);

    let renewed = pki.renew();
    eventually("it is read", async || {
        let stream = handshake(&app, &pki, &TLS13).await;
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        (shown[0].to_vec() == renewed).then_some(())
    })
    .await;

    let request = http::Request::post("https://localhost/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, mut body) = old.send_request(request, false).unwrap();
    send_part(&mut body, vec![0; 5], true);
    assert!(answer.await.unwrap().status().is_success());
    connection.abort();
}

/// Nothing looks at the files while the service waits for its database, for example.
#[tokio::test]
async fn files_that_are_replaced_before_the_first_look_are_loaded() {
    let pki = Pki::new();
    let settings = pki.config();
    let (files, path) = (settings.files, settings.client_tokens.unwrap());
    let tls = Tls::load(&files).unwrap();
    let mapping = CertificateMapping::load(&path).unwrap();
    let before = tls.expires_at();
    pki.renew_until(2099);
    pki.map(&[("CN=node 7", &crate::support::new_id())]);
    let loaded = eventually("both are loaded", async || {
        let is_loaded = tls.expires_at() < before && mapping.token_of("CN=node 7").is_some();
        is_loaded.then_some(())
    });
    tokio::select! {
        () = loaded => {}
        () = tls.watch(&files) => {}
        () = mapping.watch(&path) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_use_tls_and_tokens() {
    let pki = Pki::new();
    let app = App::start_private(&pki, |_| {}).await;
    let token = app.issue(Role::Reader, &["team-a"]).await;
    let address = app.address.to_string();
    let root = pki.path("root.pem");
    let tls = [
        "--tls-ca",
        root.to_str().unwrap(),
        "--tls-name",
        "localhost",
    ];
    let output = bridgebook().args(["health", &address]).args(tls).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let show = ["fsm", "show", "workflow", "--namespace", "team-a"];
    let run = |credential: &str| {
        let mut command = bridgebook();
        command.args(show).args(tls).args(["--address", &address]);
        command
            .env("BRIDGEBOOK_TOKEN", credential)
            .output()
            .unwrap()
    };
    let output = run(&token.credential);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = run("bb_nobody");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("authorization"),
        "{}",
        stderr(&output)
    );
}
