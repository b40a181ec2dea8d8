use crate::support::{Schema, bridgebook, stderr};

#[test]
fn every_bad_setting_is_reported_at_once_with_exit_status_64() {
    let output = bridgebook()
        .args([
            "serve",
            "--listen",
            "nowhere",
            "--database-connections",
            "0",
        ])
        .args([
            "--call-timeout",
            "soon",
            "--drain-timeout=-1",
            "--sweep-interval=0",
            "--database-url",
            "mysql://x:secret@y",
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
        "--sweep-interval",
        "--database-url",
    ];
    for flag in flags {
        assert!(text.contains(flag), "{flag} in {text}");
    }
    assert!(!text.contains("secret"));
}

#[test]
fn two_databases_are_one_too_many() {
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
async fn a_schema_that_is_behind_is_refused_and_the_error_says_what_to_do() {
    let schema = Schema::create().await;
    let output = bridgebook()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            &schema.url(),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("001_create_workflow_executions"), "{text}");
    assert!(text.contains("bridgebook migrate up"), "{text}");
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
