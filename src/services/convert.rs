//! The pieces that the conversions of all slices share.

use std::{mem, num::NonZeroU32};

use uuid::Uuid;

use crate::{
    domain::{id, quota::QuotaLimits},
    proto::v1,
    rpc::validate::Validator,
};

/// Takes the optional id of a new row out of a request, because the id is not part of the
/// content that the digest covers. Returns the id, or a generated one if the caller chose
/// none, and whether the caller chose it.
pub fn take_id<T: From<Uuid>>(check: &mut Validator, field: &str, text: &mut String) -> (T, bool) {
    let chosen = check.optional_id(field, &mem::take(text));
    let is_chosen = chosen.is_some();
    (chosen.unwrap_or_else(id::generate), is_chosen)
}

/// Converts a limit. Every limit fits: none is configured above 2³¹ − 1.
pub fn saturated(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

/// Converts a limit that there may not be.
pub fn number(limit: Option<NonZeroU32>) -> Option<i32> {
    limit.map(NonZeroU32::get).map(saturated)
}

impl From<QuotaLimits> for v1::QuotaLimits {
    fn from(limits: QuotaLimits) -> Self {
        v1::QuotaLimits {
            calls_per_second: number(limits.calls_per_second),
            items_per_second: number(limits.items_per_second),
            calls_in_progress: number(limits.calls_in_progress),
        }
    }
}

/// Implements `From` for the responses of a slice. The type after the field says what the
/// response is made of:
///
/// * a row: `GetNodeResponse { node: Node }`
/// * all rows: `GetTableScansResponse { tables: Vec<TableScans> }`
/// * a page: `ListNodesResponse { nodes: Page<Node> }`
/// * a write that may be a retry: `RecordStepResponse { step: WriteOutcome<Step> }`
/// * a deletion: `DeleteMachineResponse { deleted: bool }`
/// * a deletion that is journaled: `DeleteWorkflowResponse { deleted: Deleted }`
/// * a batch, with the message of a result and the module of its oneof:
///   `BatchHeartbeatResponse { results: HeartbeatResult(heartbeat_result) from HeartbeatAck }`
macro_rules! responses {
    ($($response:ident { $field:ident: $($content:tt)+ })+) => {
        $(responses!(@one $response $field: $($content)+);)+
    };
    (@one $response:ident $field:ident: Page<$row:ty>) => {
        impl From<$crate::domain::page::Page<$row>> for $crate::proto::v1::$response {
            fn from(page: $crate::domain::page::Page<$row>) -> Self {
                Self {
                    $field: page.rows.into_iter().map(Into::into).collect(),
                    next_page_token: page.next_page_token,
                }
            }
        }
    };
    (@one $response:ident $field:ident: Vec<$row:ty>) => {
        impl From<Vec<$row>> for $crate::proto::v1::$response {
            fn from(rows: Vec<$row>) -> Self {
                let $field = rows.into_iter().map(Into::into).collect();
                Self { $field }
            }
        }
    };
    (@one $response:ident $field:ident: WriteOutcome<$row:ty>) => {
        impl From<$crate::domain::write_outcome::WriteOutcome<$row>>
            for $crate::proto::v1::$response
        {
            fn from(outcome: $crate::domain::write_outcome::WriteOutcome<$row>) -> Self {
                Self {
                    $field: Some(outcome.row.into()),
                    created: outcome.created,
                }
            }
        }
    };
    (@one $response:ident $field:ident: Deleted) => {
        impl From<$crate::domain::write_outcome::Deleted> for $crate::proto::v1::$response {
            fn from(outcome: $crate::domain::write_outcome::Deleted) -> Self {
                Self {
                    $field: outcome.is_deleted,
                    position: outcome.position_text(),
                }
            }
        }
    };
    (@one $response:ident $field:ident: bool) => {
        impl From<bool> for $crate::proto::v1::$response {
            fn from($field: bool) -> Self {
                Self { $field }
            }
        }
    };
    (@one $response:ident $field:ident: $result:ident($oneof:ident) from $item:ty) => {
        impl From<Vec<$crate::domain::error::Result<$item>>> for $crate::proto::v1::$response {
            fn from(results: Vec<$crate::domain::error::Result<$item>>) -> Self {
                use $crate::proto::v1::{self, $oneof};
                let results = results.into_iter().map(|result| v1::$result {
                    result: Some(match result {
                        Ok(item) => $oneof::Result::Response(item.into()),
                        Err(error) => $oneof::Result::Error(error.into()),
                    }),
                });
                Self {
                    $field: results.collect(),
                }
            }
        }
    };
    (@one $response:ident $field:ident: $row:ty) => {
        impl From<$row> for $crate::proto::v1::$response {
            fn from(row: $row) -> Self {
                Self {
                    $field: Some(row.into()),
                }
            }
        }
    };
}

/// Implements `From` for messages that have the same name and fields as the domain type.
macro_rules! same_fields {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {$(
        impl From<$name> for $crate::proto::v1::$name {
            fn from(row: $name) -> Self {
                let $name { $($field),+ } = row;
                Self { $($field),+ }
            }
        }
    )+};
}

pub(crate) use {responses, same_fields};
