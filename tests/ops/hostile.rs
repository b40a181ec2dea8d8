//! Whatever callers send is bounded wherever it ends up: in the log, in metrics, in spans and in
//! the headers of the response.

use bridgebook::proto::Rpc;
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};
use tonic::Status;

use super::traces::Collector;
use crate::support::{
    ANY_WINDOW, App, Server, Wire, bridgebook, contract, eventually, get, raw_call, send_part,
};

/// Breaks lines and terminals, and is long.
fn hostile(length: usize) -> String {
    format!("\u{1b}[2J\n FORGED \u{202e}{}", "x".repeat(length))
}

/// Returns a message whose every text is hostile, at any depth.
fn hostile_message(of: MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let value = match field.kind() {
            _ if field.is_map() => continue,
            Kind::String => Value::String(hostile(20_000)),
            Kind::Bytes => Value::Bytes(hostile(20_000).into()),
            Kind::Message(inner) if depth > 0 => Value::Message(hostile_message(inner, depth - 1)),
            _ => continue,
        };
        let value = match field.is_list() {
            true => Value::List(vec![value]),
            false => value,
        };
        message.set_field(&field, value);
    }
    message
}

/// Fails unless the headers of a failed call fit into what clients accept: 8 KiB.
fn assert_fits(rpc: Rpc, status: &Status) {
    let details = status.details().len() * 4 / 3;
    assert!(details + status.message().len() < 8 * 1024, "{rpc:?}");
}

/// Sends a long value in each header that the server reads, and a long path. Returns how many
/// calls that are.
async fn send_hostile_headers(wire: &Wire) -> usize {
    let list = "bridgebook.v1.WorkflowService/ListWorkflows";
    let long = "x".repeat(15_000);
    let mut heads = vec![wire.head(&format!("nobody.Knows/{long}"))];
    for name in [
        "x-correlation-id",
        "x-request-id",
        "traceparent",
        "tracestate",
        "user-agent",
        "grpc-timeout",
        "grpc-encoding",
        "authorization",
        "content-type",
        "x-forwarded-for",
    ] {
        let mut head = wire.head(list);
        let value = match name {
            "tracestate" => format!("vendor={long}"),
            "content-type" => format!("application/grpc+{long}"),
            _ => long.clone(),
        };
        head.headers_mut().insert(name, value.parse().unwrap());
        if name == "tracestate" {
            let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let parent = parent.parse().unwrap();
            head.headers_mut().insert("traceparent", parent);
        }
        heads.push(head);
    }
    let count = heads.len();
    for head in heads {
        let (answer, mut body) = wire.begin(head).await;
        send_part(&mut body, vec![0; 5], true);
        let answer = answer.await.unwrap();
        let headers = answer.headers().iter();
        let size: usize = headers
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        assert!(size < 8 * 1024, "{answer:?}");
    }
    count
}

/// Returns the number of calls that a line stands for. The last line may be incomplete.
fn logged_calls(line: &str) -> usize {
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let is_call = line["request_id"].is_string();
    line["repeated"]
        .as_u64()
        .map_or(is_call.into(), |repeated| repeated as usize)
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_callers_are_bounded_everywhere() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let app = App::start().await;
    let url = app.schema.url();
    let mut program = bridgebook();
    program.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    let arguments = [
        ["--database-url", &url],
        ["--otlp-endpoint", &endpoint],
        ["--log-format", "json"],
        ["--metrics-listen", "127.0.0.1:0"],
    ];
    let mut server = Server::spawn_program(program, arguments.as_flattened());
    let metrics = server.metrics_address();
    let channel = server.serving().await;

    let mut sent = 0;
    for rpc in Rpc::ALL {
        let [input, _] = contract::messages(*rpc);
        let message = hostile_message(input, 3).encode_to_vec();
        if let Err(status) = raw_call(&channel, contract::method(*rpc), message).await {
            assert_fits(*rpc, &status);
            sent += 1;
        }
    }
    let wire = Wire::connect(server.address, ANY_WINDOW).await;
    sent += send_hostile_headers(&wire).await;

    let lines = eventually("all calls are logged", async || {
        let log = server.log();
        let lines: Vec<String> = log.lines().map(ToOwned::to_owned).collect();
        let calls = lines.iter().map(|line| logged_calls(line));
        (calls.sum::<usize>() >= sent).then_some(lines)
    })
    .await;
    for line in lines {
        assert!(line.len() < 4096, "{} bytes: {:.200}", line.len(), line);
        assert!(
            !line.contains('\u{1b}') && !line.contains('\u{202e}'),
            "{line}"
        );
    }
    let (_, text) = get(metrics, "/metrics").await.unwrap();
    let longest = text.lines().filter(|line| !line.starts_with('#'));
    assert!(longest.map(str::len).max().unwrap() < 400, "{text}");

    let spans = eventually("the calls are traced", async || {
        let spans = collector.spans();
        (spans.len() >= sent).then_some(spans)
    })
    .await;
    for span in spans {
        let is_statement = span.attributes.iter().any(|it| it.key == "db.query.text");
        let limit = if is_statement { 64 * 1024 } else { 4096 };
        assert!(span.encoded_len() < limit, "{span:?}");
    }
}
