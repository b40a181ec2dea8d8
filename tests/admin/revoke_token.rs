use bridgebook::proto::v1::{ApiToken, RevokeTokenRequest};
use tonic::{Code, Status};

use super::{
    client,
    create_token::{create, wanted},
};
use crate::support::{App, Failure, failure, new_id};

async fn revoke(app: &App, id: &str) -> Result<ApiToken, Status> {
    let request = RevokeTokenRequest { id: id.to_owned() };
    let answer = client(app).revoke_token(request).await;
    answer.map(|answer| answer.into_inner().token.unwrap())
}

#[tokio::test]
async fn a_second_revocation_keeps_the_time_of_the_first() {
    let app = App::start().await;
    let token = create(&app, wanted()).await.token.unwrap();
    let revoked = revoke(&app, &token.id).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(revoke(&app, &token.id).await.unwrap(), revoked);
    let expected = ApiToken {
        revoked_at: revoked.revoked_at,
        ..token
    };
    assert_eq!(revoked, expected);
}

#[tokio::test]
async fn an_unknown_token_is_not_found() {
    let app = App::start().await;
    let failed = failure(revoke(&app, &new_id()).await);
    assert_eq!(failed, Failure::new(Code::NotFound, "TOKEN_NOT_FOUND"));
    for id in ["", "7", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(failure(revoke(&app, id).await), Failure::invalid(&["id"]));
    }
}
