//! Calls that carry one item of a kind, and calls that carry many: each item is
//! good or bad in itself.

use prost::Message;

use crate::{
    db::batch::{self, Batcher, Operation},
    error::Result,
    namespace::Scoped,
    validate::{Checker, MAX_BATCH, Violations},
};

/// How many bytes the items of a batch may have together. The answer has them too,
/// with some hundred bytes of ids and times for each, and a gRPC client takes
/// answers of 4 MiB by default.
const MAX_ITEMS_BYTES: usize = 3 * 1024 * 1024;

/// Converts the one item of a call that is not a batch.
///
/// # Errors
/// What is wrong with it, or that it is missing.
pub fn single<R, T>(
    item: Option<R>,
    field: &str,
    convert: impl Fn(&str, R) -> Result<T, Violations>,
) -> Result<T, Violations> {
    match item {
        Some(item) => convert(field, item),
        None => Err(Violations::one(field, "is required")),
    }
}

/// Converts the items of a batch.
///
/// # Errors
/// That there are none, or too many; what is wrong with an item is its own error.
pub fn many<R: Message, T>(
    items: Vec<R>,
    field: &str,
    convert: impl Fn(&str, R) -> Result<T, Violations>,
) -> Result<Vec<Result<T, Violations>>, Violations> {
    let mut check = Checker::default();
    check.batch(field, items.len());
    if items.iter().map(Message::encoded_len).sum::<usize>() > MAX_ITEMS_BYTES {
        check.violation(
            field,
            format!("must not be longer than {MAX_ITEMS_BYTES} bytes together"),
        );
    }
    let items = items.into_iter().take(MAX_BATCH).enumerate();
    let items = items.map(|(index, item)| convert(&format!("{field}[{index}]"), item));
    check.finish(items.collect())
}

/// Does the good items of a batch call, and answers each item in its place. If
/// none could be done but all may be soon, the call fails as a whole, so that
/// whatever retries calls retries it.
///
/// # Errors
/// That of the first item, if all of them failed and may succeed soon.
pub async fn submit_good<T, O>(
    batcher: &Batcher<O>,
    items: Scoped<Vec<Result<T, Violations>>>,
) -> Result<Vec<Result<O::Answer>>>
where
    O: Operation<Item = Scoped<T>>,
{
    let Scoped {
        namespace,
        token_id,
        content,
    } = items;
    let mut good = Vec::with_capacity(content.len());
    let places = content.into_iter().map(|item| {
        let namespace = namespace.clone();
        good.push(Scoped {
            namespace,
            token_id,
            content: item?,
        });
        Ok(())
    });
    let places: Vec<Result<()>> = places.collect();
    let mut answers = batcher.submit_all(good).await.into_iter();
    let answers = places.into_iter().map(|place| match place {
        Ok(()) => answers.next().unwrap_or_else(|| Err(batch::gone())),
        Err(error) => Err(error),
    });
    let answers: Vec<Result<O::Answer>> = answers.collect();
    let mut delays = answers
        .iter()
        .map(|answer| answer.as_ref().err()?.retry_after());
    match answers.first() {
        Some(Err(error)) if delays.all(|delay| delay.is_some()) => Err(error.clone()),
        _ => Ok(answers),
    }
}
