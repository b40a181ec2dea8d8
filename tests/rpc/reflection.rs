use futures_util::StreamExt;
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic_reflection::pb;

use crate::support::{App, Failure, failure, raw_call};

/// What a version of reflection answers, by its parts that clients use.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Services(Vec<String>),
    /// The name of a file.
    File(String),
    Numbers(Vec<i32>),
    Error(i32),
}

/// Sends questions to a version of reflection, on one stream. A question is the name of its
/// field, and its text.
macro_rules! ask {
    ($app:expr, $version:ident, $questions:expr) => {{
        use pb::$version::{
            ExtensionRequest, ServerReflectionRequest,
            server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = |(kind, text): (&str, &str)| ServerReflectionRequest {
            host: "test".into(),
            message_request: match kind {
                "list" => Some(MessageRequest::ListServices(text.into())),
                "file" => Some(MessageRequest::FileByFilename(text.into())),
                "symbol" => Some(MessageRequest::FileContainingSymbol(text.into())),
                "numbers" => Some(MessageRequest::AllExtensionNumbersOfType(text.into())),
                "extension" => Some(MessageRequest::FileContainingExtension(ExtensionRequest {
                    containing_type: text.into(),
                    extension_number: 7,
                })),
                _ => None,
            },
        };
        let requests: Vec<_> = $questions.into_iter().map(request).collect();
        let mut client = ServerReflectionClient::new($app.channel.clone());
        let answers = client
            .server_reflection_info(futures_util::stream::iter(requests.clone()))
            .await;
        let answers: Vec<_> = answers.unwrap().into_inner().collect().await;
        let answers = requests.iter().zip(answers).map(|(request, answer)| {
            let answer = answer.expect("the stream goes on");
            assert_eq!(answer.original_request.as_ref(), Some(request));
            assert_eq!(answer.valid_host, "test");
            match answer.message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    Answer::Services(list.service.into_iter().map(|it| it.name).collect())
                }
                MessageResponse::FileDescriptorResponse(files) => {
                    let file = files.file_descriptor_proto[0].as_slice();
                    let file = FileDescriptorProto::decode(file).unwrap();
                    Answer::File(file.name().to_owned())
                }
                MessageResponse::AllExtensionNumbersResponse(numbers) => {
                    Answer::Numbers(numbers.extension_number)
                }
                MessageResponse::ErrorResponse(error) => Answer::Error(error.error_code),
            }
        });
        answers.collect::<Vec<_>>()
    }};
}

#[tokio::test]
async fn both_versions_list_all_services() {
    let app = App::start().await;
    for mut answers in [
        ask!(app, v1, [("list", "")]),
        ask!(app, v1alpha, [("list", "")]),
    ] {
        let Some(Answer::Services(services)) = answers.pop() else {
            panic!("{answers:?}")
        };
        for name in [
            "bridgebook.v1.WorkflowService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ] {
            assert!(services.iter().any(|it| it == name), "{services:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_name_is_an_error_and_the_stream_goes_on() {
    let app = App::start().await;
    let file = |name: &str| Answer::File(name.into());
    let workflows = "bridgebook/v1/workflow_service.proto";
    let not_found = || Answer::Error(tonic::Code::NotFound.into());
    let cases = [
        ("symbol", "no.Such", not_found()),
        ("symbol", "bridgebook.v1.WorkflowService.No", not_found()),
        ("symbol", "", not_found()),
        ("file", "no.proto", not_found()),
        ("numbers", "no.Such", not_found()),
        ("extension", "no.Such", not_found()),
        ("extension", "bridgebook.v1.Workflow", not_found()),
        (
            "nothing",
            "",
            Answer::Error(tonic::Code::InvalidArgument.into()),
        ),
        ("symbol", "bridgebook.v1.WorkflowService", file(workflows)),
        (
            "symbol",
            "bridgebook.v1.WorkflowService.StartWorkflow",
            file(workflows),
        ),
        (
            "symbol",
            "google.rpc.ErrorInfo",
            file("error_details.proto"),
        ),
        (
            "symbol",
            "bridgebook.v1.GetWorkflowRequest.key",
            file(workflows),
        ),
        (
            "symbol",
            "bridgebook.v1.GetWorkflowRequest.namespace",
            file(workflows),
        ),
        ("file", workflows, file(workflows)),
        (
            "numbers",
            "bridgebook.v1.GetWorkflowRequest",
            Answer::Numbers(vec![]),
        ),
    ];
    let questions: Vec<_> = cases.iter().map(|(kind, text, _)| (*kind, *text)).collect();
    for answers in [
        ask!(app, v1, questions.clone()),
        ask!(app, v1alpha, questions.clone()),
    ] {
        assert_eq!(answers.len(), cases.len());
        for ((kind, text, expected), answer) in cases.iter().zip(answers) {
            assert_eq!(answer, *expected, "{kind} {text}");
        }
    }
}

/// Neither needs a credential, and reflection repeats the request in its answer.
#[tokio::test]
async fn messages_of_health_and_reflection_are_small() {
    let app = App::start().await;
    for method in [
        "grpc.health.v1.Health/Check",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        // An unknown field, which is valid in every message.
        let message = [&[0x7a, 0x80, 0x80, 0x04][..], &[0; 64 * 1024]].concat();
        let refused = failure(raw_call(&app.channel, method, message).await);
        let expected = Failure::new(tonic::Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
        assert_eq!(refused, expected, "{method}");
    }
}
