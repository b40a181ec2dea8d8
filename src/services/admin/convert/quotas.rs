//! Conversions of quotas.

use std::ops::RangeInclusive;

use crate::{
    domain::{
        id::TokenId,
        namespace::RESERVED_PREFIX,
        page::Page,
        quota::{QuotaChange, QuotaDefaults, QuotaSubject},
        time,
    },
    proto::v1::{self, delete_quota_request, quota, set_quota_request},
    rpc::{
        admit::FromRequest,
        page_token::read_page,
        quota::model::{
            MAX_WEIGHT, NewQuota, Quota, QuotaFilter, QuotaKey, QuotaValues, SubjectKind,
        },
        validate::Validator,
    },
    services::convert::responses,
};

impl FromRequest<v1::SetQuotaRequest> for NewQuota {
    fn from_request(request: v1::SetQuotaRequest, check: &mut Validator) -> Self {
        let subject = match request.subject {
            Some(set_quota_request::Subject::Namespace(name)) => namespace(check, name),
            Some(set_quota_request::Subject::TokenId(id)) => token(check, &id),
            None => no_subject(check),
        };
        if matches!(subject, QuotaSubject::Token(_)) && request.weight.is_some() {
            check.violation(
                "weight",
                "must not be set for a token, only for a namespace",
            );
        }
        let any = 0..=i32::MAX;
        let mut number = |field, value, range| in_range(check, field, value, range);
        let values = QuotaValues {
            calls_per_second: number("calls_per_second", request.calls_per_second, any.clone()),
            items_per_second: number("items_per_second", request.items_per_second, any.clone()),
            calls_in_progress: number("calls_in_progress", request.calls_in_progress, any),
            weight: number("weight", request.weight, 1..=MAX_WEIGHT),
        };
        NewQuota { subject, values }
    }

    fn target_token_id(&self) -> Option<TokenId> {
        token_of(&self.subject)
    }

    fn target_namespace(&self) -> Option<&str> {
        namespace_of(&self.subject)
    }

    fn target_quota(&self) -> Option<QuotaChange> {
        Some(QuotaChange {
            calls_per_second: self.values.calls_per_second,
            items_per_second: self.values.items_per_second,
            calls_in_progress: self.values.calls_in_progress,
            weight: self.values.weight,
        })
    }
}

impl FromRequest<v1::DeleteQuotaRequest> for QuotaKey {
    fn from_request(request: v1::DeleteQuotaRequest, check: &mut Validator) -> Self {
        QuotaKey(match request.subject {
            Some(delete_quota_request::Subject::Namespace(name)) => namespace(check, name),
            Some(delete_quota_request::Subject::TokenId(id)) => token(check, &id),
            None => no_subject(check),
        })
    }

    fn target_token_id(&self) -> Option<TokenId> {
        token_of(&self.0)
    }

    fn target_namespace(&self) -> Option<&str> {
        namespace_of(&self.0)
    }
}

impl FromRequest<v1::ListQuotasRequest> for QuotaFilter {
    fn from_request(mut request: v1::ListQuotasRequest, check: &mut Validator) -> Self {
        let page = read_page(check, &mut request);
        QuotaFilter { page }
    }
}

fn namespace(check: &mut Validator, name: String) -> QuotaSubject {
    let name = check.namespace("namespace", name);
    if name.starts_with(RESERVED_PREFIX) {
        let rule = format!("must not start with {RESERVED_PREFIX:?}, which is reserved");
        check.violation("namespace", rule);
    }
    QuotaSubject::Namespace(name)
}

fn token(check: &mut Validator, id: &str) -> QuotaSubject {
    QuotaSubject::Token(check.id("token_id", id))
}

/// Notes the missing subject. Returns a placeholder.
fn no_subject(check: &mut Validator) -> QuotaSubject {
    check.violation("subject", "is required: set namespace or token_id");
    QuotaSubject::Namespace(String::new())
}

fn in_range(
    check: &mut Validator,
    field: &str,
    value: Option<i32>,
    range: RangeInclusive<i32>,
) -> Option<i32> {
    if let Some(value) = value.filter(|value| !range.contains(value)) {
        let (min, max) = range.into_inner();
        check.violation(field, format!("must be from {min} to {max}, got {value}"));
    }
    value
}

fn token_of(subject: &QuotaSubject) -> Option<TokenId> {
    match subject {
        QuotaSubject::Namespace(_) => None,
        QuotaSubject::Token(id) => Some(*id),
    }
}

fn namespace_of(subject: &QuotaSubject) -> Option<&str> {
    match subject {
        QuotaSubject::Namespace(name) => Some(name),
        QuotaSubject::Token(_) => None,
    }
}

impl From<Quota> for v1::Quota {
    fn from(row: Quota) -> Self {
        v1::Quota {
            subject: row.kind().map(|kind| match kind {
                SubjectKind::Namespace => quota::Subject::Namespace(row.subject),
                SubjectKind::Token => quota::Subject::TokenId(row.subject),
            }),
            calls_per_second: row.values.calls_per_second,
            items_per_second: row.values.items_per_second,
            calls_in_progress: row.values.calls_in_progress,
            weight: row.values.weight,
            created_at: Some(time::to_proto(row.created_at)),
            updated_at: Some(time::to_proto(row.updated_at)),
        }
    }
}

impl From<(Page<Quota>, QuotaDefaults)> for v1::ListQuotasResponse {
    fn from((page, defaults): (Page<Quota>, QuotaDefaults)) -> Self {
        v1::ListQuotasResponse {
            quotas: page.rows.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
            namespace_defaults: Some(defaults.namespace.into()),
            token_defaults: Some(defaults.token.into()),
        }
    }
}

responses! {
    SetQuotaResponse { quota: Quota }
}
