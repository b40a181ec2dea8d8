//! Calls that break the protocol: they are refused with a reason, before they do anything.

use std::sync::LazyLock;

use bridgebook::proto::v1::StartWorkflowRequest;
use prost::{Message, bytes::Bytes};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;

use crate::support::{
    ANY_WINDOW, App, Failure, Server, Wire, eventually, failure, raw_call, send_part,
};

const START: &str = "bridgebook.v1.WorkflowService/StartWorkflow";
const HEALTH_CHECK: &str = "grpc.health.v1.Health/Check";

/// A frame with an empty message.
static EMPTY: LazyLock<Bytes> = LazyLock::new(|| vec![0; 5].into());

fn frame(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    frame
}

/// Sends a call. Returns its HTTP status, and its status if the call fails.
async fn send(
    wire: &Wire,
    head: http::Request<()>,
    body: Bytes,
) -> Result<(u16, Option<Status>), h2::Error> {
    let (answer, mut sent) = wire.begin(head).await;
    send_part(&mut sent, body, true);
    let answer = answer.await?;
    let failure = Status::from_header_map(answer.headers());
    Ok((answer.status().as_u16(), failure))
}

async fn refused(wire: &Wire, head: http::Request<()>, body: Bytes) -> (u16, Failure) {
    let (http, status) = send(wire, head, body).await.unwrap();
    (http, failure::<()>(Err(status.expect("it fails"))))
}

fn unimplemented(reason: &str) -> Failure {
    Failure::new(Code::Unimplemented, reason)
}

#[tokio::test]
async fn an_unknown_method_is_named() {
    let app = App::start().await;
    for method in ["bridgebook.v1.WorkflowService/Nothing", "nobody.Knows/It"] {
        let status = raw_call(&app.channel, method, Vec::new())
            .await
            .unwrap_err();
        assert!(status.message().contains(method), "{status:?}");
        assert_eq!(failure::<()>(Err(status)), unimplemented("METHOD_UNKNOWN"));
    }
}

#[tokio::test]
async fn another_format_of_messages_is_refused() {
    let app = App::start().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    for (method, content_type, http, reason) in [
        (
            "POST",
            "application/grpc+json",
            200,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        (
            "POST",
            "application/grpc+thrift",
            200,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        (
            "POST",
            "application/grpc-web",
            415,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        ("POST", "text/plain", 415, "CONTENT_TYPE_UNSUPPORTED"),
        ("GET", "application/grpc", 405, "HTTP_METHOD_UNSUPPORTED"),
    ] {
        let mut head = wire.head(HEALTH_CHECK);
        *head.method_mut() = method.parse().unwrap();
        let value = content_type.parse().unwrap();
        head.headers_mut().insert("content-type", value);
        let refused = refused(&wire, head, EMPTY.clone()).await;
        assert_eq!(refused, (http, unimplemented(reason)), "{content_type}");
    }
    for content_type in [
        "application/grpc",
        "application/grpc+proto",
        "APPLICATION/GRPC",
    ] {
        let mut head = wire.head(HEALTH_CHECK);
        let value = content_type.parse().unwrap();
        head.headers_mut().insert("content-type", value);
        let (http, failed) = send(&wire, head, EMPTY.clone()).await.unwrap();
        assert_eq!(
            (http, failed.map(|it| it.code())),
            (200, None),
            "{content_type}"
        );
    }
}

#[tokio::test]
async fn a_missing_or_repeated_content_type_is_told_as_such() {
    let app = App::start().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let mut absent = wire.head(HEALTH_CHECK);
    absent.headers_mut().remove("content-type");
    let mut repeated = wire.head(HEALTH_CHECK);
    let value = "application/grpc".parse().unwrap();
    repeated.headers_mut().append("content-type", value);
    for (head, text) in [(absent, "no content-type"), (repeated, "2 headers")] {
        let (http, status) = send(&wire, head, EMPTY.clone()).await.unwrap();
        let status = status.unwrap();
        assert_eq!(http, 415);
        assert!(status.message().contains(text), "{status:?}");
        let expected = unimplemented("CONTENT_TYPE_UNSUPPORTED");
        assert_eq!(failure::<()>(Err(status)), expected);
    }
}

#[tokio::test]
async fn a_path_with_a_query_is_no_method() {
    let (app, tenant) = App::with_tenant().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    for method in [START, HEALTH_CHECK] {
        let head = wire.head(&format!("{method}?x=1"));
        let body = frame(&tenant.new_workflow());
        let (http, status) = send(&wire, head, body.into()).await.unwrap();
        let status = status.unwrap();
        assert!(status.message().contains("?x=1"), "{status:?}");
        let refused = (http, failure::<()>(Err(status)));
        assert_eq!(refused, (200, unimplemented("METHOD_UNKNOWN")));
    }
    let count = "SELECT count(*) FROM workflow_executions";
    assert_eq!(app.schema.count(count).await, 0);
}

#[tokio::test]
async fn a_badly_framed_request_is_told_why() {
    let app = App::start().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    for (body, text) in [
        (vec![], "the body is empty"),
        (vec![0, 0, 0], "ends within a message"),
        (vec![0, 0, 0, 0, 9, 1], "ends within a message"),
        (vec![1, 0, 0, 0, 0], "marked as compressed"),
        (vec![7, 0, 0, 0, 0], "must be 0 or 1"),
    ] {
        let (_, status) = send(&wire, wire.head(START), body.into()).await.unwrap();
        let status = status.unwrap();
        assert!(status.message().contains(text), "{status:?}");
        let expected = Failure::new(Code::InvalidArgument, "MALFORMED_MESSAGE");
        assert_eq!(failure::<()>(Err(status)), expected);
    }
}

/// tonic takes the client's reason of a reset for the status of the call.
#[tokio::test]
async fn a_call_that_is_reset_half_sent_is_cancelled_whatever_the_reason() {
    let app = App::start().await;
    let url = app.schema.url();
    let server = Server::spawn(&["--database-url", &url]);
    server.serving().await;
    let wire = Wire::connect(server.address, ANY_WINDOW).await;
    let reasons = [
        h2::Reason::NO_ERROR,
        h2::Reason::CANCEL,
        h2::Reason::INTERNAL_ERROR,
        h2::Reason::ENHANCE_YOUR_CALM,
        h2::Reason::INADEQUATE_SECURITY,
    ];
    for reason in reasons {
        let (_answer, mut body) = wire.begin(wire.head(START)).await;
        send_part(&mut body, vec![0, 0, 0, 0, 9], false);
        // The server has begun the call once it answers a later one.
        let message = frame(&HealthCheckRequest::default());
        let answer = send(&wire, wire.head(HEALTH_CHECK), message.into()).await;
        assert!(answer.unwrap().1.is_none());
        body.send_reset(reason);
    }
    // Lines of one kind are counted in the first of each second, so that only metrics count calls.
    eventually("the calls are logged", async || {
        server.log().contains("Cancelled").then_some(())
    })
    .await;
    let message = frame(&HealthCheckRequest::default());
    send(&wire, wire.head("nobody.Knows/It"), message.into())
        .await
        .unwrap();
    eventually("a later call is logged", async || {
        server.log().contains("METHOD_UNKNOWN").then_some(())
    })
    .await;
    let log = server.log();
    assert!(!log.contains("call rejected"), "{log}");
    assert!(!log.contains("MALFORMED_MESSAGE"), "{log}");
}

#[tokio::test]
async fn a_compressed_message_is_refused() {
    let app = App::start().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let mut head = wire.head(START);
    let gzip = "gzip".parse().unwrap();
    head.headers_mut().insert("grpc-encoding", gzip);
    let (answer, mut body) = wire.begin(head).await;
    send_part(&mut body, vec![1, 0, 0, 0, 0], true);
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["grpc-accept-encoding"], "identity");
    let status = Status::from_header_map(answer.headers()).unwrap();
    assert_eq!(
        failure::<()>(Err(status)),
        unimplemented("ENCODING_UNSUPPORTED")
    );
}

#[tokio::test]
async fn a_second_message_is_refused_before_the_first_has_an_effect() {
    let (app, tenant) = App::with_tenant().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    let requests: Vec<StartWorkflowRequest> = vec![tenant.new_workflow(), tenant.new_workflow()];
    let body: Vec<u8> = requests.iter().flat_map(frame).collect();
    let refused = refused(&wire, wire.head(START), body.into()).await;
    let expected = Failure::new(Code::InvalidArgument, "TOO_MANY_MESSAGES");
    assert_eq!(refused, (200, expected));
    let count = "SELECT count(*) FROM workflow_executions";
    assert_eq!(app.schema.count(count).await, 0);
}

#[tokio::test]
async fn headers_over_the_limit_cost_only_their_call() {
    let app = App::start().await;
    let wire = Wire::connect(app.address, ANY_WINDOW).await;
    for length in [16_000, 17_000, 60_000, 120_000] {
        let mut head = wire.head(HEALTH_CHECK);
        let value = "x".repeat(length).parse().unwrap();
        head.headers_mut().insert("x-large", value);
        let (http, failed) = send(&wire, head, EMPTY.clone()).await.unwrap();
        let failed = failed.map(|status| failure::<()>(Err(status)));
        let too_large = Failure::new(Code::ResourceExhausted, "HEADERS_TOO_LARGE");
        let expected = (length > 16_000).then_some(too_large);
        assert_eq!((http, failed), (200, expected), "{length}");
    }
    // Far above the limit, the answer is HTTP's own. The connection lives on.
    let mut head = wire.head(HEALTH_CHECK);
    let value = "x".repeat(200_000).parse().unwrap();
    head.headers_mut().insert("x-large", value);
    let (answer, _body) = wire.begin(head).await;
    assert_eq!(answer.await.unwrap().status(), 431);
    let message = frame(&HealthCheckRequest::default());
    let answer = send(&wire, wire.head(HEALTH_CHECK), message.into()).await;
    assert!(answer.unwrap().1.is_none());
}

#[tokio::test]
async fn a_refused_call_is_in_the_log() {
    let app = App::start().await;
    let url = app.schema.url();
    let server = Server::spawn(&["--database-url", &url]);
    server.serving().await;
    let wire = Wire::connect(server.address, ANY_WINDOW).await;
    let mut other = wire.head(HEALTH_CHECK);
    let text = "text/plain".parse().unwrap();
    other.headers_mut().insert("content-type", text);
    let mut large = wire.head(HEALTH_CHECK);
    let value = "x".repeat(20_000).parse().unwrap();
    large.headers_mut().insert("x-large", value);
    for head in [other, large, wire.head("nobody.Knows/It")] {
        send(&wire, head, EMPTY.clone()).await.unwrap();
    }
    for reason in [
        "CONTENT_TYPE_UNSUPPORTED",
        "HEADERS_TOO_LARGE",
        "METHOD_UNKNOWN",
    ] {
        eventually(reason, async || server.log().contains(reason).then_some(())).await;
    }
}
