//! Parses requests with one item or with a batch, submits the valid items, and responds. Each item
//! of a batch succeeds or fails by itself. Reads respond in the same way.

use std::{mem, sync::Arc};

use prost::Message;

use super::{slices, validate::Validator};
use crate::{
    db::batch::{
        self, Batcher, Operation,
        reservation::{Held, Reservation},
    },
    domain::{
        error::{Cause, Error, Result},
        limits::{MAX_BATCH, MAX_BATCH_BYTES},
        namespace::Scoped,
        page::{Page, PageRow},
        violation::Violations,
    },
    proto::Parts,
    util::pace::SLICE_BYTES,
};

/// Number of results of a batch in a slice of the response. Most have a few hundred bytes.
const SLICE_RESULTS: usize = 64;

/// Converts the required item of a request that is not a batch.
pub fn parse_item<R: Default, T>(
    item: Option<R>,
    field: &str,
    check: &mut Validator,
    convert: impl Fn(R, &mut Validator) -> T,
) -> T {
    match item {
        Some(item) => check.within(field, |check| convert(item, check)),
        None => {
            check.violation(field, "is required");
            // A placeholder, of which only the violation above is reported.
            convert(R::default(), &mut check.for_item(field))
        }
    }
}

/// Converts the items of a batch. The violations of an item are its own result; an empty
/// or oversized batch is a violation of the request.
pub fn parse_items<R: Message, T>(
    items: Vec<R>,
    field: &str,
    check: &mut Validator,
    convert: impl Fn(R, &mut Validator) -> T,
) -> Vec<Result<T, Violations>> {
    check.item_count(field, items.len());
    let bytes = items.iter().map(Message::encoded_len).sum::<usize>();
    if bytes > MAX_BATCH_BYTES {
        let rule = format!("must be at most {MAX_BATCH_BYTES} bytes together, got {bytes}");
        check.violation(field, rule);
    }
    let items = items.into_iter().take(MAX_BATCH).enumerate();
    let items = items.map(|(index, item)| {
        let mut check = check.for_item(&format!("{field}[{index}]"));
        let item = convert(item, &mut check);
        check.finish(item)
    });
    items.collect()
}

/// The results of a batch, in the order of its items.
#[derive(Debug)]
pub struct BatchResults<T>(Vec<Result<T>>);

/// The first internal cause of a failed item. The call log finds it among the extensions
/// of the response.
#[derive(Debug, Clone)]
pub struct ItemCause(pub Arc<Cause>);

impl<T> BatchResults<T> {
    /// Makes the response of the results, with the first cause for the call log.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the call only reads, see [`slices::respond`].
    pub async fn into_response<M>(self) -> Result<tonic::Response<M>>
    where
        M: Parts + Default + From<Vec<Result<T>>>,
    {
        let mut failures = self.0.iter().filter_map(|result| result.as_ref().err());
        let cause = failures.find_map(Error::cause);
        let size = |_: &_| SLICE_BYTES / SLICE_RESULTS;
        let messages = slices::convert(self.0, size, |results, _| M::from(results)).await;
        let mut response = slices::respond(messages).await?;
        if let Some(cause) = cause {
            response.extensions_mut().insert(ItemCause(cause));
        }
        Ok(response)
    }
}

/// Makes the response of an answer that a batch or a query read. It holds what the answer holds until
/// it is encoded.
pub fn respond<A, M>(held: Held<A>, message: impl FnOnce(A) -> M) -> tonic::Response<M> {
    hold(tonic::Response::new(message(held.answer)), held.reservation)
}

/// Makes the response of a page. It holds what the page holds until it is encoded.
///
/// # Errors
/// [`Error::Overloaded`] if the byte budget is exhausted.
pub async fn respond_page<T, M>(page: Held<Page<T>>) -> Result<tonic::Response<M>>
where
    T: PageRow,
    M: Parts + Default + From<Page<T>>,
{
    let (page, reservation) = (page.answer, page.reservation);
    let mut next_page_token = page.next_page_token;
    let to_message = |rows, is_first| {
        let next_page_token = match is_first {
            true => mem::take(&mut next_page_token),
            false => String::new(),
        };
        M::from(Page {
            rows,
            next_page_token,
            is_cut: page.is_cut,
        })
    };
    let messages = slices::convert(page.rows, T::size, to_message).await;
    Ok(hold(slices::respond(messages).await?, reservation))
}

/// Makes the response of an answer as [`respond`] does, with a list of any length in one field. It is
/// encoded in slices of that field.
///
/// # Errors
/// [`Error::Overloaded`] if the byte budget is exhausted.
pub async fn respond_list<A, M, R>(
    held: Held<A>,
    message: impl FnOnce(A) -> M,
    field: fn(&mut M) -> &mut Vec<R>,
) -> Result<tonic::Response<M>>
where
    M: Parts + Default,
    R: Message,
{
    let mut rest = message(held.answer);
    let rows = mem::take(field(&mut rest));
    let to_message = |rows, is_first| {
        let mut message = match is_first {
            true => mem::take(&mut rest),
            false => M::default(),
        };
        *field(&mut message) = rows;
        message
    };
    let messages = slices::convert(rows, R::encoded_len, to_message).await;
    Ok(hold(slices::respond(messages).await?, held.reservation))
}

fn hold<M>(
    mut response: tonic::Response<M>,
    reservation: Option<Reservation>,
) -> tonic::Response<M> {
    if let Some(reservation) = reservation {
        response.extensions_mut().insert(reservation);
    }
    response
}

/// Submits the item of a request that is not a batch. Invalid fields that only the
/// operation finds get paths that begin with `field`, as those of [`parse_item`].
///
/// # Errors
/// The error of the item.
pub async fn submit_item<O: Operation>(
    batcher: &Batcher<O>,
    field: &str,
    item: O::Item,
) -> Result<O::Answer> {
    let answer = batcher.submit(item).await;
    answer.map_err(|error| error.within(field))
}

/// Submits the valid items of a batch, the request's `field`, and returns a result for each
/// item. If every item failed and may succeed soon, the call fails as a whole, so that the retry
/// policies of clients retry it.
///
/// # Errors
/// The error of the first item, if all items failed and may succeed soon.
pub async fn submit_valid<T, O>(
    batcher: &Batcher<O>,
    field: &str,
    items: Scoped<Vec<Result<T, Violations>>>,
) -> Result<BatchResults<O::Answer>>
where
    O: Operation<Item = Scoped<T>>,
{
    let Scoped {
        namespace,
        token_id,
        deadline,
        content,
    } = items;
    let mut valid = Vec::with_capacity(content.len());
    let validity = content.into_iter().map(|item| {
        let namespace = namespace.clone();
        valid.push(Scoped {
            namespace,
            token_id,
            deadline,
            content: item?,
        });
        Ok(())
    });
    let validity: Vec<Result<()>> = validity.collect();
    let mut answers = batcher.submit_all(valid).await.into_iter();
    let results = validity.into_iter().enumerate();
    let results = results.map(|(index, is_valid)| {
        is_valid?;
        let answer = answers.next().unwrap_or_else(|| Err(batch::worker_gone()));
        answer.map_err(|error| error.within(&format!("{field}[{index}]")))
    });
    let results: Vec<Result<O::Answer>> = results.collect();
    let may_succeed_soon = |result: &Result<O::Answer>| {
        let error = result.as_ref().err();
        error.is_some_and(|error| error.retry_after().is_some())
    };
    match results.first() {
        Some(Err(error)) if results.iter().all(may_succeed_soon) => Err(error.clone()),
        _ => Ok(BatchResults(results)),
    }
}
