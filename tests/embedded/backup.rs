//! `bridgebook database backup`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Stdio},
};

use bridgebook::embedded::Embedded;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};

use super::{command, fail, file, names, run, stopped, succeed};
use crate::support::{
    TempDir, bridgebook, connect_database, count, eventually, send_signal, stderr, temp_dir,
};

#[test]
fn a_backup_replaces_a_file_only_by_force_and_is_for_its_owner_only() {
    let (dir, backups) = (stopped(), temp_dir());
    let backup = file(&backups, "backup.dump");
    let path = backup.to_str().unwrap();
    fs::write(&backup, "old").unwrap();
    let error = fail(&["database", "backup", path], &dir.0);
    assert!(error.contains("--force"), "{error}");
    assert_eq!(fs::read(&backup).unwrap(), b"old");
    let printed = succeed(&["database", "backup", path, "--force"], &dir.0);
    assert!(
        printed.contains(path) && printed.contains("KiB"),
        "{printed}"
    );
    assert!(fs::read(&backup).unwrap().starts_with(b"PGDMP"));
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(&backups.0), ["backup.dump"]);
    let directory = backups.0.to_str().unwrap();
    let error = fail(&["database", "backup", directory, "--force"], &dir.0);
    assert!(error.contains("not a regular file"), "{error}");
    let output = run(&["database", "backup", "-"], &dir.0);
    assert!(output.stdout.starts_with(b"PGDMP"), "{}", stderr(&output));
    let nowhere = backups.0.join("missing/backup.dump");
    let error = fail(&["database", "backup", nowhere.to_str().unwrap()], &dir.0);
    assert!(error.contains("cannot create"), "{error}");
}

/// Starts a backup that waits for a lock, which the connection holds.
async fn blocked_backup(
    cluster: &Embedded,
    dir: &TempDir,
    backup: &Path,
) -> (AsyncPgConnection, Child) {
    let mut database = connect_database(&cluster.database_url()).await;
    for statement in ["CREATE TABLE locked ()", "BEGIN; LOCK TABLE locked"] {
        database.batch_execute(statement).await.unwrap();
    }
    let arguments = ["database", "backup", backup.to_str().unwrap()];
    let mut command = command(&arguments, &dir.0);
    let running = command.stderr(Stdio::piped()).spawn().unwrap();
    (database, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_backup_leaves_no_file() {
    let (dir, backups) = (temp_dir(), temp_dir());
    let backup = file(&backups, "backup.dump");
    let cluster = crate::support::own_cluster(&dir).await;
    let (_database, running) = blocked_backup(&cluster, &dir, &backup).await;
    let waiting = async || {
        let mut observer = connect_database(&cluster.database_url()).await;
        let sql = "SELECT count(*) FROM pg_stat_activity
                    WHERE application_name = 'pg_dump' AND wait_event_type = 'Lock'";
        count(&mut observer, sql).await
    };
    eventually("pg_dump waits for the lock", || async {
        (waiting().await > 0).then_some(())
    })
    .await;
    let partial = names(&backups.0).remove(0);
    assert!(partial.starts_with("backup.dump.part-"));
    // In a container every backup has the process id 1.
    let with_id = format!("-{}", running.id());
    assert!(!partial.ends_with(&with_id), "{partial}");
    send_signal("INT", running.id());
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("interrupted"));
    assert!(names(&backups.0).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_appears_during_a_backup_is_kept() {
    let (dir, backups) = (temp_dir(), temp_dir());
    let backup = file(&backups, "backup.dump");
    let cluster = crate::support::own_cluster(&dir).await;
    let (mut database, running) = blocked_backup(&cluster, &dir, &backup).await;
    eventually("the backup has begun", || async {
        (!names(&backups.0).is_empty()).then_some(())
    })
    .await;
    fs::write(&backup, "other").unwrap();
    database.batch_execute("ROLLBACK").await.unwrap();
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    assert_eq!(fs::read(&backup).unwrap(), b"other");
    assert_eq!(names(&backups.0), ["backup.dump"]);
}

#[test]
fn the_commands_for_the_private_database_refuse_another_one() {
    for (arguments, instead) in [
        (&["backup", "file"][..], "`pg_dump -Fc`"),
        (&["restore", "file"], "`pg_restore`"),
        (&["move-out", "postgres://a@b/c"], "pg_dump and pg_restore"),
        (&["upgrade"], "pg_upgrade"),
    ] {
        let mut command = bridgebook();
        command.arg("database").args(arguments);
        let output = command
            .env("DATABASE_URL", "postgres://a@b/c")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let error = stderr(&output);
        assert!(error.contains(instead), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_directory_without_a_database_has_nothing_to_copy() {
    let dir = temp_dir();
    for arguments in [
        &["backup", "file"][..],
        &["move-out", "postgres://a@b/c"],
        &["upgrade"],
    ] {
        let arguments = [&["database"], arguments].concat();
        let error = fail(&arguments, &dir.0);
        assert!(error.contains("no database found in"), "{error}");
        assert!(!dir.0.exists());
    }
}
