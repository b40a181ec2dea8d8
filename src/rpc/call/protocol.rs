//! Rejects HTTP requests that are not gRPC calls.

use http::{Method, StatusCode, header::CONTENT_TYPE};

/// Rejects a request that is not a gRPC call. A browser cannot make one by itself, so a
/// web page cannot make a browser call us with its user's client certificate.
///
/// # Errors
/// The HTTP status of the rejection.
pub(super) fn require_grpc<B>(request: &http::Request<B>) -> Result<(), StatusCode> {
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let content_type = request.headers().get(CONTENT_TYPE);
    let content_type = content_type.and_then(|it| it.to_str().ok());
    let rest = content_type.and_then(|it| it.strip_prefix("application/grpc"));
    match rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';'])) {
        true => Ok(()),
        false => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_calls_are_accepted() {
        let rejection = |method: &str, content_type: &str| {
            let request = http::Request::builder().method(method);
            let request = request.header(CONTENT_TYPE, content_type).body(());
            require_grpc(&request.unwrap()).err()
        };
        for good in ["", "+proto", ";charset=utf-8"] {
            assert_eq!(rejection("POST", &format!("application/grpc{good}")), None);
        }
        let not_allowed = Some(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(rejection("GET", "application/grpc"), not_allowed);
        assert_eq!(rejection("PUT", "application/grpc"), not_allowed);
        for bad in ["text/plain", "application/json", "application/grpc-web", ""] {
            let unsupported = Some(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert_eq!(rejection("POST", bad), unsupported, "{bad}");
        }
    }
}
