use futures_util::StreamExt;
use tonic_reflection::pb;

use crate::support::App;

/// Returns the services that a version of reflection lists.
macro_rules! listed {
    ($app:expr, $version:ident) => {{
        use pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($app.channel.clone());
        let answers = client
            .server_reflection_info(futures_util::stream::iter([request]))
            .await;
        let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
        match answer.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => list
                .service
                .into_iter()
                .map(|service| service.name)
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn both_versions_list_all_services() {
    let app = App::start().await;
    for services in [listed!(app, v1), listed!(app, v1alpha)] {
        for name in ["bridgebook.v1.WorkflowService", "grpc.health.v1.Health"] {
            assert!(
                services.iter().any(|service| service == name),
                "{services:?}"
            );
        }
    }
}
