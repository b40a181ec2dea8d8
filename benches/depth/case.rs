//! Defines a case: a read RPC with its requests, and how to count the rows of its responses.

use bridgebook::proto::v1;
use prost::{Message, bytes::Bytes};

use crate::{Result, call::frame};

/// The page size.
pub const PAGE: i32 = 20;

/// The parameters of a request.
#[derive(Debug, Clone, Default)]
pub struct Params {
    /// A pseudo-random number that chooses the row to read.
    pub number: u64,
    /// The page size.
    pub page_size: i32,
    /// The token of the page to read.
    pub page_token: String,
}

/// The part of a response that matters here.
#[derive(Debug)]
pub struct Summary {
    /// The number of rows.
    pub rows: usize,
    /// The token of the next page, or empty.
    pub next_page_token: String,
}

/// A read RPC on one database.
pub struct Case {
    /// The RPC, for example "WorkflowService/GetWorkflow".
    pub method: &'static str,
    /// How this case differs from others of the RPC.
    pub title: &'static str,
    /// The number of rows before the page.
    pub skip: u64,
    /// Whether the read aggregates rows whose number grows with the database.
    pub scales_with_data: bool,
    request: Box<dyn Fn(Params) -> Result<Bytes>>,
    read: fn(Bytes) -> Result<Summary>,
}

impl Case {
    /// Creates a case. The last argument only names the response type.
    pub fn new<Q: Message, R: Response>(
        method: &'static str,
        title: &'static str,
        request: impl Fn(Params) -> Q + 'static,
        _: fn() -> R,
    ) -> Self {
        Case {
            method,
            title,
            skip: 0,
            scales_with_data: false,
            request: Box::new(move |params| frame(&request(params))),
            read: |bytes| {
                let response = R::decode(bytes)?;
                Ok(Summary {
                    rows: response.rows(),
                    next_page_token: response.next_page_token(),
                })
            },
        }
    }

    /// Reads the page after `skip` rows.
    pub fn after(self, skip: u64) -> Self {
        Case { skip, ..self }
    }

    /// Marks the case as an aggregation, whose latency grows with the database.
    pub fn scales_with_data(self) -> Self {
        Case {
            scales_with_data: true,
            ..self
        }
    }

    /// Returns the RPC and the title.
    pub fn name(&self) -> String {
        let name = format!("{} {}", self.method, self.title);
        name.trim_end().to_owned()
    }

    /// Encodes a request with its frame header.
    pub fn request(&self, params: Params) -> Result<Bytes> {
        (self.request)(params)
    }

    /// Decodes a response.
    pub fn read(&self, response: Bytes) -> Result<Summary> {
        (self.read)(response)
    }
}

/// A response whose rows can be counted.
pub trait Response: Message + Default {
    /// Returns the number of rows that the database returned or aggregated for the response.
    fn rows(&self) -> usize;

    /// Returns the token of the next page.
    fn next_page_token(&self) -> String {
        String::new()
    }
}

/// Declares responses with one row (`one`), with a list in one field (`all`), and with a page
/// of a list (`page`).
macro_rules! responses {
    (
        one: $($one:ident),+;
        all: $($all:ident.$rows:ident),+;
        page: $($page:ident.$listed:ident),+;
    ) => {
        $(impl Response for v1::$one {
            fn rows(&self) -> usize {
                1
            }
        })+
        $(impl Response for v1::$all {
            fn rows(&self) -> usize {
                self.$rows.len()
            }
        })+
        $(impl Response for v1::$page {
            fn rows(&self) -> usize {
                self.$listed.len()
            }

            fn next_page_token(&self) -> String {
                self.next_page_token.clone()
            }
        })+
    };
}

responses! {
    one: GetMachineResponse, GetEntityResponse, GetBridgeStateResponse, GetBridgeStatsResponse,
        GetNodeResponse, GetSystemHealthResponse;
    all: GetTransitionStatsResponse.stats, ListNamespaceSummariesResponse.summaries,
        GetIndexUsageResponse.indexes, GetTableScansResponse.tables,
        ListMigrationsResponse.migrations;
    page: ListStepsResponse.steps, ListStampsResponse.stamps, ListMachinesResponse.machines,
        ListEntitiesResponse.entities, ListTransitionsResponse.transitions,
        ListBridgeStatesResponse.bridge_states, ListNodesResponse.nodes,
        DiscoverNodesResponse.nodes,
        ListTokensResponse.tokens, ListRetentionPoliciesResponse.policies,
        ListQuotasResponse.quotas;
}

/// Counts the workflow, its steps and its stamps.
impl Response for v1::GetWorkflowResponse {
    fn rows(&self) -> usize {
        1 + self.steps.len() + self.stamps.len()
    }
}

/// Counts the workflows, and the steps that the query counts for each of them.
impl Response for v1::ListWorkflowsResponse {
    fn rows(&self) -> usize {
        let steps = self.workflows.iter().map(|it| it.step_count);
        self.workflows.len() + steps.sum::<i64>() as usize
    }

    fn next_page_token(&self) -> String {
        self.next_page_token.clone()
    }
}
