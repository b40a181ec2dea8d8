//! What a case is: a read, and what to count of its answer.

use bridgebook::proto::v1;
use prost::{Message, bytes::Bytes};

use crate::{Result, call::frame};

/// How many rows a page has.
pub const PAGE: i32 = 20;

/// What a request is made of.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// A number that looks random, to choose what to read.
    pub number: u64,
    /// How many rows a page has.
    pub page_size: i32,
    /// Where the page begins.
    pub page_token: String,
}

/// What matters of an answer.
#[derive(Debug)]
pub struct Answered {
    /// How many rows it has.
    pub rows: usize,
    /// The token of the next page.
    pub next_page_token: String,
}

/// A read of one database.
pub struct Case {
    /// The RPC: "WorkflowService/GetWorkflow".
    pub method: &'static str,
    /// What is special about this case.
    pub title: &'static str,
    /// Before which row the page begins.
    pub skip: u64,
    /// Whether it counts rows that grow in number with the database.
    pub grows: bool,
    request: Box<dyn Fn(Ask) -> Result<Bytes>>,
    read: fn(Bytes) -> Result<Answered>,
}

impl Case {
    /// Makes a case of a method with such requests.
    pub fn new<Q: Message, A: Answer>(
        method: &'static str,
        title: &'static str,
        request: impl Fn(Ask) -> Q + 'static,
        _: fn() -> A,
    ) -> Self {
        Case {
            method,
            title,
            skip: 0,
            grows: false,
            request: Box::new(move |ask| frame(&request(ask))),
            read: |bytes| {
                let answer = A::decode(bytes)?;
                Ok(Answered {
                    rows: answer.rows(),
                    next_page_token: answer.next_page_token(),
                })
            },
        }
    }

    /// Has the page begin deep in the list.
    pub fn after(self, skip: u64) -> Self {
        Case { skip, ..self }
    }

    /// Says that it counts, so that it takes longer the more there is.
    pub fn grows(self) -> Self {
        Case {
            grows: true,
            ..self
        }
    }

    /// What to call it.
    pub fn name(&self) -> String {
        let name = format!("{} {}", self.method, self.title);
        name.trim_end().to_owned()
    }

    /// A request, in its frame.
    pub fn request(&self, ask: Ask) -> Result<Bytes> {
        (self.request)(ask)
    }

    /// Reads an answer.
    pub fn read(&self, answer: Bytes) -> Result<Answered> {
        (self.read)(answer)
    }
}

/// An answer whose rows can be counted.
pub trait Answer: Message + Default {
    /// How many rows it has: whatever the database has a row for, or makes one for.
    fn rows(&self) -> usize;

    /// The token of the next page.
    fn next_page_token(&self) -> String {
        String::new()
    }
}

/// Declares answers that are one row, or that are lists in one field, of which
/// some are paged.
macro_rules! answers {
    (
        one: $($one:ident),+;
        all: $($all:ident.$rows:ident),+;
        page: $($page:ident.$listed:ident),+;
    ) => {
        $(impl Answer for v1::$one {
            fn rows(&self) -> usize {
                1
            }
        })+
        $(impl Answer for v1::$all {
            fn rows(&self) -> usize {
                self.$rows.len()
            }
        })+
        $(impl Answer for v1::$page {
            fn rows(&self) -> usize {
                self.$listed.len()
            }

            fn next_page_token(&self) -> String {
                self.next_page_token.clone()
            }
        })+
    };
}

answers! {
    one: GetMachineResponse, GetEntityResponse, GetBridgeStateResponse, GetBridgeStatsResponse,
        GetNodeResponse, GetSystemHealthResponse;
    all: GetTransitionStatsResponse.stats, DiscoverNodesResponse.nodes,
        ListNamespaceSummariesResponse.summaries, GetIndexUsageResponse.indexes,
        GetTableScansResponse.tables, ListMigrationsResponse.migrations;
    page: ListStepsResponse.steps, ListStampsResponse.stamps, ListMachinesResponse.machines,
        ListEntitiesResponse.entities, ListTransitionsResponse.transitions,
        ListBridgeStatesResponse.bridge_states, ListNodesResponse.nodes;
}

/// The workflow, and what belongs to it.
impl Answer for v1::GetWorkflowResponse {
    fn rows(&self) -> usize {
        1 + self.steps.len() + self.stamps.len()
    }
}

/// The workflows, and the steps that are counted for each.
impl Answer for v1::ListWorkflowsResponse {
    fn rows(&self) -> usize {
        let steps = self.workflows.iter().map(|it| it.step_count);
        self.workflows.len() + steps.sum::<i64>() as usize
    }

    fn next_page_token(&self) -> String {
        self.next_page_token.clone()
    }
}
