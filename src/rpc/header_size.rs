//! The size of the headers of a call.

use http::{HeaderMap, Request, Uri};

/// Size that HTTP/2 counts for a header beside its name and its value, in bytes (RFC 9113, section
/// 6.5.2).
const HEADER_OVERHEAD: usize = 32;

/// Returns the size of a request's headers as HTTP/2 counts it. The path counts as a whole; the
/// other pseudo-headers are short.
#[must_use]
pub fn header_bytes<B>(request: &Request<B>) -> usize {
    of_target(request.uri()) + of_headers(request.headers())
}

fn of_target(uri: &Uri) -> usize {
    let path = uri.path_and_query().map_or(0, |it| it.as_str().len());
    path + uri.authority().map_or(0, |it| it.as_str().len())
}

fn of_headers(headers: &HeaderMap) -> usize {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD);
    sizes.sum()
}
