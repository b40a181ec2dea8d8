//! Traces, as a collector receives them.

use std::sync::{Arc, Mutex};

use bridgebook::proto::v1::ListStampsRequest;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::server::{Server as Transport, TcpIncoming},
};

use crate::support::{App, ReservedPort, Server, bridgebook, eventually, tenant_on};

/// An OTLP collector that keeps its traces.
#[derive(Clone, Default)]
pub(super) struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|it| it.scope_spans);
        let mut spans = self.0.lock().unwrap();
        spans.extend(scopes.flat_map(|it| it.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts a collector. Returns it with its URL.
    pub(super) async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        let server = Transport::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        format!("http://{address}")
    }

    /// Returns the spans received so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }

    /// Waits for the span of a trace with this name.
    async fn span(&self, trace_id: &str, name: &str) -> Span {
        eventually(&format!("{name} is traced"), || async {
            let spans = self.0.lock().unwrap();
            let mut spans = spans.iter();
            spans
                .find(|span| hex(&span.trace_id) == trace_id && span.name == name)
                .cloned()
        })
        .await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|it| it.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

/// Returns a request that belongs to a trace.
fn traced<T>(message: T, trace_id: &str, parent: &str) -> Request<T> {
    let mut request = Request::new(message);
    let context = format!("00-{trace_id}-{parent}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", context);
    request
}

#[tokio::test]
async fn a_call_is_traced_from_its_caller_to_its_statement() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let app = App::start().await;
    let url = app.schema.url();
    let mut program = bridgebook();
    // The default of OpenTelemetry is 5 s.
    program.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let arguments = ["--database-url", &url, "--otlp-endpoint", &endpoint];
    let server = Server::spawn_program(program, &arguments);
    let tenant = tenant_on(server.serving().await);

    let (write, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let workflow = tenant.new_workflow();
    let answer = tenant
        .client
        .clone()
        .start_workflow(traced(workflow.clone(), write, parent))
        .await
        .unwrap();
    let request_id = answer.metadata().get("x-request-id").unwrap();
    let name = "bridgebook.v1.WorkflowService/StartWorkflow";
    let call = collector.span(write, name).await;
    assert_eq!(hex(&call.parent_span_id), parent);
    assert_eq!(attribute(&call, "rpc.grpc.status_code").unwrap(), "0");
    assert_eq!(
        attribute(&call, "namespace"),
        Some(tenant.namespace.clone())
    );
    assert_eq!(
        attribute(&call, "correlation_id"),
        Some(workflow.correlation_id)
    );
    assert_eq!(
        attribute(&call, "request_id").unwrap(),
        request_id.to_str().unwrap()
    );
    let batch = collector.span(write, "StartWorkflows").await;
    assert_eq!(batch.parent_span_id, call.span_id);
    assert_eq!(attribute(&batch, "items").unwrap(), "1");
    let statement = collector.span(write, "WITH").await;
    assert_eq!(statement.parent_span_id, batch.span_id);
    let text = attribute(&statement, "db.query.text").unwrap();
    assert!(text.contains("workflow_executions"), "{text}");
    assert!(
        !text.contains(&tenant.namespace),
        "values are no part of it"
    );

    let read = "1af7651916cd43dd8448eb211c80319c";
    let list = ListStampsRequest {
        namespace: tenant.namespace.clone(),
        ..ListStampsRequest::default()
    };
    let list = traced(list, read, parent);
    tenant.client.clone().list_stamps(list).await.unwrap();
    let call = collector
        .span(read, "bridgebook.v1.WorkflowService/ListStamps")
        .await;
    let statement = collector.span(read, "SELECT").await;
    assert_eq!(statement.parent_span_id, call.span_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_collector_delays_no_call() {
    let app = App::start().await;
    let url = app.schema.url();
    let closed = ReservedPort::new();
    let closed = format!("http://{}", closed.address);
    let mut server = Server::spawn(&["--database-url", &url, "--otlp-endpoint", &closed]);
    let tenant = tenant_on(server.serving().await);
    tenant.start().await;
    assert!(server.terminate().success());
}
