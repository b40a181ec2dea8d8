//! The head of a request: its target, and the size of its headers.

use http::{Request, Uri};

/// Size that HTTP/2 counts for a header beside its name and its value, in bytes (RFC 9113, section
/// 6.5.2).
const HEADER_OVERHEAD: usize = 32;

/// Returns the path with its query. That of a method has none.
#[must_use]
pub fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", |target| target.as_str())
}

/// Returns the size of a request's headers as HTTP/2 counts it. The path counts as a whole; the
/// other pseudo-headers are short.
#[must_use]
pub fn header_bytes<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |it| it.as_str().len());
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD);
    target(uri).len() + authority + headers.sum::<usize>()
}
