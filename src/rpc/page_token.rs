//! Reads the paging fields of a list request, and makes page tokens for other requests.

use super::validate::Validator;
use crate::{
    domain::{
        digest::RequestDigest,
        page::{DEFAULT_SIZE, PageRequest, Position},
    },
    proto::PagedRequest,
};

/// Takes `page_size` and `page_token` out of a list request. What is left of it, the
/// namespace included, is the query that page tokens are bound to.
pub fn read_page<R: PagedRequest, P: Position>(
    check: &mut Validator,
    request: &mut R,
) -> PageRequest<P> {
    let (size, token) = request.take_page();
    let size = check.page_size("page_size", size, DEFAULT_SIZE);
    let query = RequestDigest::of_query(R::RPC, request);
    let page = PageRequest::new(size, &token, query);
    page.unwrap_or_else(|fault| {
        check.violation("page_token", fault);
        PageRequest::first(size, query)
    })
}

/// Returns the token of the page that starts after `last` in the list that `query`, a
/// request without its paging fields, asks for.
pub fn token_for<R: PagedRequest>(query: &R, last: impl Position) -> String {
    let query = RequestDigest::of_query(R::RPC, query);
    PageRequest::first(0, query).token_after(last)
}
