//! Collects a page of a list from the rows of a query.

use diesel::QueryResult;
use futures_util::{Stream, TryStreamExt, pin_mut};

use crate::{
    domain::page::{MAX_BYTES, Page, PageRequest, PageRow},
    util::pace::Pace,
};

/// Collects a page from a query with the limit `page.size + 1`. Ends the page early when its
/// rows exceed [`MAX_BYTES`], and leaves the remaining rows unread.
///
/// # Errors
/// The error of a row.
pub async fn collect_page<T: PageRow>(
    rows: impl Stream<Item = QueryResult<T>>,
    page: &PageRequest<T::Position>,
) -> QueryResult<Page<T>> {
    pin_mut!(rows);
    let mut taken: Vec<T> = Vec::new();
    let mut bytes = 0;
    let mut pace = Pace::default();
    while let Some(row) = rows.try_next().await? {
        bytes += row.size();
        pace.pause_if_due().await;
        let is_cut = bytes > MAX_BYTES;
        let is_full = taken.len() as i64 == page.size || is_cut;
        if let Some(last) = taken.last().filter(|_| is_full) {
            let next_page_token = page.token_after(last.position());
            return Ok(Page {
                rows: taken,
                next_page_token,
                is_cut,
            });
        }
        taken.push(row);
    }
    Ok(Page {
        rows: taken,
        next_page_token: String::new(),
        is_cut: false,
    })
}
