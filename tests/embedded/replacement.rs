//! The states in which a power failure leaves the replacement of a cluster.

use std::fs;

use super::{has_token, names, stopped, store_token};

#[test]
fn a_replacement_that_has_not_begun_is_dropped() {
    let (dir, other) = (stopped(), stopped());
    store_token(&dir.0);
    fs::rename(other.0.join("cluster"), dir.0.join("cluster.next")).unwrap();
    assert!(has_token(&dir.0));
    assert_eq!(names(&dir.0), names(&stopped().0));
}

#[test]
fn a_replacement_that_has_begun_is_finished() {
    let dir = stopped();
    let cluster = dir.0.join("cluster");
    fs::rename(&cluster, dir.0.join("cluster.old-14")).unwrap();
    let new = stopped();
    store_token(&new.0);
    fs::rename(new.0.join("cluster"), dir.0.join("cluster.next")).unwrap();
    assert!(has_token(&dir.0));
    assert!(cluster.exists() && dir.0.join("cluster.old-14").exists());
    assert!(!dir.0.join("cluster.next").exists());
}

/// An empty cluster is dropped, and the killed restore had created the directory's first one.
#[test]
fn a_replacement_is_finished_where_no_cluster_was_recorded() {
    let dir = stopped();
    store_token(&dir.0);
    fs::rename(dir.0.join("cluster"), dir.0.join("cluster.next")).unwrap();
    fs::remove_file(dir.0.join("cluster.created")).unwrap();
    assert!(has_token(&dir.0));
    assert_eq!(names(&dir.0), names(&stopped().0));
}
