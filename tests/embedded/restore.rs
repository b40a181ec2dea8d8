//! `bridgebook database restore`.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use bridgebook::embedded;
use diesel_async::SimpleAsyncConnection;

use super::{
    command, fail, file, has_token, kill_halfway, names, run, stopped, store_token, succeed,
};
use crate::{
    fsm,
    support::{
        Server, TempDir, bridgebook, connect_database, count, own_cluster, stderr, temp_dir,
        tenant_on, use_transaction_ids,
    },
};

/// Backs up a data directory into a file beside it. Returns the arguments that restore it.
fn back_up(dir: &TempDir, backups: &TempDir) -> [String; 3] {
    let backup = file(backups, "backup.dump");
    let path = backup.to_str().unwrap();
    succeed(&["database", "backup", path], &dir.0);
    ["database".into(), "restore".into(), path.into()]
}

/// Returns a backup with a token in it, and the arguments that restore it.
fn backup_with_token() -> (TempDir, [String; 3]) {
    let (dir, backups) = (stopped(), temp_dir());
    store_token(&dir.0);
    let restore = back_up(&dir, &backups);
    (backups, restore)
}

fn parts(arguments: &[String; 3]) -> [&str; 3] {
    arguments.each_ref().map(String::as_str)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_service_is_restored_elsewhere() {
    let (dir, backups, other) = (temp_dir(), temp_dir(), temp_dir());
    let server = Server::spawn(&["--data-dir", dir.0.to_str().unwrap()]);
    let tenant = tenant_on(server.serving().await);
    // The other cluster has not assigned these ids.
    use_transaction_ids(&embedded::database_url(&dir.0).unwrap()).await;
    let before = tenant.start_processing().await;
    let positions = fsm::positions(&tenant, "workflow").await;
    let restore = back_up(&dir, &backups);
    let after = tenant.start_processing().await;
    let printed = succeed(&parts(&restore), &other.0);
    assert!(printed.contains(other.0.to_str().unwrap()), "{printed}");

    let restored = Server::spawn(&["--data-dir", other.0.to_str().unwrap()]);
    let mut same = tenant_on(restored.serving().await);
    same.namespace.clone_from(&tenant.namespace);
    let workflow = same.get(&before).await.workflow.unwrap();
    assert_eq!(workflow, tenant.get(&before).await.workflow.unwrap());
    same.start_processing().await;
    tenant.get(&after).await;
    let continued = fsm::positions(&same, "workflow").await;
    assert_eq!(continued[..1], positions);
    assert!(continued.len() == 2 && continued.is_sorted());
    let mut database = connect_database(&embedded::database_url(&other.0).unwrap()).await;
    let offset = "SELECT xid_offset FROM journal_cluster";
    assert!(count(&mut database, offset).await > 5000);
    // The restore has adopted the journal already.
    assert!(!restored.log().contains("adopted the journal"));
}

#[test]
fn what_is_no_complete_dump_changes_nothing() {
    let (backups, restore) = backup_with_token();
    let complete = fs::read(&restore[2]).unwrap();
    let bad = backups.0.join("bad.dump");
    let path = bad.to_str().unwrap();
    let empty = stopped();
    let inode = |dir: &Path| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(dir.join("cluster")).unwrap().ino()
    };
    let (before, cluster) = (names(&empty.0), inode(&empty.0));
    for (content, expected) in [
        (&b""[..], "pg_dump -Fc"),
        (b"PG", "pg_dump -Fc"),
        (b"-- PostgreSQL database dump\n", "restored with psql"),
        (&[0; 1000], "pg_dump -Fc"),
        (b"PGDMPgarbage", "cannot restore"),
        (&complete[..complete.len() / 2], "cannot restore"),
        (&complete[..complete.len() - 1], "cannot restore"),
    ] {
        fs::write(&bad, content).unwrap();
        for dir in [&temp_dir(), &empty] {
            let error = fail(&["database", "restore", path], &dir.0);
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(path), "{error}");
        }
    }
    assert_eq!((names(&empty.0), inode(&empty.0)), (before, cluster));
    let error = fail(&["database", "restore", "/nonexistent"], &empty.0);
    assert!(error.contains("cannot open /nonexistent"), "{error}");
    // It takes a good one afterwards.
    succeed(&parts(&restore), &empty.0);
    assert!(has_token(&empty.0));
    assert_eq!(names(&empty.0), names(&stopped().0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_never_replaced() {
    let (_backups, restore) = backup_with_token();
    let dir = stopped();
    store_token(&dir.0);
    let error = fail(&parts(&restore), &dir.0);
    assert!(error.contains("another --data-dir"), "{error}");
    assert!(has_token(&dir.0));
    let server = Server::spawn(&["--data-dir", dir.0.to_str().unwrap()]);
    server.serving().await;
    let error = fail(&parts(&restore), &dir.0);
    assert!(error.contains("in use"), "{error}");
}

#[test]
fn a_cluster_that_is_a_link_is_not_replaced() {
    let (_backups, restore) = backup_with_token();
    let (dir, elsewhere) = (stopped(), temp_dir());
    let cluster = dir.0.join("cluster");
    let moved = file(&elsewhere, "cluster");
    fs::rename(&cluster, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &cluster).unwrap();
    let before = names(&dir.0);
    let error = fail(&parts(&restore), &dir.0);
    assert!(error.contains("symbolic link or a mount point"), "{error}");
    assert_eq!(names(&dir.0), before);
    assert!(!has_token(&dir.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_another_tablespace_are_restored() {
    let (dir, backups, other) = (stopped(), temp_dir(), temp_dir());
    store_token(&dir.0);
    {
        let cluster = own_cluster(&dir).await;
        let mut database = connect_database(&cluster.database_url()).await;
        for statement in [
            "SET allow_in_place_tablespaces = on",
            "CREATE TABLESPACE fast LOCATION ''",
            "ALTER TABLE api_tokens SET TABLESPACE fast",
        ] {
            database.batch_execute(statement).await.unwrap();
        }
        cluster.stop().await.unwrap();
    }
    let restore = back_up(&dir, &backups);
    succeed(&parts(&restore), &other.0);
    assert!(has_token(&other.0));
}

#[test]
fn a_database_that_has_vanished_is_restored() {
    let (_backups, restore) = backup_with_token();
    let dir = stopped();
    fs::remove_dir_all(dir.0.join("cluster")).unwrap();
    succeed(&parts(&restore), &dir.0);
    assert!(has_token(&dir.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_can_be_repeated() {
    let (_backups, restore) = backup_with_token();
    let dir = stopped();
    kill_halfway(command(&parts(&restore), &dir.0), &dir.0).await;
    assert!(!has_token(&dir.0));
    kill_halfway(command(&parts(&restore), &dir.0), &dir.0).await;
    succeed(&parts(&restore), &dir.0);
    assert!(has_token(&dir.0));
}

#[test]
fn an_older_schema_is_migrated() {
    let (dir, backups, other) = (stopped(), temp_dir(), temp_dir());
    store_token(&dir.0);
    // Back to a schema without journal_cluster.
    while !succeed(&["migrate", "down"], &dir.0).contains("020") {}
    let restore = back_up(&dir, &backups);
    succeed(&parts(&restore), &other.0);
    let status = succeed(&["migrate", "status"], &other.0);
    assert!(!status.contains("pending"), "{status}");
    assert!(has_token(&other.0));
}

/// As from a managed PostgreSQL: of other roles, with grants, and beside other schemas.
#[tokio::test(flavor = "multi_thread")]
async fn dumps_of_external_databases_are_restored_and_others_refused() {
    let (dir, backups, other) = (temp_dir(), temp_dir(), temp_dir());
    let cluster = own_cluster(&dir).await;
    let url = cluster.database_url();
    let mut admin = connect_database(&url).await;
    let prepare = "CREATE ROLE owner LOGIN; CREATE ROLE reader;
                   GRANT CREATE ON SCHEMA public TO owner; ALTER ROLE owner SUPERUSER";
    admin.batch_execute(prepare).await.unwrap();
    let owned = url.replacen(&format!("{}@", cluster.user()), "owner@", 1);
    let migrated = bridgebook()
        .args(["migrate", "up", "--database-url", &owned])
        .output()
        .unwrap();
    assert!(migrated.status.success(), "{}", stderr(&migrated));
    let foreign = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader;
                   CREATE SCHEMA cloud AUTHORIZATION owner; CREATE TABLE cloud.metrics ()";
    admin.batch_execute(foreign).await.unwrap();
    let path = file(&backups, "dump");
    let dump = |arguments: &[&str]| {
        let mut command = Command::new(cluster.bin_dir().join("pg_dump"));
        command.args(["-Fc", "-d", &url]).args(arguments);
        let status = command.stdout(File::create(&path).unwrap()).status();
        assert!(status.unwrap().success());
    };
    let restore = ["database", "restore", path.to_str().unwrap()];
    for arguments in [&[][..], &["-n", "public"]] {
        dump(arguments);
        succeed(&restore, &other.0);
        let status = succeed(&["migrate", "status"], &other.0);
        assert!(!status.contains("pending"), "{status}");
    }

    dump(&["-n", "cloud"]);
    let error = fail(&restore, &other.0);
    assert!(error.contains("no tables of bridgebook"), "{error}");
    let newer = "INSERT INTO __diesel_schema_migrations (version) VALUES ('999')";
    admin.batch_execute(newer).await.unwrap();
    dump(&[]);
    let error = fail(&restore, &other.0);
    assert!(
        error.contains("newer bridgebook") && error.contains("999"),
        "{error}"
    );
    let unfinished = names(&other.0).into_iter().filter(|it| it.contains("new"));
    assert_eq!(unfinished.count(), 0);
    assert!(run(&["token", "list"], &other.0).status.success());
}
