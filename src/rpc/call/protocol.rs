//! Rejects requests that are not gRPC calls, or not the gRPC that this server speaks.

use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use tonic::{Status, body::Body};

use crate::{
    domain::error::{Error, ProtocolError},
    rpc::request_head::{header_bytes, target},
    util::excerpt::{MAX_VALUE, excerpt},
};

/// A rejected request.
#[derive(Debug)]
pub(super) struct Rejection {
    error: ProtocolError,
    /// The HTTP status, for clients that do not speak gRPC.
    http_status: StatusCode,
}

/// Checks a request before anything else is done with it.
///
/// A browser cannot make a gRPC call by itself. A web page therefore cannot make a browser call us
/// with its user's client certificate.
///
/// # Errors
/// A [`Rejection`] for another method than POST, for another format of messages, for a path with a
/// query, and for headers of more than `max_header_bytes`.
pub(super) fn check<B>(request: &Request<B>, max_header_bytes: usize) -> Result<(), Rejection> {
    let rejection = |error, http_status| Err(Rejection { error, http_status });
    if header_bytes(request) > max_header_bytes {
        let error = ProtocolError::HeadersTooLarge(max_header_bytes);
        return rejection(error, StatusCode::OK);
    }
    if request.method() != Method::POST {
        let error = ProtocolError::HttpMethod(excerpt(request.method().as_str(), MAX_VALUE));
        return rejection(error, StatusCode::METHOD_NOT_ALLOWED);
    }
    let value = match content_type(request.headers()) {
        Ok(value) => value,
        Err(error) => return rejection(error, StatusCode::UNSUPPORTED_MEDIA_TYPE),
    };
    let unsupported = || ProtocolError::ContentType(excerpt(&value, MAX_VALUE));
    match Format::of(&value) {
        Format::Protobuf => {}
        // The client speaks gRPC, and reads its status rather than that of HTTP.
        Format::OtherGrpc => return rejection(unsupported(), StatusCode::OK),
        Format::Other => return rejection(unsupported(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
    // Routing ignores a query, which gRPC does not have.
    if request.uri().query().is_some() {
        let error = ProtocolError::UnknownMethod(excerpt(target(request.uri()), MAX_VALUE));
        return rejection(error, StatusCode::OK);
    }
    Ok(())
}

impl Rejection {
    /// Makes the response: a gRPC status with details, under the HTTP status.
    pub(super) fn into_response(self) -> http::Response<Body> {
        let mut response = Status::from(Error::Protocol(self.error)).into_http();
        *response.status_mut() = self.http_status;
        if self.http_status == StatusCode::METHOD_NOT_ALLOWED {
            let post = HeaderValue::from_static("POST");
            response.headers_mut().insert(ALLOW, post);
        }
        response
    }
}

/// The format of a call's messages.
enum Format {
    /// Protobuf, which is also the default.
    Protobuf,
    /// Another format of gRPC, such as `application/grpc+json`.
    OtherGrpc,
    /// Not gRPC.
    Other,
}

impl Format {
    /// Reads a content type, in lower case.
    fn of(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.strip_prefix("application/grpc") {
            Some("" | "+proto") => Format::Protobuf,
            Some(rest) if rest.starts_with('+') => Format::OtherGrpc,
            _ => Format::Other,
        }
    }
}

/// Returns the content type in lower case. Fails if it is absent or repeated.
fn content_type(headers: &HeaderMap) -> Result<String, ProtocolError> {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    match (all.next(), all.count()) {
        (None, _) => Err(ProtocolError::NoContentType),
        (Some(value), 0) => Ok(String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase()),
        (Some(_), others) => Err(ProtocolError::ManyContentTypes(others + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1024;

    fn rejection(request: http::request::Builder) -> Option<(StatusCode, ProtocolError)> {
        let rejected = check(&request.body(()).unwrap(), LIMIT).err()?;
        Some((rejected.http_status, rejected.error))
    }

    #[test]
    fn only_grpc_calls_with_protobuf_are_accepted() {
        let status = |method: &str, content_type: &str| {
            let request = Request::builder().method(method);
            let rejected = rejection(request.header(CONTENT_TYPE, content_type))?;
            Some(rejected.0.as_u16())
        };
        for good in ["", "+proto", ";charset=utf-8", "+proto; charset=utf-8"] {
            assert_eq!(status("POST", &format!("application/grpc{good}")), None);
        }
        assert_eq!(status("POST", "Application/gRPC"), None);
        assert_eq!(status("GET", "application/grpc"), Some(405));
        assert_eq!(status("PUT", "application/grpc"), Some(405));
        for other in ["+json", "+thrift", "+", "+protox", "+json;a=b"] {
            let status = status("POST", &format!("application/grpc{other}"));
            assert_eq!(status, Some(200), "{other}");
        }
        for bad in ["text/plain", "application/json", "application/grpc-web", ""] {
            assert_eq!(status("POST", bad), Some(415), "{bad}");
        }
    }

    #[test]
    fn headers_are_measured_as_http_2_does() {
        let with_length = |length: usize| {
            let request = Request::post("/a.B/C").header(CONTENT_TYPE, "application/grpc");
            let used = "/a.B/C".len() + "content-type".len() + "application/grpc".len() + 32;
            let value = "x".repeat(length - used - "x".len() - 32);
            rejection(request.header("x", value))
        };
        assert_eq!(with_length(LIMIT), None);
        let (status, error) = with_length(LIMIT + 1).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(error, ProtocolError::HeadersTooLarge(LIMIT));
        let long = format!("/{}", "x".repeat(LIMIT));
        assert!(rejection(Request::post(long)).is_some());
    }
}
