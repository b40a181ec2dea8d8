//! The permit of a call: the resources that it holds from its first byte until the client
//! has read its response.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio_util::sync::WaitForCancellationFutureOwned;

mod response;

use super::{
    byte_budget::{ByteBudget, Kind},
    slots::{CallSlot, CallSlots, StreamSlots},
};
use crate::{
    db::batch::call_hooks::{CallHooks, with_hooks},
    domain::{
        error::{Error, Overload, Result},
        id::TokenId,
        role::Role,
    },
    proto::Rpc,
    rpc::transport::{backpressure::InWork, owner::Owner, peer::OpenCall},
    util::shares::Share,
};

tokio::task_local! {
    static CURRENT: Arc<Permit>;
}

/// Notes the caller of the current call: its token, whose shares the call and its response count
/// against, and whether it is an administrator. Does nothing outside of a call.
///
/// # Errors
/// [`Error::Overloaded`] if the caller's share of the calls in progress is used up. So the message of
/// such a call is not read.
pub fn set_caller(token_id: Option<TokenId>, is_administrator: bool) -> Result<()> {
    let checked = CURRENT.try_with(|permit| permit.set_caller(token_id, is_administrator));
    checked.unwrap_or(Ok(()))
}

/// Reserves the bytes of the current call's response, before it is encoded. Does nothing
/// outside of a call.
///
/// # Errors
/// [`Error::Overloaded`] if the byte budget is exhausted and the call only reads. The limit
/// layer then answers the call with this error and drops the response. A stream asks before, see
/// [`has_room`].
pub fn reserve_response(bytes: usize) -> Result<()> {
    let reserved = CURRENT.try_with(|permit| permit.reserve(bytes));
    reserved.unwrap_or(Ok(()))
}

/// Returns whether the memory that the caller may use has room for a message of the current call, a
/// stream. True outside of a call.
pub fn has_room(bytes: usize) -> bool {
    let has_room = CURRENT.try_with(|permit| permit.has_room(bytes));
    has_room.unwrap_or(true)
}

/// Returns whether operators make calls of an RPC: it names no namespace.
pub(super) fn is_for_operators(rpc: Rpc) -> bool {
    rpc.role() == Role::Admin || rpc == Rpc::ServerServiceGetServerInfo
}

/// The slots of a call that is in work. It returns them while it waits for its client.
#[derive(Default)]
struct Work {
    /// A slot of calls in progress, once the request is complete.
    slot: Option<CallSlot>,
    in_work: Option<Arc<InWork>>,
}

/// The memory that a call takes beside the bytes of its headers and its message, in bytes: its stream,
/// its task and its future.
const CALL_BYTES: usize = 8 * 1024;

/// The memory that the stream of an answered call takes beside the bytes of its response, in bytes.
const STREAM_BYTES: usize = 4 * 1024;

/// How many bytes of memory a byte of the headers takes: HTTP/2 counts less than a parsed header takes.
const PER_HEADER_BYTE: usize = 2;

/// The resources of a call. They are released when it is dropped.
pub(super) struct Permit {
    /// The bytes that the call takes from its headers on, until its response is ready.
    head: usize,
    /// The bytes of the request and of the stream, which are in the share of the owner.
    request: AtomicUsize,
    /// The bytes of the response, and those among them that are reserved for what is not encoded yet.
    response: AtomicUsize,
    reserved: AtomicUsize,
    /// The bytes of documents among those reserved, before the response is encoded.
    answered: AtomicUsize,
    /// The bytes of the response in the share of the owner.
    shared: AtomicUsize,
    owner: OnceLock<Owner>,
    /// Whether the call only reads, so that it can be rejected after its work.
    is_read: bool,
    /// Whether operators make such calls.
    is_for_operators: bool,
    /// Whether the call may take a slot of administrators.
    is_administrator: AtomicBool,
    is_rejected: AtomicBool,
    /// Whether the parts of the call may run, as it was decided when the first one started.
    start: OnceLock<Result<()>>,
    budget: Arc<ByteBudget>,
    /// The slots of calls in progress, if the number of such calls is limited.
    slots: Option<CallSlots>,
    /// The slots of the call while it is in work.
    work: Mutex<Work>,
    /// The slots of streams, if the call is one.
    streams: Option<StreamSlots>,
    /// The slot of the stream, until it ends.
    stream: OnceLock<Share<Owner>>,
    /// The slot of a health or reflection call.
    _infrastructure_slot: Option<Share<IpAddr>>,
    call: OpenCall,
}

impl Permit {
    /// Makes a permit that holds no bytes and no slot yet.
    pub(super) fn new(budget: Arc<ByteBudget>, slots: Option<CallSlots>, call: OpenCall) -> Self {
        Permit {
            head: 0,
            request: AtomicUsize::new(0),
            response: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
            shared: AtomicUsize::new(0),
            owner: OnceLock::new(),
            is_read: false,
            is_for_operators: false,
            is_administrator: AtomicBool::new(false),
            is_rejected: AtomicBool::new(false),
            start: OnceLock::new(),
            budget,
            slots,
            work: Mutex::default(),
            streams: None,
            stream: OnceLock::new(),
            _infrastructure_slot: None,
            call,
        }
    }

    /// Makes it the permit of a call of an RPC, with headers of this many bytes; `None` for an unknown
    /// method.
    pub(super) fn with_rpc(mut self, rpc: Option<Rpc>, header_bytes: usize) -> Self {
        self.head = CALL_BYTES.saturating_add(header_bytes.saturating_mul(PER_HEADER_BYTE));
        self.is_read = rpc.is_some_and(|rpc| rpc.role() == Role::Reader);
        self.is_for_operators = rpc.is_some_and(is_for_operators);
        self
    }

    /// Makes it the permit of a stream, whose bytes count until the client has taken them.
    pub(super) fn with_stream(mut self, slots: Option<StreamSlots>) -> Self {
        self.streams = slots;
        self
    }

    /// Makes it hold the slot of a health or reflection call.
    pub(super) fn with_infrastructure_slot(mut self, slot: Option<Share<IpAddr>>) -> Self {
        self._infrastructure_slot = slot;
        self
    }

    fn set_caller(&self, token_id: Option<TokenId>, is_administrator: bool) -> Result<()> {
        if let Some(owner) = token_id.map(Owner::Token) {
            self.call.set_owner(owner);
            let _ = self.owner.set(owner);
        }
        let is_administrator = is_administrator && self.is_for_operators;
        self.is_administrator
            .store(is_administrator, Ordering::Relaxed);
        // Its request may never end.
        self.receive(self.head)?;
        let slots = self.slots.as_ref();
        slots.map_or(Ok(()), |it| it.check(self.owner(), is_administrator))
    }

    /// Counts received bytes of the request. Fails if they exceed the share of the owner. Those of an
    /// administrator may, so that operators get in while calls of others hold all memory.
    pub(super) fn receive(&self, bytes: usize) -> Result<()> {
        let (owner, kind) = (self.owner(), Kind::Request);
        if self.is_administrator() {
            self.budget.add_beyond_share(owner, kind, bytes);
        } else if !self.budget.add_to_share(owner, kind, bytes) {
            return Err(Error::Overloaded(Overload::RequestMemory));
        }
        self.request.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Releases the bytes of the request, because the call has been answered. Those of its stream stay.
    pub(super) fn release_request(&self) {
        self.shrink_request(STREAM_BYTES);
    }

    fn shrink_request(&self, kept: usize) {
        let held = self.request.fetch_min(kept, Ordering::Relaxed);
        let bytes = held.saturating_sub(kept);
        if bytes > 0 {
            self.budget.release(bytes);
            self.budget
                .remove_from_share(self.owner(), Kind::Request, bytes);
        }
    }

    /// Notes that the call is in work since its headers arrived: the rest of its request mostly has
    /// arrived, too.
    pub(super) fn set_in_work(&self, in_work: Option<Arc<InWork>>) {
        self.work().in_work = in_work;
    }

    /// Notes that the call is not in work: it waits for the client, which has not sent the whole
    /// request, or has to read the response.
    pub(super) fn end_work(&self) {
        *self.work() = Work::default();
    }

    /// Takes a slot, because the request is complete and its work begins. Fails if the share of the
    /// owner has none, or if the call writes and its owner has left too many responses unread.
    pub(super) fn take_slot(&self) -> Result<()> {
        self.check_unread(self.owner())?;
        if let Some(slots) = self
            .streams
            .as_ref()
            .filter(|_| self.stream.get().is_none())
        {
            let slot = slots.take(self.owner(), 1);
            let slot = slot.ok_or(Error::Overloaded(Overload::Watches))?;
            let _ = self.stream.set(slot);
        }
        let mut work = self.work();
        if work.in_work.is_none() {
            work.in_work = self.call.begin_work();
        }
        if let Some(slots) = self.slots.as_ref().filter(|_| work.slot.is_none()) {
            work.slot = Some(slots.take(self.owner(), self.is_administrator())?);
        }
        Ok(())
    }

    /// Checks that the call may write although its owner has unread responses. Those of administrators
    /// may exceed the budget, so that operators get in.
    fn check_unread(&self, owner: Owner) -> Result<()> {
        let may_exceed = self.is_read || self.is_administrator();
        match !may_exceed && self.budget.has_unread(owner) {
            true => Err(Error::Overloaded(Overload::UnreadResponses)),
            false => Ok(()),
        }
    }

    /// Returns whether an administrator makes the call, which is one of those for operators.
    fn is_administrator(&self) -> bool {
        self.is_administrator.load(Ordering::Relaxed)
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this the permit of the call that `work` is a part of.
    pub(super) fn scope<F: Future>(
        self: &Arc<Self>,
        work: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(
            Arc::clone(self),
            with_hooks(Arc::downgrade(self) as _, work),
        )
    }

    fn owner(&self) -> Owner {
        let address = || Owner::address(self.call.address());
        *self.owner.get_or_init(address)
    }

    /// Waits until the connection has to close for that of another token.
    pub(super) fn reclaimed(&self) -> WaitForCancellationFutureOwned {
        self.call.reclaimed()
    }

    /// Notes that the response is ready.
    pub(super) fn progress(&self) {
        self.call.progress();
    }

    /// Notes that HTTP/2 has the whole response.
    pub(super) fn queued(&self) {
        self.call.queued();
    }

    fn is_stream(&self) -> bool {
        self.streams.is_some()
    }
}

impl CallHooks for Permit {
    /// Rejects a write while its owner has too many responses unread. Many may have been accepted
    /// before the first of them was answered.
    fn before_start(&self, is_part: bool) -> Result<()> {
        let Some(owner) = self.owner.get() else {
            // Its token is still looked up.
            return Ok(());
        };
        match is_part {
            true => self.start.get_or_init(|| self.check_unread(*owner)).clone(),
            false => self.check_unread(*owner),
        }
    }

    /// Reserves the bytes of a write's response at once, so that the next batch is checked with them.
    fn answered(&self, bytes: usize) {
        if !self.is_read && bytes > 0 && self.owner.get().is_some() {
            self.answered.fetch_add(bytes, Ordering::Relaxed);
            self.reserve_beyond_share(bytes);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink_request(0);
        self.budget.release(self.response.load(Ordering::Relaxed));
        let shared = self.shared.load(Ordering::Relaxed);
        if shared > 0 {
            self.budget
                .remove_from_share(self.owner(), Kind::Response, shared);
        }
    }
}
