//! Stamps: the request to append one, the stored row, and the filter of a list.

use chrono::{DateTime, Utc};
use diesel::prelude::*;

use crate::{
    db::schema::metadata_stamps,
    domain::{
        digest::RequestDigest,
        id::{StampId, WorkflowId},
        json::JsonObject,
        namespace::Namespace,
        page::{PageRequest, TimePosition},
    },
};

/// The request to append a stamp.
#[derive(Debug, Default)]
pub struct NewStamp {
    /// The id, chosen by the caller or generated.
    pub id: StampId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The workflow that made the stamp, if any.
    pub workflow_id: Option<WorkflowId>,
    /// The hash of the file.
    pub file_hash: String,
    /// The result that the stamp records.
    pub stamp_data: JsonObject,
    /// The digest of the content, which identifies a retry.
    pub request_digest: RequestDigest,
}

/// A row of metadata_stamps.
#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = metadata_stamps)]
#[expect(
    missing_docs,
    reason = "the columns are documented in the database, and in schema.rs"
)]
pub struct Stamp {
    pub id: StampId,
    pub namespace: String,
    pub workflow_id: Option<WorkflowId>,
    pub file_hash: String,
    pub stamp_data: JsonObject,
    pub created_at: DateTime<Utc>,
}

impl Stamp {
    /// Returns the stored row of a new stamp.
    #[must_use]
    pub fn stored(new: &NewStamp, namespace: &Namespace, created_at: DateTime<Utc>) -> Self {
        Stamp {
            id: new.id,
            namespace: namespace.to_string(),
            workflow_id: new.workflow_id,
            file_hash: new.file_hash.clone(),
            stamp_data: new.stamp_data.clone(),
            created_at,
        }
    }
}

/// The filter of a list of stamps.
#[derive(Debug)]
pub struct StampFilter {
    /// Selects the stamps of this file.
    pub file_hash: Option<String>,
    /// Selects the stamps of this workflow.
    pub workflow_id: Option<WorkflowId>,
    /// Selects stamps created after this time.
    pub created_after: Option<DateTime<Utc>>,
    /// Selects stamps created before this time.
    pub created_before: Option<DateTime<Utc>>,
    /// The requested page.
    pub page: PageRequest<TimePosition>,
}
