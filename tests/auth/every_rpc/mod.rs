//! For every RPC of the contract: who is let in, and what another tenant's ids tell.

mod requests;
mod world;

use bridgebook::{domain::role::Role, proto::Rpc};
use chrono::{TimeDelta, Utc};
use prost_reflect::DynamicMessage;
use serde_json::Value;
use tonic::{Code, Status};

use self::{
    requests::{Field, message, output, template},
    world::World,
};
use crate::support::{App, Failure, failure, is_tenant_call, new_id, raw_call_as};

/// Calls an RPC with its request as JSON.
async fn call(
    app: &App,
    rpc: Rpc,
    credential: Option<&str>,
    request: &Value,
) -> Result<DynamicMessage, Status> {
    let method = rpc.path().trim_start_matches('/');
    let bytes = message(rpc, request);
    let answer = raw_call_as(&app.channel, credential, method, bytes).await?;
    Ok(output(rpc, &answer))
}

/// What the role has to be, by the name of the RPC.
fn needed(rpc: Rpc) -> Role {
    let (service, method) = rpc.path().rsplit_once('/').unwrap();
    let reads = ["Get", "List", "Discover"];
    match service.ends_with("AdminService") {
        true => Role::Admin,
        false if reads.iter().any(|verb| method.starts_with(verb)) => Role::Reader,
        false => Role::Writer,
    }
}

#[tokio::test]
async fn only_who_shows_a_good_token_of_the_role_and_the_namespace_is_let_in() {
    let app = App::guarded().await;
    let own = World::new(&app, "own").await;
    let soon = Some(Utc::now() + TimeDelta::milliseconds(1));
    let expired = app.issue_until(Role::Admin, &["*"], soon).await;
    let revoked = app.issue(Role::Admin, &["*"]).await;
    app.revoke(&revoked).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let writer = app.issue(Role::Writer, &["own"]).await;
    let reader = app.issue(Role::Reader, &["own"]).await;
    for rpc in Rpc::ALL {
        let request = own.fill(&template(*rpc));
        let refused = async |credential: Option<&str>, request: &Value| {
            failure(call(&app, *rpc, credential, request).await)
        };
        for (credential, reason) in [
            (None, "CREDENTIAL_MISSING"),
            (Some(expired.credential.as_str()), "CREDENTIAL_EXPIRED"),
            (Some(revoked.credential.as_str()), "CREDENTIAL_REVOKED"),
        ] {
            let expected = Failure::new(Code::Unauthenticated, reason);
            assert_eq!(refused(credential, &request).await, expected, "{rpc:?}");
        }
        for (token, role) in [
            (&reader, Role::Reader),
            (&writer, Role::Writer),
            (&admin, Role::Admin),
        ] {
            let answer = call(&app, *rpc, Some(&token.credential), &request).await;
            let too_low = answer
                .as_ref()
                .is_err_and(|status| status.code() == Code::PermissionDenied);
            assert_eq!(too_low, role < needed(*rpc), "{rpc:?} {role:?} {answer:?}");
            if too_low {
                let expected = Failure::new(Code::PermissionDenied, "ROLE_TOO_LOW");
                assert_eq!(failure(answer), expected, "{rpc:?}");
            }
        }
        if is_tenant_call(*rpc) {
            let mut foreign = request.clone();
            foreign["namespace"] = "foreign".into();
            let expected = Failure::new(Code::PermissionDenied, "NAMESPACE_DENIED");
            let refused = refused(Some(&writer.credential), &foreign).await;
            assert_eq!(refused, expected, "{rpc:?}");
        }
    }
}

#[tokio::test]
async fn an_id_of_another_tenant_tells_nothing() {
    let app = App::guarded().await;
    let own = World::new(&app, "own").await;
    let writer = app.issue(Role::Writer, &["own"]).await;
    let credential = Some(writer.credential.as_str());
    let tenants = Rpc::ALL.iter().filter(|rpc| is_tenant_call(**rpc));
    for rpc in tenants {
        let template = template(*rpc);
        for field in requests::fields(*rpc, &template) {
            let about = format!("{rpc:?} {field:?}");
            let with = async |value: &str| {
                let request = field.set(&own.fill(&template), value);
                let answer = call(&app, *rpc, credential, &request).await;
                told(answer, value)
            };
            // One whose ids nobody has used yet.
            let foreign = World::new(&app, &format!("foreign-{}", new_id())).await;
            let theirs = foreign.value(*rpc, &field.kind);
            match field.expectation() {
                requests::Foreign::Nothing => {
                    let fresh = world::fresh(&field.kind);
                    assert_eq!(with(&theirs).await, with(&fresh).await, "{about}");
                }
                requests::Foreign::Taken(reason) => {
                    let answer = with(&theirs).await;
                    assert!(answer.contains(reason), "{about}: {answer}");
                }
                requests::Foreign::Public => {
                    let answer = with(&theirs).await;
                    assert!(answer.contains("SENT"), "{about}: {answer}");
                    assert!(!answer.contains("NotFound"), "{about}: {answer}");
                }
            }
        }
    }
}

/// What an answer tells, whatever its ids and times are.
fn told(answer: Result<DynamicMessage, Status>, sent: &str) -> String {
    let mut told = match answer {
        Ok(answer) => format!("{answer:#}"),
        Err(status) => {
            let details = String::from_utf8_lossy(status.details());
            format!("{:?}: {} {details}", status.code(), status.message())
        }
    };
    told = told.replace(sent, "SENT");
    scrub_ids(&mut told);
    let lines = told.lines();
    let lines = lines.filter(|line| {
        let line = line.trim_start();
        !line.starts_with("seconds:") && !line.starts_with("nanos:")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Hides ids that the server made, such as the request's.
fn scrub_ids(text: &mut String) {
    const LENGTH: usize = 36;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| rest.len() >= LENGTH) {
        let id = rest.get(..LENGTH);
        if id.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok()) {
            text.replace_range(at..at + LENGTH, "ID");
        }
        at += 1;
        while at < text.len() && !text.is_char_boundary(at) {
            at += 1;
        }
    }
}

#[test]
fn every_field_that_bears_an_id_is_in_its_request() {
    for rpc in Rpc::ALL.iter().filter(|rpc| needed(**rpc) < Role::Admin) {
        let fields = requests::fields(*rpc, &template(*rpc));
        let mut paths: Vec<_> = fields.iter().map(Field::name).collect();
        paths.sort();
        assert_eq!(paths, requests::id_bearing(*rpc), "{rpc:?}");
    }
}
