//! A database whose messages are not in English.

use std::process::Command;

use bridgebook::proto::v1::WorkflowState;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use tonic::Code;

use crate::support::{
    Failure, Server, bridgebook, connect_database, eventually, failure, temp_dir, tenant_on,
};

/// Returns the message of an error.
async fn message(connection: &mut AsyncPgConnection) -> String {
    let error = diesel::sql_query("SELECT 1 / 0").execute(connection).await;
    error.unwrap_err().to_string()
}

/// A PostgreSQL that was built without translations stays English, which passes as well.
#[tokio::test]
async fn errors_are_recognised_in_a_german_database() {
    let (dir, locales) = (temp_dir(), temp_dir());
    std::fs::create_dir_all(&locales.0).unwrap();
    let compiled = Command::new("localedef")
        .args(["-i", "de_DE", "-f", "UTF-8"])
        .arg(locales.0.join("de_DE.UTF-8"))
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    let mut program = bridgebook();
    program.env("LOCPATH", &locales.0);
    let data_dir = dir.0.to_str().unwrap();
    let server = Server::spawn_program(program, &["--data-dir", data_dir]).expect_errors();
    let tenant = tenant_on(server.serving().await);

    let url = format!("postgres://bridgebook@/bridgebook?host={data_dir}/socket");
    let mut admin = connect_database(&url).await;
    let english = message(&mut admin).await;
    let german = "ALTER DATABASE bridgebook SET lc_messages = 'de_DE.UTF-8';
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND datname = current_database()";
    admin.batch_execute(german).await.unwrap();
    let translated = "/usr/share/locale/de/LC_MESSAGES";
    let has_translations = std::fs::read_dir(translated).is_ok_and(|mut files| {
        files.any(|file| {
            file.unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("postgres-")
        })
    });
    if has_translations {
        eventually("the database speaks German", || async {
            let mut session = connect_database(&url).await;
            (message(&mut session).await != english).then_some(())
        })
        .await;
    }

    let workflow = tenant.start().await;
    let lock = format!(
        "BEGIN; SELECT FROM workflow_executions WHERE id = '{}' FOR UPDATE",
        workflow.id
    );
    admin.batch_execute(&lock).await.unwrap();
    let mut client = tenant.client.clone();
    let request = tenant.to(&workflow, WorkflowState::Processing);
    let answer = client.transition_workflow(request).await;
    let contended = Failure::new(Code::Aborted, "CONTENDED");
    assert_eq!(failure(answer), contended);

    let hide = "COMMIT; ALTER TABLE workflow_executions RENAME TO hidden";
    admin.batch_execute(hide).await.unwrap();
    let answer = client.start_workflow(tenant.new_workflow()).await;
    assert_eq!(failure(answer), Failure::new(Code::Internal, "INTERNAL"));
    eventually("the log names the right", || async {
        let log = server.log();
        log.contains("the schema of workflow_executions")
            .then_some(())
    })
    .await;
    let german = "42P01: Relation »workflow_executions« existiert nicht";
    assert!(!has_translations || server.log().contains(german));
}
