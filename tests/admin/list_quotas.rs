use std::num::NonZeroU32;

use bridgebook::{
    domain::role::Role,
    proto::v1::{ListQuotasRequest, ListQuotasResponse, QuotaLimits, quota::Subject},
};

use super::{
    client,
    set_quota::{of_namespace, of_token, set},
};
use crate::support::{App, Failure, failure};

async fn list(app: &App, page_token: &str) -> ListQuotasResponse {
    let request = ListQuotasRequest {
        page_size: 2,
        page_token: page_token.into(),
    };
    let answer = client(app).list_quotas(request).await;
    answer.unwrap().into_inner()
}

#[tokio::test]
async fn pages_have_namespaces_first_and_then_tokens() {
    let app = App::start().await;
    let token = app.issue(Role::Reader, &["team-a"]).await;
    set(&app, of_token(&token.id)).await.unwrap();
    for namespace in ["b", "a-2", "a"] {
        set(&app, of_namespace(namespace)).await.unwrap();
    }
    let first = list(&app, "").await;
    let second = list(&app, &first.next_page_token).await;
    assert_eq!(second.next_page_token, "");
    let all = first.quotas.into_iter().chain(second.quotas);
    let subjects: Vec<_> = all.map(|quota| quota.subject.unwrap()).collect();
    let namespace = |name: &str| Subject::Namespace(name.into());
    let expected = [
        namespace("a"),
        namespace("a-2"),
        namespace("b"),
        Subject::TokenId(token.id.clone()),
    ];
    assert_eq!(subjects, expected);
}

#[tokio::test]
async fn the_defaults_of_the_settings_are_beside_the_quotas() {
    let app = App::start_with(|config| {
        let quotas = &mut config.limits.quotas;
        quotas.namespace.items_per_second = NonZeroU32::new(5_000);
        quotas.namespace.calls_in_progress = NonZeroU32::new(90);
        quotas.token.calls_per_second = NonZeroU32::new(200);
    });
    let app = app.await;
    let listed = list(&app, "").await;
    let namespaces = QuotaLimits {
        calls_per_second: None,
        items_per_second: Some(5_000),
        calls_in_progress: Some(90),
    };
    let tokens = QuotaLimits {
        calls_per_second: Some(200),
        ..QuotaLimits::default()
    };
    assert_eq!(listed.namespace_defaults, Some(namespaces));
    assert_eq!(listed.token_defaults, Some(tokens));
}

#[tokio::test]
async fn a_page_token_of_another_list_is_refused() {
    let app = App::start().await;
    let request = ListQuotasRequest {
        page_token: "made up".into(),
        ..ListQuotasRequest::default()
    };
    let refused = client(&app).list_quotas(request).await;
    assert_eq!(failure(refused), Failure::invalid(&["page_token"]));
}
