//! Whether a late page of a long list costs more than the first one.
//!
//! There is no peer here: a page that is found by its place in an index should
//! cost what the first one costs, and one that is found by counting would not.

use std::sync::Arc;

use bridgebook::proto::v1::{
    FsmTransition, ListTransitionsRequest, ListTransitionsResponse,
    fsm_service_client::FsmServiceClient, fsm_service_server,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    Result, load,
    measured::Measured,
    options::Options,
    scenario::{Call, Sides},
    scenarios::NAMESPACE,
    seed::seed,
    stage::SERVED,
};

/// How many moves the entity has made.
pub const MOVES: u64 = 200_000;

/// How many of them a page has.
pub const PAGE_SIZE: u16 = 100;

/// Which page is measured beside the first one: half way through the list.
pub const LATE_PAGE: u32 = 1000;

/// One caller: what is of interest is the page, not the crowd.
const CALLERS: usize = 1;

/// The rounds of the first page, and those of the late one.
#[derive(Debug, Default)]
pub struct Pages {
    /// The first page.
    pub first: Vec<Measured>,
    /// The late one.
    pub late: Vec<Measured>,
}

/// A page of ListTransitions.
struct Page {
    token: String,
    /// The id of the move that it begins with.
    begins_with: String,
}

impl Page {
    /// Asks for the page.
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

    /// Turns to the page with this number, as a reader has to: page by page.
    async fn find(client: &mut FsmServiceClient<Channel>, number: u32) -> Result<Self> {
        let mut token = String::new();
        for _ in 1..number {
            let page = client.list_transitions(Self::at(token)).await?;
            token = page.into_inner().next_page_token;
        }
        let page = client.list_transitions(Self::at(token.clone())).await?;
        let begins_with = first_id(&page.get_ref().transitions);
        Ok(Page { token, begins_with })
    }
}

fn first_id(moves: &[FsmTransition]) -> String {
    moves.first().map_or_else(String::new, |it| it.id.clone())
}

impl Call for Page {
    type Request = ListTransitionsRequest;
    type Answer = ListTransitionsResponse;
    const SERVICE: &'static str = fsm_service_server::SERVICE_NAME;
    const METHOD: &'static str = "ListTransitions";
    const TITLE: &'static str = "ListTransitions";

    fn request(&self) -> ListTransitionsRequest {
        Self::at(self.token.clone())
    }

    fn check(&self, answer: ListTransitionsResponse) -> Result<()> {
        let is_full = answer.transitions.len() == usize::from(PAGE_SIZE);
        match is_full && first_id(&answer.transitions) == self.begins_with {
            true => Ok(()),
            false => Err("unexpected answer: another page".into()),
        }
    }
}

/// Measures both pages in turns.
pub async fn measure_pages(sides: &Sides<'_>, options: &Options) -> Result<Pages> {
    let history = include_str!("seed_history.sql");
    seed(sides.stage, SERVED, history, MOVES).await?;
    sides.stage.tidy().await?;
    let server = Endpoint::from_shared(format!("http://{}", sides.address))?;
    let mut client = FsmServiceClient::new(server.connect().await?);
    let first = Arc::new(Page::find(&mut client, 1).await?);
    let late = Arc::new(Page::find(&mut client, LATE_PAGE).await?);
    if first.begins_with == late.begins_with {
        return Err("the late page is the first one".into());
    }
    let mut pages = Pages::default();
    for round in 1..=options.rounds {
        eprintln!("{}, round {round} of {}", Page::TITLE, options.rounds);
        for (page, rounds) in [(&first, &mut pages.first), (&late, &mut pages.late)] {
            sides.stage.settle().await?;
            let measured =
                load::measure(page, &sides.address.into(), CALLERS, options.window()).await?;
            eprintln!("  p50 {:>8.3} ms", measured.p50.as_secs_f64() * 1e3);
            rounds.push(measured);
        }
    }
    Ok(pages)
}
