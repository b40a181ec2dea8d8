//! `bridgebook database upgrade`. The test needs two major versions of PostgreSQL, so it is ignored
//! unless it is asked for. .ci/run asks for it.

use std::{env, ffi::OsString, fs, path::Path, process::Command};

use bridgebook::embedded;

use super::{command, has_token, kill_halfway, names, store_token, succeed};
use crate::{
    fsm,
    support::{Server, bridgebook, eventually, stderr, temp_dir, tenant_on, use_transaction_ids},
};

/// Puts the programs of the newer version first in the search path.
fn with_newer(mut command: Command) -> Command {
    let newer = env::var_os("BRIDGEBOOK_TEST_NEWER_POSTGRESQL")
        .expect("BRIDGEBOOK_TEST_NEWER_POSTGRESQL: the bin directory of a newer PostgreSQL");
    let mut path: OsString = newer;
    path.push(":");
    path.push(env::var_os("PATH").unwrap());
    command.env("PATH", path);
    command
}

fn upgrade(data_dir: &Path) -> Command {
    with_newer(command(&["database", "upgrade"], data_dir))
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn version(cluster: &Path) -> u32 {
    let text = fs::read_to_string(cluster.join("PG_VERSION")).unwrap();
    text.trim().parse().unwrap()
}

#[ignore = "needs a newer PostgreSQL in BRIDGEBOOK_TEST_NEWER_POSTGRESQL"]
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_copies_everything_and_keeps_the_old_database() {
    let dir = temp_dir();
    let data_dir = dir.0.to_str().unwrap();
    let cluster = dir.0.join("cluster");
    let workflow = {
        succeed(&["migrate", "up"], &dir.0);
        let mut server = Server::spawn_program(with_newer(bridgebook()), &["--data-dir", data_dir]);
        let tenant = tenant_on(server.serving().await);
        eventually("the log names the command", || async {
            let log = server.log();
            log.contains("bridgebook database upgrade").then_some(())
        })
        .await;
        // The new cluster has not assigned these ids.
        use_transaction_ids(&embedded::database_url(&dir.0).unwrap()).await;
        let workflow = tenant.start_processing().await;
        let positions = fsm::positions(&tenant, "workflow").await;
        assert!(server.terminate().success());
        (tenant.namespace, workflow, positions)
    };
    store_token(&dir.0);
    let old = version(&cluster);

    kill_halfway(upgrade(&dir.0), &dir.0).await;
    assert!(has_token(&dir.0));
    assert_eq!(version(&cluster), old);

    let printed = run(upgrade(&dir.0));
    let kept = dir.0.join(format!("cluster.old-{old}"));
    assert!(printed.contains(kept.to_str().unwrap()), "{printed}");
    assert!(version(&cluster) > old);
    assert_eq!(version(&kept), old);
    let is_left = |it: &String| it.starts_with("cluster.new-") || it == "cluster.next";
    let left = names(&dir.0).into_iter().filter(is_left);
    assert_eq!(left.collect::<Vec<_>>(), Vec::<String>::new());
    let printed = run(upgrade(&dir.0));
    assert!(printed.contains("nothing to upgrade"), "{printed}");

    let (namespace, workflow, positions) = workflow;
    let server = Server::spawn_program(with_newer(bridgebook()), &["--data-dir", data_dir]);
    let mut tenant = tenant_on(server.serving().await);
    tenant.namespace = namespace;
    assert_eq!(
        tenant.get(&workflow).await.workflow.unwrap().id,
        workflow.id
    );
    tenant.start().await;
    let continued = fsm::positions(&tenant, "workflow").await;
    assert_eq!(continued[..1], positions);
    assert!(continued.len() == 2 && continued.is_sorted());
    // The upgrade has adopted the journal already.
    assert!(!server.log().contains("adopted the journal"));
}
