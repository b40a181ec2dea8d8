//! Two tenants that use the same ids: neither sees or feels the other.
//!
//! Random sequences of calls choose ids and page tokens from small pools that both tenants
//! share. After each call of one tenant, everything that the other can read is compared.

mod calls;
mod view;

use std::{cell::RefCell, collections::BTreeSet};

use bridgebook::proto::Rpc;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};
use prost::Message;
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt;

use self::calls::{Call, POOL, Pools, Tenant};
use crate::{
    samples::sample,
    support::{App, contract, raw_call},
};

/// The number of sequences of calls.
const CASES: u32 = 12;
/// The maximum length of a sequence, without the calls that make the first rows.
const CALLS: usize = 24;

/// The answer to a tenant: the response's bytes, or an error.
type Heard = Result<Vec<u8>, Status>;

#[test]
fn a_tenant_does_not_notice_the_calls_of_another() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = runtime.block_on(App::start());
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    };
    let answered = RefCell::new(BTreeSet::new());
    let outcome = TestRunner::new(config).run(&vec(a_call(), 1..=CALLS), |calls| {
        let done = runtime.block_on(async {
            let case = Case::new(&app.channel).with_first_rows().await?;
            case.run(&calls).await
        })?;
        answered.borrow_mut().extend(done);
        Ok(())
    });
    match outcome {
        Err(TestError::Fail(why, calls)) => panic!("{why}\nafter {calls:#?}"),
        outcome => outcome.unwrap(),
    }
    for rpc in contract::tenant_rpcs() {
        let answered = answered.borrow();
        assert!(answered.contains(&rpc), "{rpc:?} was never answered");
    }
}

#[tokio::test]
async fn calls_that_name_rows_of_another_tenant_do_not_reach_them() {
    let app = App::start().await;
    let first = [0, 1].map(Call::first_rows).concat();
    let calls = [first, [0, 1].map(Call::trespasses).concat()].concat();
    Case::new(&app.channel).run(&calls).await.unwrap();
}

/// Any call of either tenant.
fn a_call() -> impl Strategy<Value = Call> {
    let all: Vec<_> = contract::tenant_rpcs().collect();
    let rpc = prop_oneof![2 => select(calls::writes()), 1 => select(all)];
    let choices = (0..POOL, 0..POOL, any::<u8>());
    (0..2_usize, rpc, choices, any::<Index>()).prop_map(
        |(by, rpc, (parent, child, variant), token)| Call {
            by,
            rpc,
            parent,
            child,
            variant,
            token: Some(token),
            page_size: 1,
        },
    )
}

/// Two tenants with new namespaces, and their shared pools.
struct Case {
    channel: Channel,
    tenants: [Tenant; 2],
    pools: Pools,
    /// The requests by which each tenant reads everything.
    reads: [Vec<view::Read>; 2],
    /// The last view of each tenant; None if it has made a call since.
    views: [Option<view::View>; 2],
    /// The RPCs that have returned OK.
    answered: BTreeSet<Rpc>,
}

impl Case {
    fn new(channel: &Channel) -> Case {
        let tenants = [Tenant::new("alpha"), Tenant::new("omega")];
        let pools = Pools::new();
        Case {
            channel: channel.clone(),
            reads: [0, 1].map(|tenant| view::reads(&tenants[tenant], &pools)),
            tenants,
            pools,
            views: [None, None],
            answered: BTreeSet::new(),
        }
    }

    /// Makes the calls. Returns the RPCs that have returned OK.
    async fn run(mut self, calls: &[Call]) -> Result<BTreeSet<Rpc>, TestCaseError> {
        for call in calls {
            self.make(call).await?;
        }
        Ok(self.answered)
    }

    /// Makes the first rows of both tenants. They are the same in every case, so only one
    /// test makes them by [`make`](Case::make), which reads everything before and after.
    async fn with_first_rows(mut self) -> Result<Case, TestCaseError> {
        for call in [0, 1].map(Call::first_rows).concat() {
            self.send(&call).await?;
        }
        Ok(self)
    }

    /// Sends a call, and fails if its answer has a text of the other tenant.
    async fn send(&mut self, call: &Call) -> Result<(), TestCaseError> {
        let request = call.request(&self.tenants[call.by], &self.pools);
        let heard = send(&self.channel, call.rpc, request).await;
        self.assert_unmarked(call.by, call.rpc, &heard)?;
        if let Ok(answer) = &heard {
            self.pools.keep_token(call.rpc, answer);
            self.answered.insert(call.rpc);
        }
        Ok(())
    }

    /// Makes a call, and fails if the other tenant sees anything of it.
    async fn make(&mut self, call: &Call) -> Result<(), TestCaseError> {
        let other = 1 - call.by;
        let before = match self.views[other].take() {
            Some(view) => view,
            None => self.view(other).await?,
        };
        self.views[call.by] = None;
        self.send(call).await?;
        let after = self.view(other).await?;
        if let Some(difference) = view::difference(&before, &after) {
            let why = format!("{call:?} changed what the other sees: {difference}");
            return Err(TestCaseError::fail(why));
        }
        self.views[other] = Some(after);
        Ok(())
    }

    /// Reads everything that a tenant can read.
    async fn view(&mut self, of: usize) -> Result<view::View, TestCaseError> {
        let view = view::read_all(&self.channel, &self.reads[of]).await;
        for (rpc, _, heard) in &view {
            self.assert_unmarked(of, *rpc, heard)?;
            if heard.is_ok() {
                self.answered.insert(*rpc);
            }
        }
        Ok(view)
    }

    /// Fails if an answer has a text of the other tenant. Nodes are public.
    fn assert_unmarked(&self, by: usize, rpc: Rpc, heard: &Heard) -> Result<(), TestCaseError> {
        let mark = self.tenants[1 - by].mark.as_bytes();
        let is_marked = all_bytes(heard)
            .windows(mark.len())
            .any(|text| text == mark);
        if is_marked && !sample(rpc).is_public {
            let why = format!("{rpc:?} reveals the other tenant: {heard:?}");
            return Err(TestCaseError::fail(why));
        }
        Ok(())
    }
}

/// Returns the bytes of a response, or of an error with its details and headers.
fn all_bytes(heard: &Heard) -> Vec<u8> {
    match heard {
        Ok(answer) => answer.clone(),
        Err(status) => {
            let mut bytes = status.details().to_vec();
            bytes.extend(status.message().as_bytes());
            bytes.extend(format!("{:?}", status.metadata()).into_bytes());
            bytes
        }
    }
}

/// Sends a call, again while the service is too busy for it, as clients do.
async fn send(channel: &Channel, rpc: Rpc, request: Vec<u8>) -> Heard {
    loop {
        let heard = raw_call(channel, contract::method(rpc), request.clone()).await;
        let busy = heard
            .as_ref()
            .err()
            .and_then(|it| it.get_details_retry_info());
        match busy.and_then(|it| it.retry_delay) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return heard,
        }
    }
}

/// The field that the responses of all lists have.
#[derive(Clone, PartialEq, Message)]
struct Page {
    #[prost(string, tag = "2")]
    next_page_token: String,
}
