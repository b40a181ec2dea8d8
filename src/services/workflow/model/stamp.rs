//! Stamps: to append, as they are stored, to list.

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

/// A stamp to append.
#[derive(Debug, Default)]
pub struct NewStamp {
    /// The id that the caller chose, or a new one.
    pub id: StampId,
    /// Whether the caller chose it.
    pub is_id_chosen: bool,
    /// The workflow that made it, if any.
    pub workflow_id: Option<WorkflowId>,
    /// The hash of the file.
    pub file_hash: String,
    /// What was found out.
    pub stamp_data: JsonObject,
    /// Tells a retry.
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
    /// The row that a new stamp became.
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

/// Which stamps to list.
#[derive(Debug)]
pub struct StampFilter {
    /// On this file.
    pub file_hash: Option<String>,
    /// By this workflow.
    pub workflow_id: Option<WorkflowId>,
    /// Created after this time.
    pub created_after: Option<DateTime<Utc>>,
    /// Created before this time.
    pub created_before: Option<DateTime<Utc>>,
    /// Which page.
    pub page: PageRequest<TimePosition>,
}
