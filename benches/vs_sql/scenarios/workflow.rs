//! Scenarios of WorkflowService.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread::available_parallelism,
    time::Duration,
};

use bridgebook::proto::v1::{
    BatchRecordStepsRequest, BatchRecordStepsResponse, GetWorkflowRequest, GetWorkflowResponse,
    NewStep, StartWorkflowRequest, StartWorkflowResponse, StepStatus, TransitionWorkflowRequest,
    TransitionWorkflowResponse, WorkflowState, get_workflow_request::Key, record_step_result,
    workflow_service_server,
};
use serde_json::json;

use super::{NAMESPACE, Random, document, expect, numbered_id};
use crate::{
    Result,
    load::Call,
    options::Options,
    scenario::Scenario,
    stage::{READABLE, Stage},
};

/// The numbers of tenants with which StartWorkflow is measured beside one.
pub const FEW_TENANTS: u64 = 32;
pub const MANY_TENANTS: u64 = 1000;

/// StartWorkflow: each call starts a new workflow with a small document, in a random tenant.
pub struct Start<const TENANTS: u64 = 1> {
    random: Random,
    template: StartWorkflowRequest,
}

impl<const TENANTS: u64> Start<TENANTS> {
    /// Creates the scenario.
    pub fn new() -> Self {
        let metadata = json!({"team": "red", "priority": "high", "dry_run": false});
        Start {
            random: Random::default(),
            template: StartWorkflowRequest {
                workflow_type: "vs_sql".to_owned(),
                metadata: document(metadata),
                ..StartWorkflowRequest::default()
            },
        }
    }

    fn namespace(&self) -> String {
        match TENANTS {
            1 => NAMESPACE.to_owned(),
            _ => format!("{NAMESPACE}-{}", self.random.up_to(TENANTS)),
        }
    }
}

impl<const TENANTS: u64> Call for Start<TENANTS> {
    type Request = StartWorkflowRequest;
    type Response = StartWorkflowResponse;
    const SERVICE: &'static str = workflow_service_server::SERVICE_NAME;
    const METHOD: &'static str = "StartWorkflow";
    const TITLE: &'static str = match TENANTS {
        1 => "StartWorkflow",
        FEW_TENANTS => "StartWorkflow, 32 tenants",
        _ => "StartWorkflow, 1000 tenants",
    };

    fn request(&self) -> StartWorkflowRequest {
        StartWorkflowRequest {
            namespace: self.namespace(),
            correlation_id: self.random.id(),
            ..self.template.clone()
        }
    }

    fn check(&self, response: StartWorkflowResponse) -> Result<()> {
        expect(response.created, "the workflow already existed")
    }
}

impl<const TENANTS: u64> Scenario for Start<TENANTS> {
    const SCRIPT: &'static str = "start.sql";
    const CALLERS: &'static [usize] = match TENANTS {
        1 => &[1, 16, 64, 256],
        _ => &[64],
    };
    const UNIT: &'static str = "calls";
}

/// GetWorkflow by correlation_id: each call reads a workflow with five steps.
#[derive(Default)]
pub struct Get {
    random: Random,
}

impl Call for Get {
    type Request = GetWorkflowRequest;
    type Response = GetWorkflowResponse;
    const SERVICE: &'static str = workflow_service_server::SERVICE_NAME;
    const METHOD: &'static str = "GetWorkflow";
    const TITLE: &'static str = "GetWorkflow, 5 steps";

    fn request(&self) -> GetWorkflowRequest {
        GetWorkflowRequest {
            namespace: NAMESPACE.to_owned(),
            key: Some(Key::CorrelationId(numbered_id(self.random.up_to(READABLE)))),
            include_stamps: false,
        }
    }

    fn check(&self, response: GetWorkflowResponse) -> Result<()> {
        expect(response.steps.len() == 5, "expected five steps")
    }
}

impl Scenario for Get {
    const SCRIPT: &'static str = "get.sql";
    const CALLERS: &'static [usize] = &[1, 16, 64, 256];
    const UNIT: &'static str = "calls";

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("readable", READABLE)]
    }
}

/// TransitionWorkflow: each call moves another workflow from PENDING to PROCESSING.
pub struct Transition {
    random: Random,
    /// The number of the next workflow in state PENDING.
    next: AtomicU64,
    /// How many of them a measurement may need.
    needed: u64,
}

impl Transition {
    /// The first number of the workflows to move, far from those that are read.
    const FIRST: u64 = 1_000_000;

    /// Creates the scenario.
    pub fn new(options: &Options) -> Self {
        /// More than twice the highest rate seen on either side. Too many workflows only take
        /// time; too few fail the measurement.
        const PER_SECOND_AND_CORE: u64 = 15_000;
        let cores = available_parallelism().map_or(1, usize::from) as u64;
        let window = options.window();
        let seconds = (window.warm_up + window.counted + Duration::from_secs(1)).as_secs();
        Transition {
            random: Random::default(),
            next: AtomicU64::new(Self::FIRST),
            needed: seconds * cores * PER_SECOND_AND_CORE,
        }
    }

    /// Returns the highest number of a workflow that meets the condition.
    async fn highest(&self, stage: &Stage, database: &str, condition: &str) -> Result<u64> {
        let query = format!(
            "SELECT coalesce(max(number), {}) AS number
               FROM (SELECT ('x' || right(id::text, 12))::bit(48)::bigint AS number
                       FROM workflow_executions
                      WHERE id < '00000000-0000-0000-0001-000000000000' AND {condition}
                      ORDER BY id DESC LIMIT 1) highest",
            Self::FIRST - 1
        );
        Ok(stage.number(database, &query).await?.max(Self::FIRST - 1))
    }
}

impl Call for Transition {
    type Request = TransitionWorkflowRequest;
    type Response = TransitionWorkflowResponse;
    const SERVICE: &'static str = workflow_service_server::SERVICE_NAME;
    const METHOD: &'static str = "TransitionWorkflow";
    const TITLE: &'static str = "TransitionWorkflow";

    fn request(&self) -> TransitionWorkflowRequest {
        TransitionWorkflowRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: numbered_id(self.next.fetch_add(1, Ordering::Relaxed)),
            to_state: WorkflowState::Processing.into(),
            transition_id: self.random.id(),
            ..TransitionWorkflowRequest::default()
        }
    }

    fn check(&self, response: TransitionWorkflowResponse) -> Result<()> {
        expect(response.applied, "the move was already applied")
    }
}

impl Scenario for Transition {
    const SCRIPT: &'static str = "transition.sql";
    const CALLERS: &'static [usize] = &[64];
    const UNIT: &'static str = "calls";

    /// Adds workflows until enough of them are PENDING.
    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        let next = self
            .highest(stage, database, "current_state <> 'PENDING'")
            .await?
            + 1;
        self.next.store(next, Ordering::Relaxed);
        let last = self.highest(stage, database, "true").await?;
        stage
            .add_workflows(database, last + 1, next + self.needed)
            .await
    }

    /// Fails if no workflow is left to move, because pgbench does not notice that.
    async fn after(&self, stage: &Stage, database: &str) -> Result<()> {
        let moved = self
            .highest(stage, database, "current_state <> 'PENDING'")
            .await?;
        let last = self.highest(stage, database, "true").await?;
        match moved < last {
            true => Ok(()),
            false => Err(
                "too few workflows to move for such a fast machine: raise PER_SECOND_AND_CORE"
                    .into(),
            ),
        }
    }

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("first", self.next.load(Ordering::Relaxed)), ("taken", 0)]
    }
}

/// BatchRecordSteps: 1000 steps per call, five for each of 200 workflows.
pub struct Steps {
    random: Random,
    template: NewStep,
}

impl Steps {
    /// Creates the scenario.
    pub fn new() -> Self {
        Steps {
            random: Random::default(),
            template: NewStep {
                step_name: "validate_metadata".to_owned(),
                status: StepStatus::Completed.into(),
                execution_time_ms: Some(12),
                step_data: document(json!({"tool": "stamper", "files": "one"})),
                ..NewStep::default()
            },
        }
    }
}

impl Call for Steps {
    type Request = BatchRecordStepsRequest;
    type Response = BatchRecordStepsResponse;
    const SERVICE: &'static str = workflow_service_server::SERVICE_NAME;
    const METHOD: &'static str = "BatchRecordSteps";
    const TITLE: &'static str = "BatchRecordSteps, 1000 per call";
    const ROWS_PER_CALL: u32 = 1000;

    fn request(&self) -> BatchRecordStepsRequest {
        let first = self.random.up_to(READABLE - 200);
        let step = |place| NewStep {
            workflow_id: numbered_id(first + u64::from(place / 5)),
            step_order: i32::from(place % 5),
            ..self.template.clone()
        };
        BatchRecordStepsRequest {
            namespace: NAMESPACE.to_owned(),
            steps: (0_u16..1000).map(|place: u16| step(place)).collect(),
        }
    }

    fn check(&self, response: BatchRecordStepsResponse) -> Result<()> {
        use record_step_result::Result::Response;
        let mut results = response.results.iter();
        let is_stored = |result: &Option<_>| matches!(result, Some(Response(step)) if step.created);
        expect(
            response.results.len() == 1000 && results.all(|item| is_stored(&item.result)),
            "expected 1000 stored steps",
        )
    }
}

impl Scenario for Steps {
    const SCRIPT: &'static str = "steps.sql";
    const CALLERS: &'static [usize] = &[2];
    const UNIT: &'static str = "rows";
    const ROWS_PER_TRANSACTION: u32 = 100;

    fn variables(&self) -> Vec<(&'static str, u64)> {
        vec![("readable", READABLE)]
    }

    /// Empties the table. Rows arrive so fast that the side with more measurements would soon
    /// work on a larger table.
    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        stage.execute(database, "TRUNCATE workflow_steps").await
    }
}
