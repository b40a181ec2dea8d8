use std::path::Path;

use crate::support::{Schema, Server, bridgebook, eventually, stderr, temp_dir};

#[test]
fn every_bad_setting_is_reported_at_once_with_exit_status_64() {
    let output = bridgebook()
        .args(["serve", "--listen=nowhere", "--database-connections=0"])
        .args([
            "--call-timeout",
            "soon",
            "--drain-timeout=-1",
            "--drain-pause=-1",
            "--retain-workflows=x",
            "--retain-transitions=-1",
            "--retain-batches=1e3",
            "--retain-stamps=365251",
            "--prune-interval=0",
            "--slow-call=0",
            "--metrics-listen=here",
            "--metrics-namespaces=1001",
            "--metrics-tokens=-1",
            "--sweep-interval=0",
            "--sweep-grace=never",
            "--tls-key=/nowhere/key.pem",
            "--max-connections=0",
            "--max-streams=many",
            "--max-header-size=7",
            "--max-requests=-1",
            "--max-request-memory=x",
            "--max-rate=x",
            "--max-namespace-rate=x",
            "--max-namespace-item-rate=-1",
            "--max-namespace-requests=4294967296",
            "--max-message-size=5000000",
            "--max-json-size=1048577",
            "--max-json-depth=65",
            "--max-batch-size=1001",
            "--max-page-size=0",
            "--keepalive-interval=0",
            "--keepalive-timeout=0",
            "--max-connection-idle=0",
            "--max-connection-age=x",
            "--max-connection-age-grace=0",
            "--health-from=10.0.0.0/8,balancer",
            "--proxy-from=10.0.0.0/33",
            "--auth=maybe",
            "--insecure=perhaps",
            "--migrate=2",
            "--database-url=mysql://x:secret@y",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    let flags = [
        "--listen",
        "--database-connections",
        "--call-timeout",
        "--drain-timeout",
        "--drain-pause",
        "--retain-workflows",
        "--retain-transitions",
        "--retain-batches",
        "--retain-stamps",
        "--prune-interval",
        "--slow-call",
        "--metrics-listen",
        "--metrics-namespaces",
        "--metrics-tokens",
        "--sweep-interval",
        "--sweep-grace",
        "--tls-certificate",
        "--max-connections",
        "--max-streams",
        "--max-header-size",
        "--max-requests",
        "--max-request-memory",
        "--max-rate",
        "--max-namespace-rate",
        "--max-namespace-item-rate",
        "--max-namespace-requests",
        "--max-message-size",
        "--max-json-size",
        "--max-json-depth",
        "--max-batch-size",
        "--max-page-size",
        "--keepalive-interval",
        "--keepalive-timeout",
        "--max-connection-idle",
        "--max-connection-age:",
        "--max-connection-age-grace",
        "--health-from: expected networks such as 10.0.0.0/8,2001:db8::/32, got \"10.0.0.0/8,balancer\"",
        "--proxy-from",
        "--auth: expected tokens or none",
        "--insecure: expected true or false",
        "--migrate: expected true or false",
        "--database-url",
    ];
    for flag in flags {
        assert!(text.contains(flag), "{flag} in {text}");
    }
    assert!(!text.contains("secret"));
}

#[test]
fn a_second_database_is_refused() {
    let output = bridgebook()
        .args([
            "serve",
            "--database-url",
            "postgres://a@b/c",
            "--data-dir",
            "/tmp/x",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}

/// An empty secret must not start a new, empty database.
#[test]
fn an_unusable_database_url_is_refused() {
    for (url, part) in [
        ("", "DATABASE_URL is empty"),
        (
            "postgres://a@b/c?sslmode=verify-full",
            "verify-ca and verify-full require sslrootcert",
        ),
        ("postgres://a@b/c?sslmode=TRUE", "sslmode: expected disable"),
        (
            "postgres://a@b/c?sslmode=require&sslrootcert=system",
            "system requires sslmode=verify-full",
        ),
        (
            "postgres://a@b/c?sslmode=require&sslrootcert=/nowhere",
            "cannot read /nowhere",
        ),
        (
            "postgres://a@b/c?sslmode=require&sslrootcert=/dev/null",
            "not a regular file",
        ),
        (
            "postgres://a@b/c?sslmode=require&sslcert=/nowhere",
            "sslcert, sslkey",
        ),
        ("postgres://a@b/c?sslnegotiation=direct", "sslmode=require"),
        ("postgres://a@b/c?channel_binding=always", "channel_binding"),
        (
            "postgres://a@b/c?target_session_attrs=standby",
            "because the service writes",
        ),
        ("postgres://a@b/c?service=nothing", "service"),
        (
            "postgres://a@b/c?nonsense=secret",
            "a word that libpq does not know",
        ),
        ("postgres://a@b/c?sslcrl=/secret", "sslcrl: not supported"),
        ("postgres://a@b/c?tcp_user_timeout=1s", "milliseconds"),
        ("host=b user=a password='secret", "no closing quote"),
        ("host=b,c,d port=1,2", "one for each host"),
        ("postgres://a@b:secret/c", "port"),
        ("postgres://", "names no host"),
        ("postgres:///book", "names no host"),
        ("postgres://a:secret@/book", "names no host"),
    ] {
        let mut serve = bridgebook();
        let output = serve
            .arg("serve")
            .env("DATABASE_URL", url)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{url}");
        let text = stderr(&output);
        assert!(text.contains(part), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn all_that_is_wrong_with_the_database_is_told_together() {
    let mut serve = bridgebook();
    let url = "postgres://a@b/c?sslmode=always&load_balance_hosts=secret&gssencmode=require";
    let output = serve.args(["serve", "--database-url", url]).output();
    let text = stderr(&output.unwrap());
    for word in ["sslmode", "load_balance_hosts", "gssencmode"] {
        let line = format!("--database-url: {word}: expected");
        assert!(text.contains(&line), "{text}");
    }
    assert!(!text.contains("secret"), "{text}");
}

/// The variables of libpq name a database, and complete an address.
#[test]
fn the_environment_of_libpq_is_used() {
    let variables = [
        ("PGHOST", "localhost"),
        ("PGPORT", "1"),
        ("PGDATABASE", "book"),
        ("PGUSER", "node"),
        ("PGCONNECT_TIMEOUT", "1"),
    ];
    let run = |more: &[(&str, &str)]| {
        let mut migrate = bridgebook();
        migrate.args(["migrate", "status"]).envs(variables);
        let output = migrate.envs(more.iter().copied()).output().unwrap();
        (output.status.code(), stderr(&output))
    };
    let (code, text) = run(&[]);
    assert!(text.contains("localhost:1: "), "{text}");
    assert_eq!(code, Some(1));
    let (code, text) = run(&[("PGSSLMODE", "never"), ("PGTARGETSESSIONATTRS", "standby")]);
    assert!(text.contains("sslmode: expected") && text.contains("target_session_attrs"));
    assert_eq!(code, Some(64));
    let dir = temp_dir();
    std::fs::create_dir(&dir.0).unwrap();
    let file = dir.0.join("services");
    std::fs::write(&file, "[other]\nport=3\n[book]\n# comment\nport = 2\n").unwrap();
    let file = file.to_str().unwrap();
    let (_, text) = run(&[("PGSERVICE", "book"), ("PGSERVICEFILE", file)]);
    assert!(text.contains("localhost:2: "), "{text}");
    let (code, text) = run(&[("PGSERVICE", "none"), ("PGSERVICEFILE", file)]);
    assert!(text.contains("has no service \"none\""), "{text}");
    assert_eq!(code, Some(64));
}

#[test]
fn ignored_settings_and_fatal_errors_are_logged() {
    let mut serve = bridgebook();
    let misspelt = "BRIDGEBOOK_RETAIN_WORKFLOW";
    serve
        .env(misspelt, "3")
        .env("BRIDGEBOOK_PORT", "tcp://[::1]:1");
    let files = ["--tls-certificate=/nowhere", "--tls-key=/nowhere"];
    let database = ["--database-url", "postgres://a@127.0.0.1:1/b"];
    serve.args(["serve", "--listen=127.0.0.1:0", "--log-format=json"]);
    let output = serve.args(files).args(database).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let has = |index: usize, level: &str, part: &str| {
        let is_level = lines[index]["level"] == level;
        is_level && lines[index]["message"].as_str().unwrap().contains(part)
    };
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        has(0, "WARN", &format!("{misspelt} is not a setting")),
        "{text}"
    );
    assert!(has(1, "ERROR", "/nowhere"), "{text}");
}

#[test]
fn a_negative_number_is_an_invalid_value_and_not_an_unknown_flag() {
    let (code, text) = serve(&["--drain-pause", "-3", "--retain-workflows", "-1"]);
    assert_eq!(code, Some(64));
    for error in ["--drain-pause: expected", "--retain-workflows: expected"] {
        assert!(text.contains(error), "{text}");
    }
}

#[test]
fn one_address_for_calls_and_metrics_is_an_invalid_setting() {
    let (code, text) = serve(&["--listen=localhost:9464", "--metrics-listen=127.0.0.1:9464"]);
    assert_eq!(code, Some(64));
    assert!(
        text.contains("--metrics-listen: 127.0.0.1:9464 is also"),
        "{text}"
    );
}

#[test]
fn an_unknown_flag_has_exit_status_64_and_help_has_0() {
    assert_eq!(
        bridgebook()
            .args(["serve", "--wat"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(64)
    );
    assert_eq!(
        bridgebook().arg("--help").output().unwrap().status.code(),
        Some(0)
    );
}

#[tokio::test]
async fn an_old_schema_is_refused_with_the_command_to_run() {
    let schema = Schema::empty().await;
    for command in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["token", "list"],
        &["prune", "--dry-run"],
    ] {
        let mut refused = bridgebook();
        refused
            .args(command)
            .args(["--database-url", &schema.url()]);
        let output = refused.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        assert!(text.contains("001_create_workflow_executions"), "{text}");
        assert!(text.contains("bridgebook migrate up"), "{text}");
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let schema = Schema::create().await;
    let output = bridgebook()
        .args([
            "serve",
            "--listen",
            &address,
            "--database-url",
            &schema.url(),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address));
}

/// The database is unreachable, so a service that tried it first would wait for ever.
#[test]
fn a_metrics_address_in_use_is_named_before_the_database_is_used() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = temp_dir();
    let output = bridgebook()
        .args([
            "serve",
            "--listen=127.0.0.1:0",
            "--metrics-listen",
            &address,
        ])
        .args([Path::new("--data-dir"), &dir.0])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
    assert!(!dir.0.exists());
}

#[test]
fn an_empty_data_directory_is_reported_with_the_other_faults() {
    let output = bridgebook()
        .args(["serve", "--data-dir=", "--listen=x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    for flag in ["--data-dir: expected", "--listen: expected"] {
        assert!(stderr(&output).contains(flag), "{}", stderr(&output));
    }
}

#[test]
fn a_health_check_of_an_address_without_a_port_is_an_invalid_command_line() {
    let output = bridgebook().args(["health", "localhost"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(
        stderr(&output).contains("localhost:50051"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_refused_database_or_role_is_named_with_what_to_correct() {
    let schema = Schema::create().await;
    let url = schema.url();
    let (server, _) = url.split_once('?').unwrap_or((&url, ""));
    let (before, database) = server.rsplit_once('/').unwrap();
    assert!(!database.is_empty());
    let other_database = url.replacen(server, &format!("{before}/nowhere"), 1);
    let other_role = url.replacen("//bridgebook@", "//nobody_here@", 1);
    for (url, remedy) in [
        (other_database, "create the database, or correct its name"),
        (other_role, "create the role"),
    ] {
        let server = Server::spawn(&["--database-url", &url]);
        eventually("the log names it", async || {
            server.log().contains(remedy).then_some(())
        })
        .await;
        let list = ["token", "list", "--database-url", &url];
        let output = bridgebook().args(list).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(remedy), "{}", stderr(&output));
    }
}

/// Returns the output of `serve` with these arguments and an unreachable database.
fn serve(arguments: &[&str]) -> (Option<i32>, String) {
    let database = ["--database-url", "postgres://a@127.0.0.1:1/b"];
    let output = bridgebook()
        .arg("serve")
        .args(database)
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code(), stderr(&output))
}

#[test]
fn a_bad_certificate_mapping_is_an_error_at_startup() {
    let ours = ["--tls-certificate=/nowhere/a", "--tls-key=/nowhere/b"];
    for (arguments, flag) in [
        (
            &["--tls-client-ca=/nowhere/c"][..],
            "--tls-client-tokens: is missing",
        ),
        (
            &["--tls-client-tokens=/nowhere/d"],
            "--tls-client-ca: is missing",
        ),
        (
            &[
                "--tls-client-ca=/nowhere/c",
                "--tls-client-tokens=/nowhere/d",
                "--auth=none",
            ],
            "--tls-client-tokens: has no effect",
        ),
    ] {
        let output = bridgebook()
            .arg("serve")
            .args(ours)
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(64));
        assert!(stderr(&output).contains(flag), "{}", stderr(&output));
    }
}

#[test]
fn a_public_address_needs_tokens_and_tls_or_insecure() {
    let certificate = ["--tls-certificate=/nowhere/a", "--tls-key=/nowhere/b"];
    for arguments in [
        &["--listen=0.0.0.0:0"][..],
        &["--listen=[::]:0"],
        &["--listen=192.0.2.1:50051"],
        &["--listen=0.0.0.0:0", "--auth=tokens"],
        &[
            "--listen=0.0.0.0:0",
            "--auth=none",
            certificate[0],
            certificate[1],
        ],
    ] {
        let (code, text) = serve(arguments);
        assert_eq!(code, Some(64), "{arguments:?} {text}");
        assert!(text.contains("--insecure"), "{text}");
    }
    // These pass the check and fail later, because the certificate is missing.
    for arguments in [
        &["--listen=0.0.0.0:0"][..],
        &["--listen=0.0.0.0:0", "--auth=tokens"],
        &["--listen=0.0.0.0:0", "--auth=none", "--insecure"],
        &["--listen=127.0.0.1:0", "--auth=none"],
    ] {
        let (code, text) = serve(&[arguments, &certificate[..]].concat());
        assert_eq!(code, Some(1), "{arguments:?} {text}");
        assert!(text.contains("/nowhere/a"), "{text}");
    }
}

#[tokio::test]
async fn every_startup_logs_who_may_call() {
    let server = Server::spawn(&["--database-url", "postgres://a@127.0.0.1:1/b"]);
    eventually("the log warns", async || {
        server.log().contains("without tokens").then_some(())
    })
    .await;
}

#[test]
fn memory_that_has_no_room_for_one_message_is_refused() {
    for arguments in [
        &["--max-request-memory=7"][..],
        &["--max-request-memory=7", "--max-message-size=1000000"],
    ] {
        let output = bridgebook().arg("serve").args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains("--max-request-memory: must be 0"), "{text}");
    }
}
