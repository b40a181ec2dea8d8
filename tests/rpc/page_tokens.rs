//! Page tokens that were damaged on their way, or that the service did not make.

use bridgebook::proto::Rpc;
use diesel_async::SimpleAsyncConnection;
use serde_json::Value;
use tonic::Code;

use crate::{
    samples::{Rows, call, sample},
    support::{App, Failure, Schema, contract, failure, raw_call},
};

/// The lists: by time, by number, by name.
const LISTS: [Rpc; 6] = [
    Rpc::WorkflowServiceListWorkflows,
    Rpc::WorkflowServiceListSteps,
    Rpc::FsmServiceListTransitions,
    Rpc::RegistryServiceListNodes,
    Rpc::AdminServiceListRetentionPolicies,
    Rpc::AdminServiceListQuotas,
];

/// Returns a request, and the token of its second page.
async fn second_page(app: &App, rpc: Rpc, rows: &Rows) -> (Value, String) {
    let mut request = rows.fill(&sample(rpc).request(0));
    request["page_size"] = 1.into();
    let page = call(app, rpc, None, &request).await.unwrap();
    let token = page.get_field_by_name("next_page_token").unwrap();
    let token = token.as_str().unwrap().to_owned();
    assert!(!token.is_empty(), "{rpc:?} has one page only");
    request["page_token"] = token.clone().into();
    (request, token)
}

async fn app_with_rows() -> (App, Rows) {
    let app = App::start().await;
    let rows = Rows::make(&app, "team-a", None).await;
    // Quotas of namespaces that the lists do not use.
    for namespace in ["limited-a", "limited-b"] {
        for rpc in [
            Rpc::AdminServiceSetRetentionPolicy,
            Rpc::AdminServiceSetQuota,
        ] {
            let mut request = rows.fill(&sample(rpc).request(0));
            request["namespace"] = namespace.into();
            call(&app, rpc, None, &request).await.unwrap();
        }
    }
    (app, rows)
}

/// Replaces the token in an encoded request, in which JSON could not put invalid UTF-8.
fn with_token(request: &[u8], old: &str, new: &[u8]) -> Vec<u8> {
    let mut windows = request.windows(old.len());
    let at = windows.position(|it| it == old.as_bytes()).unwrap();
    let mut request = request.to_vec();
    request.splice(at..at + old.len(), new.iter().copied());
    request
}

#[tokio::test]
async fn a_page_token_with_one_wrong_bit_is_refused() {
    let (app, rows) = app_with_rows().await;
    for rpc in LISTS {
        let (request, token) = second_page(&app, rpc, &rows).await;
        let request = contract::encode(rpc, &request);
        let method = contract::method(rpc);
        raw_call(&app.channel, method, request.clone())
            .await
            .unwrap();
        for bit in 0..token.len() * 8 {
            let mut flipped = token.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let is_text = std::str::from_utf8(&flipped).is_ok();
            let request = with_token(&request, &token, &flipped);
            let refused = failure(raw_call(&app.channel, method, request).await);
            let expected = match is_text {
                true => Failure::invalid(&["page_token"]),
                false => Failure::new(Code::InvalidArgument, "MALFORMED_MESSAGE"),
            };
            assert_eq!(refused, expected, "{rpc:?} {bit}");
        }
    }
}

#[tokio::test]
async fn a_cut_page_token_is_refused() {
    let (app, rows) = app_with_rows().await;
    for rpc in LISTS {
        let (mut request, token) = second_page(&app, rpc, &rows).await;
        for length in 1..token.len() {
            request["page_token"] = token[..length].into();
            let refused = failure(call(&app, rpc, None, &request).await);
            assert_eq!(
                refused,
                Failure::invalid(&["page_token"]),
                "{rpc:?} {length}"
            );
        }
    }
}

/// Both replicas and a replica after its restart use the same database, and nothing else.
#[tokio::test]
async fn a_page_token_is_valid_on_every_replica() {
    let (app, rows) = app_with_rows().await;
    let replica = app.replica().await;
    for rpc in LISTS {
        let (request, _) = second_page(&app, rpc, &rows).await;
        let first = call(&app, rpc, None, &request).await.unwrap();
        let second = call(&replica, rpc, None, &request).await.unwrap();
        assert_eq!(first, second, "{rpc:?}");
    }
}

/// The token fits the query. Without a key, everybody could make it.
#[tokio::test]
async fn a_page_token_that_another_key_signed_is_refused() {
    let (app, rows) = app_with_rows().await;
    let another = "UPDATE page_token_key SET key = DEFAULT";
    let mut owner = app.schema.connect().await;
    owner.batch_execute(another).await.unwrap();
    let replica = app.replica().await;
    for rpc in LISTS {
        let (request, _) = second_page(&app, rpc, &rows).await;
        call(&app, rpc, None, &request).await.unwrap();
        let refused = call(&replica, rpc, None, &request).await;
        let refused = refused.expect_err("the token is invalid");
        let advice = "leave it unset to begin the list again";
        assert!(refused.message().contains(advice), "{refused:?}");
        let refused = failure(Err::<(), _>(refused));
        assert_eq!(refused, Failure::invalid(&["page_token"]), "{rpc:?}");
    }
}

#[tokio::test]
async fn replicas_that_start_for_the_first_time_together_share_a_key() {
    let schema = Schema::create().await;
    let start = || App::start_on(schema.clone(), |_| {});
    let (app, replica) = tokio::join!(start(), start());
    assert_eq!(schema.count("SELECT count(*) FROM page_token_key").await, 1);
    let rows = Rows::make(&app, "team-a", None).await;
    let (request, _) = second_page(&app, Rpc::WorkflowServiceListSteps, &rows).await;
    call(&replica, Rpc::WorkflowServiceListSteps, None, &request)
        .await
        .unwrap();
}
