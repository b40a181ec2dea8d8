//! Reads the paging fields of a list request, and makes page tokens for other requests.

use tonic::Request;

use super::validate::Validator;
use crate::{
    db::DbError,
    domain::{
        digest::RequestDigest,
        error::Error,
        page::{DEFAULT_SIZE, PageRequest, Position},
        page_token_key::PageTokenKey,
    },
    proto::PagedRequest,
};

/// Returns the key that signs page tokens, which the call layer attaches to a request.
///
/// # Errors
/// [`Error::DatabaseUnavailable`] until the service has read the key, at its start.
pub fn key_of<R>(request: &Request<R>) -> Result<PageTokenKey, Error> {
    let key = request.extensions().get::<PageTokenKey>();
    key.copied().ok_or_else(|| DbError::NotReady.into())
}

/// Takes `page_size` and `page_token` out of a list request. What is left of it, the
/// namespace included, is the query that page tokens are bound to.
pub fn read_page<R: PagedRequest, P: Position>(
    check: &mut Validator,
    request: &mut R,
) -> PageRequest<P> {
    let (size, token) = request.take_page();
    let size = check.page_size("page_size", size, DEFAULT_SIZE);
    let query = RequestDigest::of_query(R::RPC, request);
    let page = match check.page_token_key() {
        Some(key) => PageRequest::new(size, &token, query, key),
        None => Err("cannot be read or made without the key that signs page tokens"),
    };
    page.unwrap_or_else(|fault| {
        check.violation("page_token", fault);
        PageRequest::first(size, query, PageTokenKey::default())
    })
}

/// Returns the token of the page that starts after `last` in the list that `query`, a
/// request without its paging fields, asks for.
pub fn token_for<R: PagedRequest>(key: PageTokenKey, query: &R, last: impl Position) -> String {
    let query = RequestDigest::of_query(R::RPC, query);
    PageRequest::first(0, query, key).token_after(last)
}
