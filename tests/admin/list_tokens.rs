use bridgebook::proto::v1::{ListTokensRequest, ListTokensResponse, RevokeTokenRequest, Role};

use diesel_async::SimpleAsyncConnection;

use super::{
    client,
    create_token::{create, wanted},
};
use crate::support::{App, Failure, failure};

async fn list(app: &App, request: ListTokensRequest) -> ListTokensResponse {
    let answer = client(app).list_tokens(request).await;
    answer.unwrap().into_inner()
}

fn ids(answer: &ListTokensResponse) -> Vec<&str> {
    answer
        .tokens
        .iter()
        .map(|token| token.id.as_str())
        .collect()
}

#[tokio::test]
async fn tokens_are_listed_newest_first_in_pages() {
    let app = App::start().await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.insert(0, create(&app, wanted()).await.token.unwrap().id);
    }
    let mut request = ListTokensRequest {
        page_size: 2,
        ..ListTokensRequest::default()
    };
    let mut listed: Vec<String> = Vec::new();
    loop {
        let page = list(&app, request.clone()).await;
        assert!(page.tokens.len() <= 2);
        listed.extend(ids(&page).into_iter().map(str::to_owned));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn active_only_omits_revoked_and_expired_tokens() {
    let app = App::start().await;
    let good = create(&app, wanted()).await.token.unwrap();
    let revoked = create(&app, wanted()).await.token.unwrap();
    let request = RevokeTokenRequest { id: revoked.id };
    client(&app).revoke_token(request).await.unwrap();
    create(&app, wanted()).await;
    let expire = "UPDATE api_tokens SET expires_at = now()
                   WHERE created_at = (SELECT max(created_at) FROM api_tokens)";
    let mut connection = app.schema.connect().await;
    diesel_async::SimpleAsyncConnection::batch_execute(&mut connection, expire)
        .await
        .unwrap();
    let request = ListTokensRequest {
        active_only: true,
        ..ListTokensRequest::default()
    };
    assert_eq!(ids(&list(&app, request).await), [good.id]);
    assert_eq!(
        list(&app, ListTokensRequest::default()).await.tokens.len(),
        3
    );
}

#[tokio::test]
async fn a_page_token_is_valid_only_for_its_own_query() {
    let app = App::start().await;
    for _ in 0..2 {
        create(&app, wanted()).await;
    }
    let request = ListTokensRequest {
        page_size: 1,
        ..ListTokensRequest::default()
    };
    let page = list(&app, request).await;
    for (active_only, page_token) in [(true, page.next_page_token), (false, "x".into())] {
        let request = ListTokensRequest {
            active_only,
            page_token,
            ..ListTokensRequest::default()
        };
        let failed = failure(client(&app).list_tokens(request).await);
        assert_eq!(failed, Failure::invalid(&["page_token"]));
    }
}

#[tokio::test]
async fn a_role_that_only_a_newer_version_knows_is_unspecified() {
    let app = App::start().await;
    let mut expected = Vec::new();
    for _ in 0..2 {
        expected.push(create(&app, wanted()).await.token.unwrap().id);
    }
    let newer = format!(
        "ALTER TABLE api_tokens DROP CONSTRAINT api_tokens_role_check;
         UPDATE api_tokens SET role = 'AUDITOR' WHERE id = '{}'",
        expected[1]
    );
    app.schema
        .connect()
        .await
        .batch_execute(&newer)
        .await
        .unwrap();
    let page = list(&app, ListTokensRequest::default()).await;
    assert_eq!(ids(&page), [&expected[1], &expected[0]]);
    assert_eq!(page.tokens[0].role(), Role::Unspecified);
    assert_ne!(page.tokens[1].role(), Role::Unspecified);
}
