//! The Python bridge node, run against this repository's own tree.

use std::{
    path::Path,
    process::{Command, Output},
};

use bridgebook::{
    client::Client,
    proto::v1::{
        ListEntitiesRequest, ListWorkflowsRequest, Workflow, WorkflowState,
        workflow_service_client::WorkflowServiceClient,
    },
};
use serde_json::Value;

use crate::support::{App, Tenant, example, root, set_up, temp_dir};

/// Runs the orchestrator over a directory. Returns its summary. It runs without the
/// capabilities by which root reads every file.
fn stamp(app: &App, tenant: &Tenant, directory: &Path) -> Value {
    let example = example("python");
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = match is_root {
        true => {
            let mut command = Command::new("setpriv");
            command.arg("--bounding-set=-dac_override,-dac_read_search");
            command.arg(example.join(".venv/bin/python"));
            command
        }
        false => Command::new(example.join(".venv/bin/python")),
    };
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .arg(example.join("orchestrator.py"))
        .args([
            "--json",
            "--address",
            &app.address.to_string(),
            "--namespace",
            &tenant.namespace,
        ])
        .arg(directory)
        .output()
        .expect("python runs");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).expect("a summary")
}

/// Copies the files that git tracks to a directory. Returns their number.
fn copy_tree(to: &Path) -> usize {
    let root = root();
    let list = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root)
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let files = list
        .split_terminator('\0')
        .filter(|file| root.join(file).is_file());
    files
        .map(|file| {
            let copy = to.join(file);
            std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
            std::fs::copy(root.join(file), copy).unwrap();
        })
        .count()
}

async fn list(tenant: &Tenant, state: WorkflowState) -> Vec<(Workflow, i64)> {
    let mut client = WorkflowServiceClient::clone(&tenant.client);
    let request = ListWorkflowsRequest {
        namespace: tenant.namespace.clone(),
        page_size: 1000,
        states: vec![state.into()],
        workflow_type: "metadata_stamping".into(),
        ..ListWorkflowsRequest::default()
    };
    let page = client.list_workflows(request).await.unwrap().into_inner();
    assert!(page.next_page_token.is_empty());
    let rows = page.workflows.into_iter();
    rows.map(|row| (row.workflow.unwrap(), row.step_count))
        .collect()
}

/// Counts the files in a state.
async fn files_in(tenant: &Tenant, state: &str) -> usize {
    let request = ListEntitiesRequest {
        namespace: tenant.namespace.clone(),
        page_size: 1000,
        entity_type: "file".into(),
        current_state: state.into(),
        ..ListEntitiesRequest::default()
    };
    let mut fsm = Client::new(tenant.channel.clone()).fsm();
    let page = fsm.list_entities(request).await.unwrap().into_inner();
    page.entities.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_of_this_repository_is_stamped_once() {
    set_up("python");
    let (app, tenant) = App::with_tenant().await;
    let directory = temp_dir();
    let files = copy_tree(&directory.0);
    let unreadable = directory.0.join("unreadable");
    std::fs::write(&unreadable, "secret").unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(&unreadable, closed).unwrap();

    let first = stamp(&app, &tenant, &directory.0);
    assert_eq!(
        (&first["stamped"], &first["failed"]),
        (&files.into(), &1.into()),
        "{first}"
    );
    let again = stamp(&app, &tenant, &directory.0);
    assert_eq!(
        (&again["stamped"], &again["already_known"]),
        (&0.into(), &files.into()),
        "{again}"
    );

    let completed = list(&tenant, WorkflowState::Completed).await;
    assert_eq!(completed.len(), files);
    for (workflow, steps) in &completed {
        assert_eq!(*steps, 3);
        let stamps = tenant.get(workflow).await.stamps;
        assert_eq!(stamps.len(), 1);
        assert_eq!(
            stamps[0].file_hash.len(),
            64,
            "a BLAKE3 in hexadecimal digits"
        );
    }
    let failed = list(&tenant, WorkflowState::Failed).await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0].0.error_message.is_some());
    assert_eq!(files_in(&tenant, "STAMPED").await, files);
    assert_eq!(files_in(&tenant, "FAILED").await, 1);
    let left = "SELECT count(*) FROM node_registrations";
    assert_eq!(app.schema.count(left).await, 0, "it deregistered");
    let came = "SELECT count(DISTINCT transition_event) FROM fsm_transitions
        WHERE entity_type = 'node' AND to_state IN ('HEALTHY', 'DEREGISTERED')";
    assert_eq!(app.schema.count(came).await, 2, "it registered");
}
