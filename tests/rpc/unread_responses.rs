//! Clients that do not read their responses leave the service to others.

use std::net::SocketAddr;

use bridgebook::{
    config::Auth,
    domain::role::Role,
    proto::v1::{
        GetWorkflowRequest, StartWorkflowRequest, TransitionWorkflowRequest, WorkflowState,
        get_workflow_request::Key,
    },
};
use futures_util::future::select_all;
use prost::Message;
use serde_json::json;
use tonic::{Code, Status};

use crate::support::{
    ANY_WINDOW, App, Failure, Issued, Wire, document, eventually, failure, new_id, overload,
    send_part,
};

const GET: &str = "bridgebook.v1.WorkflowService/GetWorkflow";
const TRANSITION: &str = "bridgebook.v1.WorkflowService/TransitionWorkflow";

async fn send(
    wire: &Wire,
    token: &Issued,
    rpc: &str,
    request: &impl Message,
) -> h2::client::ResponseFuture {
    let mut head = wire.head(rpc);
    let bearer = format!("Bearer {}", token.credential).parse().unwrap();
    head.headers_mut().insert("authorization", bearer);
    wire.send_with(head, request).await
}

/// Sends calls. Returns the responses, whose bodies stay unread, and the number of rejected ones.
async fn read_nothing(
    wire: &Wire,
    token: &Issued,
    rpc: &str,
    request: &impl Message,
    calls: usize,
) -> (Vec<http::Response<h2::RecvStream>>, usize) {
    let mut responses = Vec::new();
    for _ in 0..calls {
        responses.push(send(wire, token, rpc, request).await);
    }
    let (mut unread, mut rejected) = (Vec::new(), 0);
    for response in responses {
        let response = response.await.unwrap();
        match Status::from_header_map(response.headers()) {
            None => unread.push(response),
            Some(status) => {
                let limit = match rpc {
                    GET => "response_memory",
                    _ => "unread_responses",
                };
                let expected = (limit.to_owned(), Some("--max-request-memory".to_owned()));
                assert_eq!(overload(status), expected);
                rejected += 1;
            }
        }
    }
    (unread, rejected)
}

async fn large_workflow(app: &App, token: &Issued) -> GetWorkflowRequest {
    workflow_of(app, token, 900_000).await
}

/// Starts a workflow with a document of so many bytes.
async fn workflow_of(app: &App, token: &Issued, bytes: usize) -> GetWorkflowRequest {
    let request = StartWorkflowRequest {
        namespace: "red".into(),
        workflow_type: "large".into(),
        correlation_id: new_id(),
        metadata: document(json!({"a": "x".repeat(bytes)})),
        ..StartWorkflowRequest::default()
    };
    let mut workflows = token.client(&app.channel).workflows();
    let started = workflows.start_workflow(request).await.unwrap();
    GetWorkflowRequest {
        namespace: "red".into(),
        key: Some(Key::Id(started.into_inner().workflow.unwrap().id)),
        include_stamps: false,
    }
}

/// Returns a move of a workflow. If it is sent again, its response is the whole workflow.
fn retry_of_a_move(workflow: &GetWorkflowRequest) -> TransitionWorkflowRequest {
    let Some(Key::Id(workflow_id)) = workflow.key.clone() else {
        panic!("{workflow:?}");
    };
    TransitionWorkflowRequest {
        namespace: "red".into(),
        workflow_id,
        to_state: WorkflowState::Processing.into(),
        transition_id: new_id(),
        ..TransitionWorkflowRequest::default()
    }
}

#[tokio::test]
async fn a_token_leaves_a_part_of_the_byte_budget_to_others() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.request_bytes = Some(8_000_000);
    });
    let app = app.await;
    let writer = app.issue(Role::Writer, &["red"]).await;
    let greedy = app.issue(Role::Reader, &["red"]).await;
    let request = large_workflow(&app, &writer).await;
    let mut held = Vec::new();
    // More connections do not get more.
    for _ in 0..3 {
        let wire = Wire::connect(app.address, 0).await;
        let (unread, _) = read_nothing(&wire, &greedy, GET, &request, 20).await;
        held.push((wire, unread));
    }
    let unread: usize = held.iter().map(|(_, unread)| unread.len()).sum();
    assert_eq!(unread, 4);
    let mut others = writer.client(&app.channel).workflows();
    others.get_workflow(request.clone()).await.unwrap();
}

#[tokio::test]
async fn responses_that_a_socket_does_not_take_are_a_part_of_the_byte_budget() {
    assert_unread_count(Wire::connect_mute).await;
}

#[tokio::test]
async fn responses_of_which_only_a_byte_fits_are_a_part_of_the_byte_budget() {
    assert_unread_count(|address| Wire::connect(address, 1)).await;
}

/// Asks for responses over connections that do not read them, although HTTP/2 takes them whole. They
/// have to count until the connections are closed.
async fn assert_unread_count<F: Future<Output = Wire>>(connect: impl Fn(SocketAddr) -> F) {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.request_bytes = Some(4_000_000);
    });
    let app = app.await;
    let writer = app.issue(Role::Writer, &["red"]).await;
    let greedy = app.issue(Role::Reader, &["red"]).await;
    let request = workflow_of(&app, &writer, 60_000).await;
    let large = large_workflow(&app, &writer).await;
    let open = || app.figures().sum("bridgebook_connections", &[]);
    let others = open();
    let mut again = greedy.client(&app.channel).workflows();
    let (mut mute, mut unread, mut ended) = (Vec::new(), Vec::new(), 0.0);
    let rejected = loop {
        // A client that does not know the limit opens this many streams.
        if unread.len() % 100 == 0 {
            mute.push(connect(app.address).await);
        }
        let wire = mute.last().unwrap();
        unread.push(send(wire, &greedy, GET, &request).await);
        assert!(unread.len() <= 1000, "nothing is counted");
        ended += 1.0;
        eventually("the call has ended", || async {
            let labels = [("grpc_method", "GetWorkflow")];
            let handled = app.figures().sum("grpc_server_handled_total", &labels);
            (handled >= ended).then_some(())
        })
        .await;
        if let Err(rejected) = again.get_workflow(large.clone()).await {
            break rejected;
        }
        ended += 1.0;
    };
    assert_eq!(overload(rejected).0, "response_memory");
    let mut others_read = writer.client(&app.channel).workflows();
    others_read.get_workflow(large.clone()).await.unwrap();
    eventually("the sockets are closed", || async {
        (open() <= others).then_some(())
    })
    .await;
    again.get_workflow(large).await.unwrap();
}

/// Responses of writes are always sent, because the work is done.
#[tokio::test]
async fn a_token_that_writes_leaves_a_part_of_the_byte_budget_to_others() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.request_bytes = Some(16_000_000);
    });
    let app = app.await;
    let writer = app.issue(Role::Writer, &["red"]).await;
    let greedy = app.issue(Role::Writer, &["red"]).await;
    let get = large_workflow(&app, &writer).await;
    let request = retry_of_a_move(&get);
    let (mut held, mut rejected) = (Vec::new(), 0);
    while rejected == 0 {
        let wire = Wire::connect(app.address, 0).await;
        let (unread, no) = read_nothing(&wire, &greedy, TRANSITION, &request, 2).await;
        rejected += no;
        held.push((wire, unread));
    }
    let mut others = writer.client(&app.channel).workflows();
    others.get_workflow(get).await.unwrap();
}

/// All of them are accepted before the first one is answered.
#[tokio::test]
async fn writes_at_once_leave_a_part_of_the_byte_budget_to_others() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.request_bytes = Some(64_000_000);
    });
    let app = app.await;
    let writer = app.issue(Role::Writer, &["red"]).await;
    let greedy = app.issue(Role::Writer, &["red"]).await;
    let get = large_workflow(&app, &writer).await;
    let request = retry_of_a_move(&get);
    let wire = Wire::connect(app.address, 0).await;
    let (unread, rejected) = read_nothing(&wire, &greedy, TRANSITION, &request, 200).await;
    // Four fifths of the budget, and what two batches read.
    assert!(unread.len() < 75, "{rejected} of 200 calls are rejected");
    let mut others = writer.client(&app.channel).workflows();
    others.get_workflow(get).await.unwrap();
}

#[tokio::test]
async fn requests_that_do_not_end_leave_a_part_of_the_byte_budget_to_others() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.request_bytes = Some(8_000_000);
    });
    let app = app.await;
    let writer = app.issue(Role::Writer, &["red"]).await;
    let greedy = app.issue(Role::Writer, &["red"]).await;
    let wire = Wire::connect(app.address, 0).await;
    let mut rejected = Vec::new();
    let mut unfinished = Vec::new();
    for _ in 0..18 {
        let mut head = wire.head("bridgebook.v1.WorkflowService/StartWorkflow");
        let bearer = format!("Bearer {}", greedy.credential).parse().unwrap();
        head.headers_mut().insert("authorization", bearer);
        let (response, mut body) = wire.begin(head).await;
        // The first 500,000 bytes of a message of 1 MiB.
        let mut part = vec![0; 500_000];
        part[2] = 16;
        send_part(&mut body, part, false);
        unfinished.push(body);
        rejected.push(response);
    }
    let (response, ..) = select_all(rejected).await;
    let status = Status::from_header_map(response.unwrap().headers()).unwrap();
    assert_eq!(
        failure::<()>(Err(status)),
        Failure::new(Code::ResourceExhausted, "OVERLOADED")
    );
    large_workflow(&app, &writer).await;
}

#[tokio::test]
async fn responses_that_nobody_reads_take_no_place_of_calls() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.requests = Some(4);
    });
    let app = app.await;
    let writer = app.issue(Role::Writer, &["red"]).await;
    let request = large_workflow(&app, &writer).await;
    let wire = Wire::connect(app.address, 0).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let (unread, rejected) = read_nothing(&wire, &writer, GET, &request, 1).await;
        assert_eq!(rejected, 0);
        held.extend(unread);
    }
    assert_eq!(held.len(), 10);
    let window = Wire::connect(app.address, ANY_WINDOW).await;
    let (read, rejected) = read_nothing(&window, &writer, GET, &request, 1).await;
    assert_eq!((read.len(), rejected), (1, 0));
}
