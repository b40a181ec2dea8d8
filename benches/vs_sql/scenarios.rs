//! The scenarios.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    thread::available_parallelism,
    time::Duration,
};

use bridgebook::{
    json::Struct,
    proto::v1::{
        BatchRecordStepsRequest, BatchRecordStepsResponse, GetWorkflowRequest, GetWorkflowResponse,
        NewStep, StartWorkflowRequest, StartWorkflowResponse, StepStatus,
        TransitionWorkflowRequest, TransitionWorkflowResponse, WorkflowState,
        get_workflow_request::Key, record_step_result,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Result,
    options::Options,
    scenario::Scenario,
    stage::{READABLE, Stage},
};

/// The tenant of all rows; the scripts say the same.
const NAMESPACE: &str = "bench";

/// Random numbers and ids, for many callers at once.
#[derive(Default)]
struct Random {
    state: RandomState,
    count: AtomicU64,
}

impl Random {
    fn number(&self) -> u64 {
        self.state
            .hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// A random UUID, like those of gen_random_uuid().
    fn id(&self) -> String {
        let bits = (u128::from(self.number()) << 64) | u128::from(self.number());
        uuid::Builder::from_random_bytes(bits.to_be_bytes())
            .into_uuid()
            .to_string()
    }

    /// The number of a workflow that has steps, and `after - 1` such after it.
    fn workflow(&self, after: u64) -> u64 {
        1 + self.number() % (READABLE - after)
    }
}

/// The id, and the correlation_id, of the workflow with this number.
fn workflow_id(number: u64) -> String {
    Uuid::from_u128(number.into()).to_string()
}

fn document(value: Value) -> Option<Struct> {
    match value {
        Value::Object(fields) => Some(fields.into()),
        _ => None,
    }
}

/// Fails unless the answer is as it should be.
fn expect(is_right: bool, what: &str) -> Result<()> {
    match is_right {
        true => Ok(()),
        false => Err(format!("unexpected answer: {what}").into()),
    }
}

/// StartWorkflow, each call a new workflow with a small document.
pub struct Start {
    random: Random,
    template: StartWorkflowRequest,
}

impl Start {
    /// Makes the scenario.
    pub fn new() -> Self {
        let metadata = json!({"team": "red", "priority": "high", "dry_run": false});
        Start {
            random: Random::default(),
            template: StartWorkflowRequest {
                namespace: NAMESPACE.to_owned(),
                workflow_type: "vs_sql".to_owned(),
                metadata: document(metadata),
                ..StartWorkflowRequest::default()
            },
        }
    }
}

impl Scenario for Start {
    type Request = StartWorkflowRequest;
    type Answer = StartWorkflowResponse;
    const METHOD: &'static str = "StartWorkflow";
    const TITLE: &'static str = "StartWorkflow";
    const SCRIPT: &'static str = "start.sql";
    const CALLERS: &'static [usize] = &[1, 16, 64, 256];
    const UNIT: &'static str = "calls";

    fn request(&self) -> StartWorkflowRequest {
        StartWorkflowRequest {
            correlation_id: self.random.id(),
            ..self.template.clone()
        }
    }

    fn check(&self, answer: StartWorkflowResponse) -> Result<()> {
        expect(answer.created, "the workflow was there before")
    }
}

/// GetWorkflow by correlation_id, of a workflow with five steps.
#[derive(Default)]
pub struct Get {
    random: Random,
}

impl Scenario for Get {
    type Request = GetWorkflowRequest;
    type Answer = GetWorkflowResponse;
    const METHOD: &'static str = "GetWorkflow";
    const TITLE: &'static str = "GetWorkflow, 5 steps";
    const SCRIPT: &'static str = "get.sql";
    const CALLERS: &'static [usize] = &[1, 16, 64, 256];
    const UNIT: &'static str = "calls";

    fn request(&self) -> GetWorkflowRequest {
        GetWorkflowRequest {
            namespace: NAMESPACE.to_owned(),
            key: Some(Key::CorrelationId(workflow_id(self.random.workflow(0)))),
            include_stamps: false,
        }
    }

    fn check(&self, answer: GetWorkflowResponse) -> Result<()> {
        expect(answer.steps.len() == 5, "not five steps")
    }
}

/// TransitionWorkflow, each call another workflow, from PENDING to PROCESSING.
pub struct Transition {
    random: Random,
    /// The number of the next workflow that nobody has moved yet.
    next: AtomicU64,
    /// How many of them a measurement may need.
    needed: u64,
}

impl Transition {
    /// Where the numbers of workflows to move begin, far from those that are read.
    const FIRST: u64 = 1_000_000;

    /// Makes the scenario.
    pub fn new(options: &Options) -> Self {
        /// More than twice what either side was seen to move. Too many only take
        /// time; too few are noticed.
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

    /// The highest number of a workflow that meets the condition.
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

impl Scenario for Transition {
    type Request = TransitionWorkflowRequest;
    type Answer = TransitionWorkflowResponse;
    const METHOD: &'static str = "TransitionWorkflow";
    const TITLE: &'static str = "TransitionWorkflow";
    const SCRIPT: &'static str = "transition.sql";
    const CALLERS: &'static [usize] = &[64];
    const UNIT: &'static str = "calls";

    /// Makes sure that there are enough workflows that nobody has moved yet.
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

    /// pgbench does not notice when there is nothing left to move.
    async fn after(&self, stage: &Stage, database: &str) -> Result<()> {
        let moved = self
            .highest(stage, database, "current_state <> 'PENDING'")
            .await?;
        let last = self.highest(stage, database, "true").await?;
        match moved < last {
            true => Ok(()),
            false => Err("there were not enough workflows to move on so fast a machine".into()),
        }
    }

    fn first(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    fn request(&self) -> TransitionWorkflowRequest {
        TransitionWorkflowRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: workflow_id(self.next.fetch_add(1, Ordering::Relaxed)),
            to_state: WorkflowState::Processing.into(),
            transition_id: self.random.id(),
            ..TransitionWorkflowRequest::default()
        }
    }

    fn check(&self, answer: TransitionWorkflowResponse) -> Result<()> {
        expect(answer.applied, "the move was made before")
    }
}

/// BatchRecordSteps, 1000 steps a call: five for each of 200 workflows.
pub struct Steps {
    random: Random,
    template: NewStep,
}

impl Steps {
    /// Makes the scenario.
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

impl Scenario for Steps {
    type Request = BatchRecordStepsRequest;
    type Answer = BatchRecordStepsResponse;
    const METHOD: &'static str = "BatchRecordSteps";
    const TITLE: &'static str = "BatchRecordSteps, 1000 a call";
    const SCRIPT: &'static str = "steps.sql";
    const CALLERS: &'static [usize] = &[2];
    const UNIT: &'static str = "rows";
    const ROWS_PER_CALL: u32 = 1000;
    const ROWS_PER_TRANSACTION: u32 = 100;

    /// So many rows come so fast that both tables have to begin empty, or the
    /// side with more measurements would soon work on a larger one.
    async fn before(&self, stage: &Stage, database: &str) -> Result<()> {
        stage.execute(database, "TRUNCATE workflow_steps").await
    }

    fn request(&self) -> BatchRecordStepsRequest {
        let first = self.random.workflow(200);
        let step = |place| NewStep {
            workflow_id: workflow_id(first + u64::from(place / 5)),
            step_order: i32::from(place % 5),
            ..self.template.clone()
        };
        BatchRecordStepsRequest {
            namespace: NAMESPACE.to_owned(),
            steps: (0_u16..1000).map(|place: u16| step(place)).collect(),
        }
    }

    fn check(&self, answer: BatchRecordStepsResponse) -> Result<()> {
        use record_step_result::Result::Response;
        let mut results = answer.results.iter();
        let is_stored = |result: &Option<_>| matches!(result, Some(Response(step)) if step.created);
        expect(
            answer.results.len() == 1000 && results.all(|item| is_stored(&item.result)),
            "not 1000 steps stored",
        )
    }
}
