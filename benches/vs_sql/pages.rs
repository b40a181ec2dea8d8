//! Measures whether a late page of a long list costs more than the first one.
//!
//! pgbench has no part in it. A keyset page, which is found by its position in an index,
//! should cost as much as the first page. An OFFSET page would cost more.

use std::sync::Arc;

use bridgebook::proto::v1::{
    FsmTransition, ListTransitionsRequest, ListTransitionsResponse,
    fsm_service_client::FsmServiceClient, fsm_service_server,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    Result,
    load::{self, Call},
    measured::Measured,
    options::Options,
    scenario::Sides,
    scenarios::NAMESPACE,
    seed::seed,
    stage::SERVED,
};

/// The number of moves in the entity's history.
pub const MOVES: u64 = 200_000;

/// The number of moves per page.
pub const PAGE_SIZE: u16 = 100;

/// The late page: halfway through the list.
pub const LATE_PAGE: u32 = 1000;

/// One caller, because latency is of interest here and throughput is not.
const CALLERS: usize = 1;

/// The rounds of both pages.
#[derive(Debug, Default)]
pub struct Pages {
    /// The first page.
    pub first: Vec<Measured>,
    /// The late page.
    pub late: Vec<Measured>,
}

/// A page of ListTransitions.
struct Page {
    token: String,
    /// The id of the first move on the page.
    first_move: String,
}

impl Page {
    /// Returns the request for a page.
    fn at(token: String) -> ListTransitionsRequest {
        ListTransitionsRequest {
            namespace: NAMESPACE.to_owned(),
            page_size: PAGE_SIZE.into(),
            page_token: token,
            entity_type: "pendulum".to_owned(),
            entity_id: "00000000-0000-0000-0000-000000000001".to_owned(),
            ..ListTransitionsRequest::default()
        }
    }

    /// Finds the page with this number as a client does: by following the page tokens.
    async fn find(client: &mut FsmServiceClient<Channel>, number: u32) -> Result<Self> {
        let mut token = String::new();
        for _ in 1..number {
            let page = client.list_transitions(Self::at(token)).await?;
            token = page.into_inner().next_page_token;
        }
        let page = client.list_transitions(Self::at(token.clone())).await?;
        let first_move = first_id(&page.get_ref().transitions);
        Ok(Page { token, first_move })
    }
}

fn first_id(moves: &[FsmTransition]) -> String {
    moves.first().map_or_else(String::new, |it| it.id.clone())
}

impl Call for Page {
    type Request = ListTransitionsRequest;
    type Response = ListTransitionsResponse;
    const SERVICE: &'static str = fsm_service_server::SERVICE_NAME;
    const METHOD: &'static str = "ListTransitions";
    const TITLE: &'static str = "ListTransitions";

    fn request(&self) -> ListTransitionsRequest {
        Self::at(self.token.clone())
    }

    fn check(&self, response: ListTransitionsResponse) -> Result<()> {
        let is_full = response.transitions.len() == usize::from(PAGE_SIZE);
        match is_full && first_id(&response.transitions) == self.first_move {
            true => Ok(()),
            false => Err("unexpected response: a different page".into()),
        }
    }
}

/// Measures both pages in turns.
pub async fn measure_pages(sides: &Sides<'_>, options: &Options) -> Result<Pages> {
    let history = include_str!("seed_history.sql");
    seed(sides.stage, SERVED, history, MOVES).await?;
    sides.stage.vacuum().await?;
    let server = Endpoint::from_shared(format!("http://{}", sides.address))?;
    let mut client = FsmServiceClient::new(server.connect().await?);
    let first = Arc::new(Page::find(&mut client, 1).await?);
    let late = Arc::new(Page::find(&mut client, LATE_PAGE).await?);
    if first.first_move == late.first_move {
        return Err("the late page has the same first move as page 1".into());
    }
    let mut pages = Pages::default();
    for round in 1..=options.rounds {
        eprintln!("{}, round {round} of {}", Page::TITLE, options.rounds);
        for (page, rounds) in [(&first, &mut pages.first), (&late, &mut pages.late)] {
            sides.stage.checkpoint().await?;
            let measured =
                load::measure(page, &sides.address.into(), CALLERS, options.window()).await?;
            eprintln!("  p50 {:>8.3} ms", measured.p50.as_secs_f64() * 1e3);
            rounds.push(measured);
        }
    }
    Ok(pages)
}
