//! What every RPC answers to whoever asks for nothing special.

use crate::support::{App, Failure, failure, methods, raw_call};

#[tokio::test]
async fn an_empty_request_is_answered_or_told_what_it_lacks() {
    let app = App::start().await;
    let methods = methods().into_iter();
    for method in methods.filter(|method| method.contains("AdminService")) {
        let lacks: &[&str] = match method.rsplit_once('/').unwrap().1 {
            "CreateToken" => &["name", "role", "namespaces"],
            "RevokeToken" => &["id"],
            "SetRetentionPolicy" | "DeleteRetentionPolicy" => &["namespace", "table"],
            _ => &[],
        };
        let answer = raw_call(&app.channel, &method, Vec::new()).await;
        match lacks {
            [] => drop(answer.unwrap_or_else(|status| panic!("{method}: {status:?}"))),
            lacks => assert_eq!(failure(answer), Failure::invalid(lacks), "{method}"),
        }
    }
}
