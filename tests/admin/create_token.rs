use bridgebook::{
    proto::v1::{ApiToken, CreateTokenRequest, CreateTokenResponse, Role},
    rpc::auth::credential::Credential,
};
use prost_types::Timestamp;

use super::client;
use crate::support::{App, Failure, failure, new_id};

pub fn wanted() -> CreateTokenRequest {
    CreateTokenRequest {
        name: "orchestrators of team a".into(),
        role: Role::Writer.into(),
        namespaces: vec!["team-a".into(), "team-a/*".into()],
        ..CreateTokenRequest::default()
    }
}

pub async fn create(app: &App, request: CreateTokenRequest) -> CreateTokenResponse {
    let answer = client(app).create_token(request).await;
    answer.unwrap().into_inner()
}

async fn refused(app: &App, request: CreateTokenRequest) -> Failure {
    failure(client(app).create_token(request).await)
}

#[tokio::test]
async fn the_response_has_the_token_and_its_credential() {
    let app = App::start().await;
    let expires_at = Some(Timestamp {
        seconds: 4_102_444_800,
        nanos: 0,
    });
    let request = CreateTokenRequest {
        expires_at,
        ..wanted()
    };
    let answer = create(&app, request.clone()).await;
    let token = answer.token.unwrap();
    assert!(token.created_at.is_some());
    let expected = ApiToken {
        id: token.id.clone(),
        name: request.name,
        role: request.role,
        namespaces: request.namespaces,
        created_at: token.created_at,
        expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    assert_eq!(token, expected);
    let credential = Credential::parse(&answer.credential).unwrap();
    assert_eq!(credential.id.to_string(), token.id);
}

#[tokio::test]
async fn the_database_does_not_contain_the_secret() {
    let app = App::start().await;
    let answer = create(&app, wanted()).await;
    let (_, secret) = answer.credential.rsplit_once('_').unwrap();
    let text = format!("SELECT count(*) FROM api_tokens t WHERE t::text LIKE '%{secret}%'");
    assert_eq!(app.schema.count(&text).await, 0);
    let digest = format!(
        "SELECT count(*) FROM api_tokens WHERE secret_sha256 = sha256(decode('{secret}', 'hex'))"
    );
    assert_eq!(app.schema.count(&digest).await, 1);
}

#[tokio::test]
async fn a_retry_under_a_chosen_id_does_not_make_a_second_token() {
    let app = App::start().await;
    let request = CreateTokenRequest {
        id: new_id(),
        ..wanted()
    };
    let answer = create(&app, request.clone()).await;
    assert_eq!(answer.token.unwrap().id, request.id);
    assert_eq!(refused(&app, request).await, Failure::id_conflict());
}

#[tokio::test]
async fn an_admin_token_covers_every_namespace() {
    let app = App::start().await;
    for namespaces in [vec![], vec!["*".to_owned()]] {
        let request = CreateTokenRequest {
            role: Role::Admin.into(),
            namespaces,
            ..wanted()
        };
        let token = create(&app, request).await.token.unwrap();
        assert_eq!(token.namespaces, ["*"]);
    }
    let request = CreateTokenRequest {
        role: Role::Admin.into(),
        ..wanted()
    };
    assert_eq!(
        refused(&app, request).await,
        Failure::invalid(&["namespaces"])
    );
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let app = App::start().await;
    let with = |change: fn(&mut CreateTokenRequest)| {
        let mut request = wanted();
        change(&mut request);
        request
    };
    for (request, field) in [
        (with(|it| it.id = "7".into()), "id"),
        (with(|it| it.name = "a\0b".into()), "name"),
        (with(|it| it.name = "a\nb".into()), "name"),
        (with(|it| it.name = "ü".repeat(101)), "name"),
        (with(|it| it.role = 0), "role"),
        (with(|it| it.role = 99), "role"),
        (with(|it| it.namespaces = vec![]), "namespaces"),
        (
            with(|it| it.namespaces = vec!["a".into(); 101]),
            "namespaces",
        ),
        (with(|it| it.namespaces[1] = "**".into()), "namespaces[1]"),
        (with(|it| it.namespaces[1] = "a*b".into()), "namespaces[1]"),
        (
            with(|it| it.namespaces[1] = "bridgebook.registry".into()),
            "namespaces[1]",
        ),
        (
            with(|it| it.namespaces[1] = "bridgebook.*".into()),
            "namespaces[1]",
        ),
        (with(|it| it.namespaces[1] = "".into()), "namespaces[1]"),
        (with(|it| it.namespaces[1] = "a\0".into()), "namespaces[1]"),
        (
            with(|it| it.namespaces[1] = "a".repeat(256)),
            "namespaces[1]",
        ),
        (
            with(|it| {
                it.expires_at = Some(Timestamp {
                    seconds: 1,
                    nanos: 0,
                })
            }),
            "expires_at",
        ),
        (
            with(|it| {
                it.expires_at = Some(Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                })
            }),
            "expires_at",
        ),
    ] {
        let failed = refused(&app, request.clone()).await;
        assert_eq!(failed, Failure::invalid(&[field]), "{request:?}");
    }
    assert_eq!(app.schema.count("SELECT count(*) FROM api_tokens").await, 0);
}

/// "bridgebook*" covers names such as "bridgebook-demo", which are a tenant's.
#[tokio::test]
async fn a_bad_pattern_is_quoted_whole_and_a_prefix_of_reserved_names_is_accepted() {
    let app = App::start().await;
    let with = |pattern: &str| CreateTokenRequest {
        namespaces: vec![pattern.into()],
        ..wanted()
    };
    for (pattern, end) in [
        ("**", "or *; got \"**\""),
        ("bridgebook.x*", "which is reserved, got \"bridgebook.x*\""),
    ] {
        let refused = client(&app).create_token(with(pattern)).await.unwrap_err();
        assert!(refused.message().ends_with(end), "{}", refused.message());
    }
    create(&app, with("bridgebook*")).await;
}
