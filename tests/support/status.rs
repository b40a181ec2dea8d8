//! The content of a failed call's status.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The parts of a failure that callers depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub reason: String,
    /// The fields of the BadRequest detail.
    pub fields: Vec<String>,
}

/// Returns the parts of a failure. Fails without an ErrorInfo of our domain.
pub fn failure<T: std::fmt::Debug>(result: Result<T, Status>) -> Failure {
    let status = result.expect_err("the call fails");
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "bridgebook");
    let violations = details.bad_request().into_iter();
    Failure {
        code: status.code(),
        reason: info.reason.clone(),
        fields: violations
            .flat_map(|bad| {
                bad.field_violations
                    .iter()
                    .map(|violation| violation.field.clone())
            })
            .collect(),
    }
}

/// Returns the limit that an overloaded service names in its error, and the setting of it.
pub fn overload(status: Status) -> (String, Option<String>) {
    let details = status.get_error_details();
    let expected = Failure::new(Code::ResourceExhausted, "OVERLOADED");
    assert_eq!(failure::<()>(Err(status.clone())), expected);
    let metadata = &details.error_info().unwrap().metadata;
    let setting = metadata.get("setting").cloned();
    if let Some(setting) = &setting {
        assert!(status.message().contains(setting), "{status:?}");
    }
    (metadata["limit"].clone(), setting)
}

impl Failure {
    pub fn new(code: Code, reason: &str) -> Self {
        Failure {
            code,
            reason: reason.into(),
            fields: Vec::new(),
        }
    }

    pub fn invalid(fields: &[&str]) -> Self {
        Failure {
            fields: fields.iter().map(ToString::to_string).collect(),
            ..Failure::new(Code::InvalidArgument, "INVALID_FIELD")
        }
    }

    pub fn no_workflow() -> Self {
        Failure::new(Code::NotFound, "WORKFLOW_NOT_FOUND")
    }

    pub fn no_node() -> Self {
        Failure::new(Code::NotFound, "NODE_NOT_FOUND")
    }

    pub fn id_conflict() -> Self {
        Failure::new(Code::AlreadyExists, "ID_CONFLICT")
    }
}
