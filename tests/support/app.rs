//! The service in this process, on a schema of its own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use bridgebook::{
    config::{Auth, Config, Settings},
    domain::position::GivenPosition,
    ops::metrics::Metrics,
    proto::v1::{
        self, NewStep, StartWorkflowRequest, StepStatus, TransitionWorkflowRequest, Workflow,
        WorkflowState, workflow_service_client::WorkflowServiceClient,
    },
    server::{self, Listeners, Stop, TlsState},
};
use tokio::{runtime, sync::mpsc, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{Figures, Pki, Schema, Tap, database_address, errors, eventually, new_id};

/// The service and its schema. When the value is dropped, the service stops, and the test
/// fails if the service has panicked, logged an error, or ended before.
pub struct App {
    pub schema: Schema,
    pub address: SocketAddr,
    pub channel: Channel,
    metrics: Metrics,
    runtime: runtime::Id,
    expects_errors: bool,
    service: JoinHandle<()>,
    _stop: mpsc::Sender<&'static str>,
}

impl Drop for App {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        assert_eq!(self.metrics.panics().get(), 0, "a call has panicked");
        assert!(!self.service.is_finished(), "the service has ended");
        let errors = errors::take(self.runtime);
        assert!(self.expects_errors || errors.is_empty(), "{errors:#?}");
    }
}

impl App {
    /// Starts the service. Returns when it is SERVING.
    pub async fn start() -> App {
        App::start_with(|_| {}).await
    }

    /// Starts the service with settings that differ from the defaults of tests.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> App {
        App::start_on(Schema::create().await, change).await
    }

    /// Starts another service on the same schema.
    pub async fn replica(&self) -> App {
        App::start_on(self.schema.clone(), |_| {}).await
    }

    /// Starts a replica of the service on a schema that other replicas may use.
    pub async fn start_on(schema: Schema, change: impl FnOnce(&mut Config)) -> App {
        let url = schema.url();
        App::start_at(schema, url, change, connect).await
    }

    /// Starts the service on a schema at another URL, for example of another role.
    pub async fn start_by(schema: Schema, url: String) -> App {
        App::start_at(schema, url, |_| {}, connect).await
    }

    /// Starts the service with a tap on its connections to the database.
    pub async fn tapped() -> (App, Tap) {
        App::tapped_on(Schema::create().await).await
    }

    /// The same, on a given schema.
    pub async fn tapped_on(schema: Schema) -> (App, Tap) {
        let tap = Tap::default();
        let url = tap.before(&schema.url()).await;
        (App::start_at(schema, url, |_| {}, connect).await, tap)
    }

    /// Starts the service with TLS and tokens. Its tenants trust its certificate.
    pub async fn start_private(pki: &Pki, change: impl FnOnce(&mut Config)) -> App {
        let schema = Schema::create().await;
        let url = schema.url();
        let with_tls = |config: &mut Config| {
            config.auth = Auth::Tokens;
            config.tls = Some(pki.config());
            change(config);
        };
        App::start_at(schema, url, with_tls, |address| pki.connect(address)).await
    }

    async fn start_at(
        schema: Schema,
        url: String,
        change: impl FnOnce(&mut Config),
        connect: impl FnOnce(SocketAddr) -> Channel,
    ) -> App {
        let (stop, stopped) = Stop::channel();
        let mut config = usual(&url);
        config.listen = (Ipv4Addr::LOCALHOST, 0).into();
        // Tests of the sweeper and of retention shorten the intervals.
        config.sweep_interval = Duration::from_secs(3600);
        config.prune_interval = Duration::from_secs(3600);
        config.sweep_grace = Duration::ZERO;
        config.drain_timeout = Duration::from_secs(1);
        config.database_connections = 8;
        change(&mut config);
        let listeners = Listeners::bind(&config).unwrap();
        let address = listeners.calls.local_addr().unwrap();
        config.listen = address;
        let runtime = errors::collect();
        let metrics = Metrics::new().unwrap();
        let counted = metrics.clone();
        let mut service = tokio::spawn(async move {
            let tls = TlsState::load(&config).unwrap();
            let database = database_address(&url);
            let served = server::run(&config, &tls, &metrics, &database, true, listeners, stopped);
            served.await.expect("the service runs");
        });
        let channel = connect(address);
        tokio::select! {
            () = wait_until_serving(&channel) => {}
            ended = &mut service => panic!("the service ended: {ended:?}"),
        }
        App {
            schema,
            address,
            channel,
            metrics: counted,
            runtime,
            expects_errors: false,
            service,
            _stop: stop,
        }
    }

    /// Lets the test pass although the service logs errors, because the test causes them.
    pub fn expect_errors(&mut self) {
        self.expects_errors = true;
    }

    /// Returns the metrics of the service as Prometheus would scrape them.
    pub fn figures(&self) -> Figures {
        Figures::parse(self.metrics.text().unwrap())
    }

    /// Waits until a watch can send the row at a position: all transactions that began before its own
    /// have ended, also those of other tests.
    pub async fn wait_for_horizon(&self, position: &str) {
        let xid = GivenPosition::parse(position)
            .expect("a position")
            .of_any()
            .xid;
        let horizon = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text";
        eventually("the horizon passes the row", async || {
            let horizon = self.schema.count(horizon).await;
            (u64::try_from(horizon).expect("a number") > xid).then_some(())
        })
        .await;
    }

    /// Returns a tenant with a namespace of its own.
    pub fn tenant(&self) -> Tenant {
        tenant_on(self.channel.clone())
    }

    /// Starts the service. Returns it with a tenant.
    pub async fn with_tenant() -> (App, Tenant) {
        let app = App::start().await;
        let tenant = app.tenant();
        (app, tenant)
    }
}

/// Returns the default settings.
fn usual(database_url: &str) -> Config {
    #[derive(clap::Parser)]
    struct Serve {
        #[command(flatten)]
        settings: Settings,
    }
    let arguments = ["serve", "--database-url", database_url];
    let serve = <Serve as clap::Parser>::parse_from(arguments);
    serve.settings.check().expect("the defaults are valid")
}

pub fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

pub async fn wait_until_serving(channel: &Channel) {
    eventually("the service is SERVING", || async {
        let mut client = HealthClient::new(channel.clone());
        let answer = client.check(HealthCheckRequest::default()).await.ok()?;
        (answer.into_inner().status == 1).then_some(())
    })
    .await;
}

/// Returns a new tenant that calls over a channel.
pub fn tenant_on(channel: Channel) -> Tenant {
    Tenant {
        namespace: format!("tenant-{}", new_id()),
        client: WorkflowServiceClient::new(channel.clone()),
        channel,
    }
}

/// A caller with a namespace.
#[derive(Clone)]
pub struct Tenant {
    pub namespace: String,
    pub channel: Channel,
    pub client: WorkflowServiceClient<Channel>,
}

impl Tenant {
    /// Returns a request to start a workflow.
    pub fn new_workflow(&self) -> StartWorkflowRequest {
        StartWorkflowRequest {
            namespace: self.namespace.clone(),
            correlation_id: new_id(),
            workflow_type: "test".into(),
            ..StartWorkflowRequest::default()
        }
    }

    /// Starts a workflow.
    pub async fn start(&self) -> Workflow {
        self.start_as(self.new_workflow()).await
    }

    /// Starts a workflow in the state PROCESSING.
    pub async fn start_processing(&self) -> Workflow {
        let request = StartWorkflowRequest {
            current_state: WorkflowState::Processing.into(),
            ..self.new_workflow()
        };
        self.start_as(request).await
    }

    /// Starts the workflow of a request.
    pub async fn start_as(&self, request: StartWorkflowRequest) -> Workflow {
        let answer = self
            .client
            .clone()
            .start_workflow(request)
            .await
            .expect("it starts");
        answer.into_inner().workflow.expect("a workflow")
    }

    /// Returns a request to move a workflow.
    pub fn to(&self, workflow: &Workflow, state: WorkflowState) -> TransitionWorkflowRequest {
        TransitionWorkflowRequest {
            namespace: self.namespace.clone(),
            workflow_id: workflow.id.clone(),
            to_state: state.into(),
            ..TransitionWorkflowRequest::default()
        }
    }

    /// Moves a workflow.
    pub async fn transition(
        &self,
        request: TransitionWorkflowRequest,
    ) -> v1::TransitionWorkflowResponse {
        let answer = self.client.clone().transition_workflow(request).await;
        answer.expect("it moves").into_inner()
    }

    /// Reads a workflow with its steps and stamps.
    pub async fn get(&self, workflow: &Workflow) -> v1::GetWorkflowResponse {
        let request = v1::GetWorkflowRequest {
            namespace: self.namespace.clone(),
            key: Some(v1::get_workflow_request::Key::Id(workflow.id.clone())),
            include_stamps: true,
        };
        let answer = self.client.clone().get_workflow(request).await;
        answer.expect("it is there").into_inner()
    }

    /// Returns a step of a workflow.
    pub fn new_step(&self, workflow: &Workflow, order: i32) -> NewStep {
        NewStep {
            workflow_id: workflow.id.clone(),
            step_name: format!("step {order}"),
            step_order: order,
            status: StepStatus::Completed.into(),
            ..NewStep::default()
        }
    }

    /// Records steps. Fails unless all of them are recorded.
    pub async fn record_steps(&self, steps: Vec<NewStep>) {
        let request = v1::BatchRecordStepsRequest {
            namespace: self.namespace.clone(),
            steps,
        };
        let answer = self
            .client
            .clone()
            .batch_record_steps(request)
            .await
            .expect("an answer");
        for result in answer.into_inner().results {
            match result.result {
                Some(v1::record_step_result::Result::Response(_)) => {}
                other => panic!("not recorded: {other:?}"),
            }
        }
    }
}
