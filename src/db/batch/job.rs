//! The jobs of a worker.

use std::{
    mem,
    sync::{Arc, Weak},
};

use prometheus::IntGauge;
use tokio::{sync::oneshot, time::Instant};
use tracing::Span;

use super::{
    BYTES_PER_WEIGHT, Operation, Results,
    call_hooks::{self, CallHooks},
    fair_queue::Queueable,
    reservation::Held,
};
use crate::{
    domain::error::{Error, Result},
    ops::metrics::OperationMetrics,
};

/// Some items of one call, which run in one batch, or in a few if their documents are large.
pub(super) struct Job<O: Operation> {
    /// The items without an answer.
    pub(super) items: Vec<O::Item>,
    /// The answers so far, each in the place of its item.
    answers: Vec<Option<Result<Held<O::Answer>>>>,
    reply: oneshot::Sender<Results<O>>,
    pub(super) queued_at: Instant,
    /// The span of the call, which the span of the batch links to.
    pub(super) span: Span,
    hooks: Option<Weak<dyn CallHooks>>,
    /// Whether the call has other items.
    is_part: bool,
    _queued: Queued,
}

impl<O: Operation> Job<O> {
    /// Makes a job of items of one tenant.
    pub(super) fn new(
        items: Vec<O::Item>,
        is_part: bool,
        reply: oneshot::Sender<Results<O>>,
        metrics: &OperationMetrics,
    ) -> Self {
        let queued = Queued::new(&metrics.queued, items.len());
        Job {
            answers: items.iter().map(|_| None).collect(),
            items,
            reply,
            queued_at: Instant::now(),
            span: Span::current(),
            hooks: call_hooks::current(),
            is_part,
            _queued: queued,
        }
    }

    /// Returns whether the caller still waits for the answers.
    pub(super) fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    /// Returns the job if its caller still waits and passes its check. Otherwise answers the caller.
    pub(super) fn checked(self) -> Option<Self> {
        let hooks = self.hooks().filter(|_| !self.is_begun());
        let checked = hooks.map_or(Ok(()), |hooks| hooks.before_start(self.is_part));
        if let Err(error) = checked {
            self.fail(&error);
            return None;
        }
        self.is_wanted().then_some(self)
    }

    /// Returns the hooks of the call, if it has not ended.
    fn hooks(&self) -> Option<Arc<dyn CallHooks>> {
        self.hooks.as_ref().and_then(Weak::upgrade)
    }

    /// Takes the answers of a batch to its items, in order. Keeps the items without one.
    pub(super) fn take(
        &mut self,
        answers: impl IntoIterator<Item = Option<Result<Held<O::Answer>>>>,
    ) {
        let has_other_items = !self.is_single();
        let mut bytes = 0;
        let items = mem::take(&mut self.items);
        let open = self.answers.iter_mut().filter(|answer| answer.is_none());
        for ((item, open), answer) in items.into_iter().zip(open).zip(answers) {
            let Some(mut answer) = answer else {
                self.items.push(item);
                continue;
            };
            bytes += answer
                .as_ref()
                .map_or(0, |held| O::bytes_read(&held.answer));
            if has_other_items && let Ok(held) = &mut answer {
                // Its other items may wait for memory. None of them waits for that of another.
                held.reservation = None;
            }
            *open = Some(answer);
        }
        if let Some(hooks) = self.hooks().filter(|_| bytes > 0) {
            hooks.answered(bytes);
        }
    }

    /// Returns whether the job is one item, with or without an answer.
    pub(super) fn is_single(&self) -> bool {
        self.answers.len() == 1
    }

    /// Returns whether all items have answers.
    pub(super) fn is_complete(&self) -> bool {
        self.items.is_empty()
    }

    /// Answers the caller, which may be gone by now.
    pub(super) fn reply(self) {
        let _ = self
            .reply
            .send(self.answers.into_iter().flatten().collect());
    }

    /// Answers the caller with an error for each item that has no answer.
    pub(super) fn fail(mut self, error: &Error) {
        let errors: Vec<_> = self
            .items
            .iter()
            .map(|_| Some(Err(error.clone())))
            .collect();
        self.take(errors);
        self.reply();
    }
}

impl<O: Operation> Queueable for Job<O> {
    /// The items of a call have the same tenant.
    fn tenant(&self) -> &str {
        self.items.first().map_or("", O::tenant)
    }

    fn slots(&self) -> usize {
        self.items.len()
    }

    fn weight(&self) -> usize {
        let bytes: usize = self.items.iter().map(O::document_bytes).sum();
        self.items.len() + bytes / BYTES_PER_WEIGHT
    }

    fn is_begun(&self) -> bool {
        self.items.len() < self.answers.len()
    }
}

/// Counts items as queued until it is dropped.
struct Queued(IntGauge, i64);

impl Queued {
    fn new(gauge: &IntGauge, items: usize) -> Self {
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        gauge.add(items);
        Queued(gauge.clone(), items)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.sub(self.1);
    }
}
