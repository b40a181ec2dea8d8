//! The files that an address names or implies: roots of the machine, the password file, and the
//! certificate of the client.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use bridgebook::db;

use super::tls::{client_url, encrypted, with_client_certificates};
use crate::support::{
    RemotePostgres, Server, authority, bridgebook, database_address, stderr, temp_dir,
};

/// Runs a command that only connects.
fn status(program: &mut Command, url: &str) -> Output {
    let arguments = ["migrate", "status", "--database-url", url];
    program.args(arguments).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_roots_of_the_machine_verify_the_server() {
    let (server, root) = encrypted().await;
    let roots = server.write("root.crt", &root.pem());
    let url = server.url(server.user, "sslrootcert=system");
    let known = status(bridgebook().env("SSL_CERT_FILE", roots), &url);
    assert!(known.status.success(), "{known:?}");
    let other = server.write("other.crt", &authority("other").pem());
    let unknown = status(bridgebook().env("SSL_CERT_FILE", other), &url);
    assert!(!unknown.status.success());
    assert!(stderr(&unknown).contains("set sslrootcert"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_file_that_others_can_read_is_ignored() {
    let server = RemotePostgres::start().await;
    server
        .allow("host all all 127.0.0.1/32 scram-sha-256")
        .await;
    server.run("CREATE ROLE node LOGIN PASSWORD 'secret'").await;
    let home = temp_dir();
    fs::create_dir(&home.0).unwrap();
    let file = home.0.join(".pgpass");
    fs::write(&file, "localhost:*:*:node:secret\n").unwrap();
    let url = server.url("node", "");
    for (mode, is_used) in [(0o600, true), (0o640, false), (0o604, false)] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let output = status(bridgebook().env("HOME", &home.0), &url);
        assert_eq!(output.status.success(), is_used, "{mode:o} {output:?}");
        assert_eq!(stderr(&output).contains("chmod 600"), !is_used);
    }
    fs::write(&file, "localhost:*:*:other:secret\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let output = status(bridgebook().env("HOME", &home.0), &url);
    assert!(stderr(&output).contains("no line of "), "{output:?}");
    fs::remove_file(&file).unwrap();
    let output = status(bridgebook().env("HOME", &home.0), &url);
    assert!(stderr(&output).contains(".pgpass: "), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_read_again() {
    let (server, root) = with_client_certificates().await;
    let other = authority("other");
    let url = client_url(&server, &other, "node");
    let address = database_address(&url);
    assert!(db::connect(&address).await.is_err());
    client_url(&server, &root, "node");
    db::connect(&address).await.unwrap();
    client_url(&server, &other, "node");
    assert!(db::connect(&address).await.is_err());
    let key = server.path("node.key");
    fs::set_permissions(key, Permissions::from_mode(0o644)).unwrap();
    let output = status(&mut bridgebook(), &url);
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("sslkey: other accounts may read"),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_warns_of_a_database_on_another_machine_that_is_not_verified() {
    let (server, root) = encrypted().await;
    let roots = server.write("root.crt", &root.pem());
    let (user, port) = (server.user, server.port);
    let warning = "the certificate of the database is not verified";
    for (parameters, warns) in [
        ("sslmode=require".to_owned(), true),
        // The name of the certificate is not that of the host.
        (
            format!("sslmode=verify-ca sslrootcert={}", roots.display()),
            false,
        ),
    ] {
        let address = format!(
            "host=db.example hostaddr=127.0.0.1 port={port} user={user} dbname={user} {parameters}"
        );
        let service = Server::spawn(&["--database-url", &address, "--migrate"]);
        service.serving().await;
        assert_eq!(service.log().contains(warning), warns, "{parameters}");
    }
}
