//! Tokens share the connections: none takes all of them from the others.

use std::time::Duration;

use bridgebook::{config::Auth, domain::role::Role, proto::v1::ListWorkflowsRequest};
use futures_util::future::select_all;
use h2::{SendStream, client::ResponseFuture};
use prost::{Message, bytes::Bytes};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    ANY_WINDOW, App, Failure, Issued, Wire, connect, eventually, failure, send_part,
};

const LIST: &str = "bridgebook.v1.WorkflowService/ListWorkflows";
const LIMIT: usize = 6;

fn listing() -> ListWorkflowsRequest {
    ListWorkflowsRequest {
        namespace: "team-a".into(),
        ..ListWorkflowsRequest::default()
    }
}

async fn guarded() -> App {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.connection.connections = LIMIT;
    });
    app.await
}

fn head(wire: &Wire, token: &Issued) -> http::Request<()> {
    let mut head = wire.head(LIST);
    let bearer = format!("Bearer {}", token.credential).parse().unwrap();
    head.headers_mut().insert("authorization", bearer);
    head
}

/// Makes a call over a new connection.
async fn call(app: &App, token: &Issued) -> Result<(), Status> {
    let channel = connect(app.address);
    let mut client = token.client(&channel).workflows();
    client.list_workflows(listing()).await.map(drop)
}

/// A connection with a call whose request does not end.
struct Unfinished {
    wire: Wire,
    response: ResponseFuture,
    body: SendStream<Bytes>,
}

impl Unfinished {
    /// Ends the request, and returns the failure of the call, if it fails.
    async fn finish(mut self) -> Option<Status> {
        let message = listing().encode_to_vec();
        let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        frame.extend(message);
        send_part(&mut self.body, frame, true);
        let response = self.response.await.unwrap();
        Status::from_header_map(response.headers())
    }
}

/// Opens connections of a token, each with a call whose request does not end.
async fn begin_calls(app: &App, token: &Issued, count: usize) -> Vec<Unfinished> {
    let started = || {
        let labels = [("grpc_method", "ListWorkflows")];
        app.figures().sum("grpc_server_started_total", &labels)
    };
    let mut begun = Vec::new();
    for _ in 0..count {
        let wire = Wire::connect(app.address, ANY_WINDOW).await;
        // Afterwards the connection counts as one of the token.
        let answer = wire.send_with(head(&wire, token), &listing()).await;
        let answer = answer.await.unwrap();
        assert!(Status::from_header_map(answer.headers()).is_none());
        let before = started();
        let (response, body) = wire.begin(head(&wire, token)).await;
        eventually("the call is in progress", async || {
            (started() > before).then_some(())
        })
        .await;
        begun.push(Unfinished {
            wire,
            response,
            body,
        });
    }
    begun
}

fn too_many_connections() -> Failure {
    Failure::new(Code::ResourceExhausted, "TOO_MANY_CONNECTIONS")
}

fn assert_names_the_remedy(status: Status) {
    let details = status.get_error_details();
    let delay = details.retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some(), "{status:?}");
    assert!(
        status.message().contains("use fewer connections"),
        "{status:?}"
    );
    assert_eq!(failure::<()>(Err(status)), too_many_connections());
}

#[tokio::test]
async fn a_token_that_holds_all_connections_loses_one_to_another_token() {
    let app = guarded().await;
    let greedy = app.issue(Role::Reader, &["*"]).await;
    let other = app.issue(Role::Reader, &["*"]).await;
    let mut held = begin_calls(&app, &greedy, LIMIT).await;
    // Alone it may have all, but no more.
    assert_names_the_remedy(call(&app, &greedy).await.unwrap_err());
    call(&app, &other).await.unwrap();

    let Unfinished {
        wire,
        response,
        body,
    } = held.remove(0);
    let response = response.await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert!(status.message().contains("share"), "{status:?}");
    assert_names_the_remedy(status);
    drop((body, wire.sender));
    // It is closed gracefully.
    let ended = tokio::time::timeout(Duration::from_secs(60), wire.ended).await;
    ended.expect("it is closed").unwrap().unwrap();
    let figures = app.figures();
    let refused = "bridgebook_connections_refused_total";
    assert_eq!(figures.sum(refused, &[("cause", "share")]), 1.0);
    for call in held {
        assert!(call.finish().await.is_none(), "the other calls go on");
    }
}

#[tokio::test]
async fn a_token_takes_connections_of_others_up_to_its_share() {
    let app = guarded().await;
    let greedy = app.issue(Role::Reader, &["*"]).await;
    let other = app.issue(Role::Reader, &["*"]).await;
    let held = begin_calls(&app, &greedy, LIMIT).await;
    let _others = begin_calls(&app, &other, LIMIT / 2).await;
    let refused = call(&app, &other).await.unwrap_err();
    assert_eq!(failure::<()>(Err(refused)), too_many_connections());
    let (mut done, mut closed) = (0, 0);
    for call in held.into_iter().rev() {
        // The last ones have their slots still.
        match done < LIMIT / 2 {
            true => done += usize::from(call.finish().await.is_none()),
            false => {
                let response = call.response.await.unwrap();
                closed += usize::from(Status::from_header_map(response.headers()).is_some());
            }
        }
    }
    assert_eq!((done, closed), (LIMIT / 2, LIMIT / 2));
}

#[tokio::test]
async fn idle_connections_make_room_before_those_with_calls() {
    let app = guarded().await;
    let greedy = app.issue(Role::Reader, &["*"]).await;
    let other = app.issue(Role::Reader, &["*"]).await;
    let held = begin_calls(&app, &greedy, LIMIT - 1).await;
    let idle = Wire::connect(app.address, ANY_WINDOW).await;
    let response = idle.send_with(head(&idle, &greedy), &listing()).await;
    let mut body = response.await.unwrap().into_body();
    while body.data().await.is_some() {}
    call(&app, &other).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), idle.ended).await;
    ended.expect("it is closed").unwrap().unwrap();
    for call in held {
        assert!(call.finish().await.is_none());
    }
}

#[tokio::test]
async fn an_administrator_gets_in_while_others_hold_all_connections() {
    let app = guarded().await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let other = app.issue(Role::Reader, &["*"]).await;
    let mut held = Vec::new();
    for _ in 0..LIMIT {
        let token = app.issue(Role::Reader, &["*"]).await;
        held.extend(begin_calls(&app, &token, 1).await);
    }
    let refused = call(&app, &other).await.unwrap_err();
    assert_eq!(failure::<()>(Err(refused)), too_many_connections());
    call(&app, &admin).await.unwrap();
    for call in held {
        assert!(call.finish().await.is_none());
    }
}

#[tokio::test]
async fn a_request_that_does_not_end_fails_after_the_call_timeout() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.call_timeout = Duration::from_secs(1);
        config.limits.connection.connections = 1;
    });
    let app = app.await;
    let token = app.issue(Role::Reader, &["*"]).await;
    let [call_in_progress] = <[_; 1]>::try_from(begin_calls(&app, &token, 1).await)
        .unwrap_or_else(|_| panic!("one call"));
    let response = call_in_progress.response.await.unwrap();
    let status = Status::from_header_map(response.headers()).unwrap();
    assert_eq!(
        failure::<()>(Err(status)),
        Failure::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );
    // Its connection is idle, and makes room.
    call(&app, &token).await.unwrap();
}

/// A request may take as long as the call timeout, and its headers take memory meanwhile.
#[tokio::test]
async fn requests_that_do_not_end_leave_memory_to_others() {
    let app = App::start_with(|config| {
        config.auth = Auth::Tokens;
        config.limits.request_bytes = Some(200_000);
    });
    let app = app.await;
    let greedy = app.issue(Role::Reader, &["*"]).await;
    let other = app.issue(Role::Reader, &["*"]).await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let mut begun = Vec::new();
    for _ in 0..100 {
        begun.push(wire.begin(head(&wire, &greedy)).await);
    }
    // Those that get memory wait for their requests; any of the others is the first to end.
    let responses = begun.iter_mut().map(|(response, _)| response);
    let (response, ..) = select_all(responses).await;
    let refused = Status::from_header_map(response.unwrap().headers()).unwrap();
    let info = refused.get_error_details().error_info().unwrap().clone();
    assert_eq!(info.reason, "OVERLOADED");
    assert_eq!(info.metadata["limit"], "request_memory");
    call(&app, &other).await.unwrap();
}
