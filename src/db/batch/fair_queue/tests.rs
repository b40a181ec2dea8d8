//! Tests of the queue.

use super::*;
use crate::db::batch::batch_limit::BatchLimit;

/// A job with its tenant and its weight.
#[derive(Debug, PartialEq)]
struct Job(&'static str, usize);

impl Queueable for Job {
    fn tenant(&self) -> &str {
        self.0
    }
    fn slots(&self) -> usize {
        1
    }
    fn weight(&self) -> usize {
        self.1
    }
    fn is_begun(&self) -> bool {
        self.1 == BEGUN
    }
}

/// The weight of a job that has run in part.
const BEGUN: usize = 7;

fn queue(jobs: impl IntoIterator<Item = Job>) -> FairQueue<Job> {
    let mut queue = FairQueue::new(16_384, Weights::default());
    jobs.into_iter().for_each(|job| queue.push(job));
    queue
}

fn count(jobs: &[Job], tenant: &str) -> usize {
    jobs.iter().filter(|job| job.0 == tenant).count()
}

fn many(tenant: &'static str, count: usize) -> impl Iterator<Item = Job> {
    (0..count).map(move |_| Job(tenant, 1))
}

#[test]
fn a_newcomer_is_in_the_next_batch_whatever_the_backlog_of_another() {
    let mut queue = queue(many("flood", 5000));
    assert_eq!(queue.take(512).len(), 512);
    queue.push(Job("other", 1));
    let batch = queue.take(512);
    assert_eq!((batch.len(), count(&batch, "other")), (512, 1));
}

#[test]
fn tenants_with_backlogs_get_equal_weights() {
    let heavy = (0..1000).map(|_| Job("heavy", 4));
    let mut queue = queue(many("light", 4000).chain(heavy));
    let batches: Vec<Job> = (0..4).flat_map(|_| queue.take(512)).collect();
    assert_eq!(count(&batches, "light"), 4 * 256);
    assert_eq!(count(&batches, "heavy"), 256);
}

#[test]
fn a_job_that_is_heavier_than_a_turn_saves_its_credit() {
    let mut queue = queue(many("light", 100).chain([Job("heavy", 20)]));
    let batch = queue.take(64);
    let position = batch.iter().position(|job| job.0 == "heavy");
    assert_eq!(position, Some(24));
}

#[test]
fn a_job_that_is_heavier_than_a_batch_is_a_batch() {
    let mut queue = queue([Job("a", 4000), Job("a", 1)]);
    assert_eq!(queue.take(512), [Job("a", 4000)]);
    assert_eq!(queue.take(512), [Job("a", 1)]);
    assert!(queue.take(512).is_empty());
}

#[test]
fn jobs_of_a_tenant_stay_in_their_order() {
    let mut queue = queue((1..=64).map(|weight| Job("a", weight)));
    let mut taken = Vec::new();
    while let jobs = queue.take(100)
        && !jobs.is_empty()
    {
        taken.extend(jobs);
    }
    assert!(taken.iter().map(|job| job.1).eq(1..=64));
}

#[test]
fn a_tenant_gets_as_many_slots_as_are_free() {
    let mut queue = FairQueue::new(99, Weights::default());
    let mut push = |tenant| {
        let mut pushed = 0;
        while queue.has_room(tenant, 1) {
            queue.push(Job(tenant, 1));
            pushed += 1;
        }
        pushed
    };
    assert_eq!(push("a"), 50);
    assert_eq!(push("b"), 25);
    assert_eq!(push("a"), 0);
    while !queue.take(10).is_empty() {}
    assert_eq!((queue.slots, queue.by_tenant.len()), (0, 0));
}

/// Batches that read a few rows of tenants with large documents, and put the other jobs back.
#[test]
fn a_tenant_behind_large_documents_of_another_is_read_within_a_turn() {
    for rows in 1..=16 {
        for backlog in [9, 1000] {
            let limit = BatchLimit::default();
            let mut queue = queue(many("a", backlog));
            let mut batches = 0;
            for round in 0.. {
                if round == 3 {
                    queue.push(Job("z", 1));
                }
                let mut batch = queue.take(limit.weight());
                let unread = batch.split_off(batch.len().min(rows));
                limit.adapt(batch.len(), unread.is_empty());
                queue.put_back(unread);
                // A steady load.
                queue.push(Job("a", 1));
                if count(&batch, "z") == 1 {
                    break;
                }
                batches += 1;
            }
            let turn = QUANTUM.div_ceil(rows);
            assert!(batches <= 3 + turn + 1, "{rows} rows: {batches} batches");
        }
    }
}

#[test]
fn a_job_that_ran_in_part_waits_for_a_turn_of_each_other_tenant() {
    let mut queue = queue([Job("a", 64)]);
    queue.take(8);
    queue.push(Job("b", 1));
    queue.put_back(vec![Job("a", BEGUN), Job("a", 1)]);
    queue.push(Job("c", 1));
    assert_eq!(queue.take(1), [Job("b", 1)]);
    let rest = queue.take(512);
    assert_eq!(rest, [Job("a", BEGUN), Job("a", 1), Job("c", 1)]);
}

#[test]
fn a_tenant_that_was_apart_has_no_more_turns_than_others() {
    let mut queue = queue(many("a", 100));
    queue.set_apart("a".into());
    for _ in 0..50 {
        let jobs = queue.take_apart("a", 20);
        queue.put_back(jobs);
    }
    queue.rejoin("a");
    (0..100).for_each(|_| queue.push(Job("b", 1)));
    let batch = queue.take(64);
    assert_eq!(count(&batch, "b"), 32);
}

#[test]
fn jobs_that_are_put_back_keep_their_order() {
    // Some of them seem to have run in part.
    let jobs = (1..=20).flat_map(|weight| [Job("a", weight), Job("b", weight)]);
    let mut queue = queue(jobs);
    let mut taken = Vec::new();
    while let mut batch = queue.take(50)
        && !batch.is_empty()
    {
        let unread = batch.split_off(1);
        queue.put_back(unread);
        taken.extend(batch);
    }
    for tenant in ["a", "b"] {
        let weights = taken.iter().filter(|job| job.0 == tenant);
        assert!(weights.map(|job| job.1).eq(1..=20));
    }
    assert_eq!((queue.slots, queue.by_tenant.len()), (0, 0));
}

#[test]
fn a_tenant_that_is_apart_has_jobs_of_any_weight() {
    let mut queue = queue([Job("a", 4000), Job("a", 1)]);
    queue.set_apart("a".into());
    assert_eq!(queue.take_apart("a", 9), [Job("a", 4000)]);
    assert_eq!(queue.take_apart("a", 9), [Job("a", 1)]);
}

#[test]
fn a_tenant_that_is_apart_is_passed_over_until_it_rejoins() {
    let mut queue = queue(many("a", 3).chain(many("b", 1)));
    queue.set_apart("a".into());
    assert_eq!(queue.take(512), [Job("b", 1)]);
    queue.push(Job("a", 2));
    assert!(queue.take(512).is_empty());
    assert_eq!(queue.take_apart("a", 2).len(), 2);
    queue.rejoin("a");
    assert_eq!(queue.take(512), [Job("a", 1), Job("a", 2)]);
    queue.set_apart("a".into());
    queue.rejoin("a");
    assert!(queue.by_tenant.is_empty());
}
