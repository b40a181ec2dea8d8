//! Two tenants who name their things alike: neither notices the other.
//!
//! Random sequences of calls, each with ids and page tokens from small pools that
//! the tenants share. What a call of one tenant does is looked for in everything
//! that the other can read.

mod calls;
mod requests;
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

use self::calls::{Call, Pools, Tenant};
use crate::support::{App, is_tenant_call, raw_call};

/// So many sequences of calls are tried.
const CASES: u32 = 12;
/// A sequence has at most so many calls beside those that make the first things.
const CALLS: usize = 24;

/// What a tenant hears: the bytes of an answer, or of a refusal.
type Heard = Result<Vec<u8>, Status>;

#[test]
fn what_a_tenant_does_is_neither_seen_nor_felt_by_another() {
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
        let done = runtime.block_on(Case::new(&app.channel).run(&calls))?;
        answered.borrow_mut().extend(done);
        Ok(())
    });
    match outcome {
        Err(TestError::Fail(why, calls)) => panic!("{why}\nafter {calls:#?}"),
        outcome => outcome.unwrap(),
    }
    let tenants = Rpc::ALL.iter().filter(|rpc| is_tenant_call(**rpc));
    for rpc in tenants {
        assert!(
            answered.borrow().contains(rpc),
            "{rpc:?} was never answered"
        );
    }
}

#[tokio::test]
async fn nobody_gets_at_what_another_has_by_naming_it() {
    let app = App::start().await;
    let calls = [0, 1].map(Call::trespasses).concat();
    Case::new(&app.channel).run(&calls).await.unwrap();
}

/// The RPCs that are called by tenants.
fn of_tenants() -> Vec<Rpc> {
    let all = Rpc::ALL.iter().copied();
    all.filter(|rpc| is_tenant_call(*rpc)).collect()
}

/// Any call of either tenant.
fn a_call() -> impl Strategy<Value = Call> {
    let rpc = prop_oneof![2 => select(calls::writes()), 1 => select(of_tenants())];
    let numbers = (0..3_usize, 0..3_usize, 0..3_usize, 0..8_u8);
    (0..2_usize, rpc, numbers, any::<Index>()).prop_map(
        |(by, rpc, (thing, other, state, variant), token)| Call {
            by,
            rpc,
            thing,
            other,
            state,
            variant,
            token: Some(token),
            page_size: 1,
        },
    )
}

/// Two tenants with new names, and what they share.
struct Case {
    channel: Channel,
    tenants: [Tenant; 2],
    pools: Pools,
    /// What each tenant saw last, if it has done nothing since.
    views: [Option<view::View>; 2],
    /// The RPCs that were answered with OK.
    answered: BTreeSet<Rpc>,
}

impl Case {
    fn new(channel: &Channel) -> Case {
        Case {
            channel: channel.clone(),
            tenants: [Tenant::new("alpha"), Tenant::new("omega")],
            pools: Pools::new(),
            views: [None, None],
            answered: BTreeSet::new(),
        }
    }

    /// Makes the calls; tells which RPCs were answered with OK.
    async fn run(mut self, calls: &[Call]) -> Result<BTreeSet<Rpc>, TestCaseError> {
        let first = [0, 1].map(Call::first_things);
        for call in first.iter().flatten().chain(calls) {
            self.make(call).await?;
        }
        Ok(self.answered)
    }

    /// Makes a call, and looks whether the other tenant sees anything of it.
    async fn make(&mut self, call: &Call) -> Result<(), TestCaseError> {
        let caller = &self.tenants[call.by];
        let other = 1 - call.by;
        let Some(request) = call.request(caller, &self.pools) else {
            return Ok(());
        };
        let before = match self.views[other].take() {
            Some(view) => view,
            None => self.view(other).await?,
        };
        self.views[call.by] = None;
        let heard = send(&self.channel, call.rpc, request).await;
        self.assert_unmarked(call.by, call.rpc, &heard)?;
        let after = self.view(other).await?;
        if let Some(difference) = view::difference(&before, &after) {
            let why = format!("{call:?} changed what the other sees: {difference}");
            return Err(TestCaseError::fail(why));
        }
        self.views[other] = Some(after);
        if let Ok(answer) = &heard {
            self.pools.keep_token(call.rpc, answer);
            self.answered.insert(call.rpc);
        }
        Ok(())
    }

    /// All that a tenant can see.
    async fn view(&mut self, of: usize) -> Result<view::View, TestCaseError> {
        let view = view::look(&self.channel, &self.tenants[of], &self.pools).await;
        for (rpc, _, heard) in &view {
            self.assert_unmarked(of, *rpc, heard)?;
            if heard.is_ok() {
                self.answered.insert(*rpc);
            }
        }
        Ok(view)
    }

    /// No text of the other tenant is in what a tenant hears, but of nodes, which
    /// everybody finds.
    fn assert_unmarked(&self, by: usize, rpc: Rpc, heard: &Heard) -> Result<(), TestCaseError> {
        let finds_nodes = matches!(
            rpc,
            Rpc::RegistryServiceGetNode
                | Rpc::RegistryServiceListNodes
                | Rpc::RegistryServiceDiscoverNodes
        );
        let mark = self.tenants[1 - by].mark.as_bytes();
        let is_marked = all_bytes(heard)
            .windows(mark.len())
            .any(|text| text == mark);
        if is_marked && !finds_nodes {
            let why = format!("{rpc:?} tells of the other tenant: {heard:?}");
            return Err(TestCaseError::fail(why));
        }
        Ok(())
    }
}

/// An answer, or all of a refusal, with its details and headers.
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

async fn send(channel: &Channel, rpc: Rpc, request: Vec<u8>) -> Heard {
    raw_call(channel, rpc.path().trim_start_matches('/'), request).await
}

/// What the pages of all lists have in common.
#[derive(Clone, PartialEq, Message)]
struct Page {
    #[prost(string, tag = "2")]
    next_page_token: String,
}
