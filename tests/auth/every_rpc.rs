//! Who may call each RPC of the contract, and what it reveals of another tenant's rows.

use bridgebook::{domain::role::Role, proto::Rpc};
use chrono::{TimeDelta, Utc};
use prost_reflect::DynamicMessage;
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    samples::{Foreign, Rows, call, fields, sample, unused},
    support::{App, Failure, Issued, contract, failure, new_id},
};

/// Returns the role that an RPC requires, by its name. The service takes it from the
/// contract's `idempotency_level`.
fn required_role(rpc: Rpc) -> Role {
    let (service, method) = rpc.path().rsplit_once('/').unwrap();
    let reads = ["Get", "List", "Discover", "Watch"];
    match service.ends_with("AdminService") {
        true => Role::Admin,
        false if reads.iter().any(|verb| method.starts_with(verb)) => Role::Reader,
        false => Role::Writer,
    }
}

#[tokio::test]
async fn a_call_needs_a_valid_token_of_the_role_and_the_namespace() {
    let app = App::guarded().await;
    let soon = Some(Utc::now() + TimeDelta::milliseconds(1));
    let expired = app.issue_until(Role::Admin, &["*"], soon).await;
    let revoked = app.issue(Role::Admin, &["*"]).await;
    app.revoke(&revoked).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    let writer = app.issue(Role::Writer, &["own"]).await;
    let reader = app.issue(Role::Reader, &["own"]).await;
    let own = Rows::make(&app, "own", Some(&writer.credential)).await;
    for rpc in Rpc::ALL {
        let request = own.fill(&sample(*rpc).request(0));
        for (credential, reason) in [
            (None, "CREDENTIAL_MISSING"),
            (Some(expired.credential.as_str()), "CREDENTIAL_EXPIRED"),
            (Some(revoked.credential.as_str()), "CREDENTIAL_REVOKED"),
        ] {
            let refused = failure(call(&app, *rpc, credential, &request).await);
            let expected = Failure::new(Code::Unauthenticated, reason);
            assert_eq!(refused, expected, "{rpc:?}");
        }
        let tokens = [
            (&reader, Role::Reader),
            (&writer, Role::Writer),
            (&admin, Role::Admin),
        ];
        for token in tokens {
            assert_role(&app, *rpc, &request, token).await;
        }
    }
    for rpc in contract::tenant_rpcs() {
        let mut foreign = own.fill(&sample(rpc).request(0));
        foreign["namespace"] = "foreign".into();
        let refused = failure(call(&app, rpc, Some(&writer.credential), &foreign).await);
        let expected = Failure::new(Code::PermissionDenied, "NAMESPACE_DENIED");
        assert_eq!(refused, expected, "{rpc:?}");
    }
}

async fn assert_role(app: &App, rpc: Rpc, request: &Value, (token, role): (&Issued, Role)) {
    let answer = call(app, rpc, Some(&token.credential), request).await;
    let denied = answer
        .as_ref()
        .is_err_and(|status| status.code() == Code::PermissionDenied);
    assert_eq!(
        denied,
        role < required_role(rpc),
        "{rpc:?} {role:?} {answer:?}"
    );
    if denied {
        let expected = Failure::new(Code::PermissionDenied, "ROLE_TOO_LOW");
        assert_eq!(failure(answer), expected, "{rpc:?}");
    }
}

#[tokio::test]
async fn an_id_of_another_tenant_reveals_nothing() {
    let app = App::guarded().await;
    let writer = app.issue(Role::Writer, &["own"]).await;
    let credential = Some(writer.credential.as_str());
    let own = Rows::make(&app, "own", credential).await;
    let admin = app.issue(Role::Admin, &["*"]).await;
    for rpc in contract::tenant_rpcs() {
        for field in fields(rpc) {
            let about = format!("{rpc:?} {field:?}");
            let with = async |value: &str| {
                let request = field.request(rpc, &own, value);
                let answer = call(&app, rpc, credential, &request).await;
                revealed(answer, value)
            };
            // New rows for each field, so that no earlier request has used their ids.
            let namespace = format!("foreign-{}", new_id());
            let foreign = Rows::make(&app, &namespace, Some(&admin.credential)).await;
            let theirs = foreign.value(rpc, &field.kind);
            let answer = with(&theirs).await;
            match field.foreign() {
                Foreign::Unused => {
                    assert_eq!(answer, with(&unused(&field.kind)).await, "{about}");
                }
                Foreign::Taken(reason) => assert!(answer.contains(reason), "{about}: {answer}"),
                Foreign::Public => {
                    assert!(answer.contains("SENT"), "{about}: {answer}");
                    assert!(!answer.contains("NotFound"), "{about}: {answer}");
                }
            }
        }
    }
}

/// Returns what an answer reveals, without ids, times and positions.
fn revealed(answer: Result<DynamicMessage, Status>, sent: &str) -> String {
    let mut text = match answer {
        Ok(answer) => format!("{answer:#}"),
        Err(status) => {
            let details = String::from_utf8_lossy(status.details());
            format!("{:?}: {} {details}", status.code(), status.message())
        }
    };
    text = text.replace(sent, "SENT");
    scrub_ids(&mut text);
    let lines = text.lines();
    let lines = lines.filter(|line| {
        let of_the_call = ["seconds:", "nanos:", "position:"];
        !of_the_call
            .iter()
            .any(|name| line.trim_start().starts_with(name))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Replaces ids that the server chose, such as the request id.
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
fn every_field_that_names_a_row_is_marked_in_its_sample() {
    for rpc in contract::tenant_rpcs() {
        let marked = fields(rpc).iter().map(|field| field.path()).collect();
        assert_eq!(contract::id_paths(rpc), marked, "{rpc:?}");
    }
}
