//! Cuts responses to the size that clients accept.
//!
//! Most responses fit: pages end early, and batches are limited. Those that do not consist of
//! several large documents, such as a workflow and its transition, or of documents that an
//! older version of the service stored. A write is done when its response is made, so no
//! response may fail for its size.

use prost::{Message, encoding::encoded_len_varint};

use super::status;
use crate::proto::{Part, Parts};

/// Cuts a response to at most `max` bytes, and returns its size. The response is a message, or the
/// messages that make it up together.
///
/// The documents and long texts of the rows fill the response in their order. One that does
/// not fit is left out, and the `omitted_fields` of its row name it. If the errors of a batch
/// do not fit, all of them are shortened. What remains is bounded by the lengths of names and
/// the number of rows, and is far below the limit.
pub fn fit<M: Parts>(response: &mut [M], max: usize) -> usize {
    let length = encoded_len(response);
    if length <= max {
        return length;
    }
    let sizes = sizes(response);
    if length - sizes.values + sizes.names > max {
        visit(response, &mut |part| {
            if let Part::Error(error) = part {
                status::shorten(error);
            }
        });
    }
    let fixed = encoded_len(response) - sizes.values + sizes.names;
    omit(response, max.saturating_sub(fixed));
    encoded_len(response)
}

fn encoded_len<M: Parts>(response: &[M]) -> usize {
    response.iter().map(Message::encoded_len).sum()
}

fn visit<M: Parts>(response: &mut [M], visit: &mut dyn FnMut(Part<'_>)) {
    for message in response {
        message.visit_parts(visit);
    }
}

/// The sizes of the parts of a response, in bytes.
#[derive(Default)]
struct Sizes {
    /// Of the parts that can be left out.
    values: usize,
    /// Of their names, as `omitted_fields` has them.
    names: usize,
}

fn sizes<M: Parts>(response: &mut [M]) -> Sizes {
    let mut sizes = Sizes::default();
    visit(response, &mut |part| {
        if let Some((value, name)) = size(&part) {
            sizes.values += value;
            sizes.names += name;
        }
    });
    sizes
}

/// Returns the size of a part and of its name; `None` if leaving it out saves nothing.
fn size(part: &Part<'_>) -> Option<(usize, usize)> {
    let (name, length) = match part {
        Part::Document { name, value, .. } => (name, value.as_ref()?.encoded_len()),
        Part::Text { name, value, .. } => (name, value.as_ref()?.len()),
        Part::Error(_) => return None,
    };
    let (value, name) = (field_len(length), field_len(name.len()));
    (value > name).then_some((value, name))
}

/// Returns the size of a field with its tag, which is below 16, and its length.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Leaves out each part that does not fit into `left` bytes.
fn omit<M: Parts>(response: &mut [M], mut left: usize) {
    visit(response, &mut |part| {
        let Some((size, name_size)) = size(&part) else {
            return;
        };
        if let Some(rest) = (left + name_size).checked_sub(size) {
            left = rest;
            return;
        }
        match part {
            Part::Document {
                name,
                value,
                omitted,
            } => {
                *value = None;
                omitted.push(name.to_owned());
            }
            Part::Text {
                name,
                value,
                omitted,
            } => {
                *value = None;
                omitted.push(name.to_owned());
            }
            Part::Error(_) => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::{
        domain::{error::Error, json::Struct},
        proto::v1::{self, record_step_result::Result as StepResult},
    };

    fn document(length: usize) -> Option<Struct> {
        let text = json!("x".repeat(length));
        Some(Map::from_iter([("a".to_owned(), text)]).into())
    }

    fn stored(length: usize) -> v1::RecordStepResult {
        let step = v1::WorkflowStep {
            step_data: document(length),
            error_message: Some("why".repeat(10)),
            ..v1::WorkflowStep::default()
        };
        let response = v1::RecordStepResponse {
            step: Some(step),
            created: true,
        };
        v1::RecordStepResult {
            result: Some(StepResult::Response(response)),
        }
    }

    fn failed() -> v1::RecordStepResult {
        let error = Error::invalid_field("step_name", "is wrong ".repeat(100));
        v1::RecordStepResult {
            result: Some(StepResult::Error(error.into())),
        }
    }

    fn omitted(response: &v1::BatchRecordStepsResponse) -> Vec<Vec<String>> {
        let results = response.results.iter().map(|result| match &result.result {
            Some(StepResult::Response(it)) => it.step.clone().unwrap_or_default().omitted_fields,
            _ => Vec::new(),
        });
        results.collect()
    }

    fn fit(response: &mut v1::BatchRecordStepsResponse, max: usize) -> usize {
        super::fit(std::slice::from_mut(response), max)
    }

    #[test]
    fn documents_fill_a_response_in_their_order() {
        let results = vec![stored(1000), stored(5000), stored(1000), failed()];
        let mut response = v1::BatchRecordStepsResponse { results };
        let whole = response.encoded_len();
        assert_eq!(fit(&mut response.clone(), whole), whole);
        let max = whole - 4500;
        assert!(fit(&mut response, max) <= max);
        let none = Vec::<String>::new();
        let expected = [&none, &vec!["step_data".to_owned()], &none, &none];
        assert_eq!(omitted(&response).iter().collect::<Vec<_>>(), expected);
        let error = |response: &v1::BatchRecordStepsResponse| response.results[3].encoded_len();
        assert!(error(&response) > 900, "the error is whole");
    }

    #[test]
    fn errors_are_shortened_if_documents_do_not_suffice() {
        let results = (0..100).map(|_| failed()).chain([stored(1000)]);
        let mut response = v1::BatchRecordStepsResponse {
            results: results.collect(),
        };
        assert!(fit(&mut response, 60_000) <= 60_000);
        let Some(StepResult::Error(error)) = &response.results[0].result else {
            panic!("an error");
        };
        assert_eq!(error.code, 3);
        assert!(error.message.starts_with("step_name is wrong"));
        assert_eq!(error.details.len(), 1, "ErrorInfo");
    }

    #[test]
    fn every_limit_is_kept() {
        let results = (0..20).map(|i| stored(i * 37)).chain([failed(), failed()]);
        let response = v1::BatchRecordStepsResponse {
            results: results.collect(),
        };
        let mut least = response.clone();
        let least = fit(&mut least, 0);
        for max in least..response.encoded_len() + 2 {
            let mut response = response.clone();
            let length = fit(&mut response, max);
            assert!(length <= max, "{length} > {max}");
            assert_eq!(length, response.encoded_len());
        }
    }
}
