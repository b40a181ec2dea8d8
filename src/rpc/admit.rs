//! Admits requests: checks the role and the namespace, and converts the message to a
//! validated domain value.
//!
//! This is the only place that makes a [`Namespace`] from a request.

use std::sync::Arc;

use super::{
    auth::{AuthenticatedCall, Caller},
    call::Deadline,
    context, page_token,
    quota::CallQuota,
    transport::peer::Peer,
    validate::Validator,
};
use crate::{
    domain::{
        error::{Error, internal},
        id::TokenId,
        limits::ContentLimits,
        namespace::{Namespace, RESERVED_PREFIX, Scoped},
        quota::QuotaChange,
    },
    proto::TenantRequest,
    util::net::is_loopback,
};

/// A domain value that a request is turned into.
pub trait FromRequest<R>: Sized {
    /// Whether the request may name the registry's namespace, because it only reads
    /// what all tenants share.
    const READS_REGISTRY: bool = false;
    /// Whether the request may name the beginning of namespaces and `*`.
    const READS_PREFIX: bool = false;

    /// Converts a request. Adds every violation to `check`. If there is one, [`admit`]
    /// drops the returned value, so a placeholder will do.
    fn from_request(request: R, check: &mut Validator) -> Self;

    /// Returns the token that the request of an operator concerns, for the audit log.
    fn target_token_id(&self) -> Option<TokenId> {
        None
    }

    /// Returns the namespace that the request of an operator concerns, for the audit log.
    fn target_namespace(&self) -> Option<&str> {
        None
    }

    /// Returns the quota that the request of an operator sets, for the audit log.
    fn target_quota(&self) -> Option<QuotaChange> {
        None
    }
}

/// Prefixes of the headers by which a proxy marks a call that it forwards.
const FORWARDED: [&str; 5] = ["forwarded", "via", "x-envoy-", "x-forwarded-", "x-real-ip"];

/// Admits a request of a tenant: checks the caller's role, then its namespaces, then the quotas,
/// then every field of the message.
///
/// # Errors
/// [`Error::RoleTooLow`], [`Error::NamespaceDenied`], [`Error::QuotaExceeded`],
/// [`Error::DatabaseUnavailable`] before the
/// service has seen its database, and [`Error::InvalidRequest`] with every violation, that of
/// the namespace included.
pub fn admit<R, T>(request: tonic::Request<R>) -> Result<Scoped<T>, Error>
where
    R: TenantRequest,
    T: FromRequest<R>,
{
    let call = authenticated(&request)?;
    let mut check = list_validator(&request)?;
    let max_items = content_limits(&request)?.batch_items;
    let quota = request.extensions().get::<Arc<CallQuota>>().cloned();
    let quota = quota.ok_or_else(|| internal("the request did not pass the quota layer"))?;
    let deadline = request.extensions().get::<Deadline>().map(|it| it.0);
    let request = request.into_inner();
    if let Some(correlation_id) = request.correlation_id() {
        context::set_correlation_id(correlation_id);
    }
    let name = request.namespace().to_owned();
    let name = match T::READS_PREFIX && name.contains(['*', '?']) {
        true => {
            check.namespace_pattern("namespace", &name);
            name
        }
        false => check.namespace("namespace", name),
    };
    let namespace = Namespace::admitted(name);
    let named = check.is_clean().then_some(&namespace);
    if let Some(namespace) = named {
        context::set_namespace(namespace.as_str());
    }
    call.require_role(named)?;
    if named.is_some_and(Namespace::is_reserved) {
        if !(T::READS_REGISTRY && namespace == Namespace::registry()) {
            let rule = format!("must not start with {RESERVED_PREFIX:?}, which is reserved");
            check.violation("namespace", rule);
        }
    } else if let Some(namespace) = named {
        call.require_namespace(namespace)?;
        // A batch with too many items is invalid, so none of them is done.
        let items = Some(request.item_count()).filter(|count| *count <= max_items);
        quota.admit(namespace, items.unwrap_or_default())?;
    }
    let content = T::from_request(request, &mut check);
    Ok(check.finish(Scoped {
        token_id: call.caller.token_id(),
        namespace,
        deadline,
        content,
    })?)
}

/// Admits a request of an operator, which belongs to no tenant. Where the service runs
/// without tokens, only callers on this machine are operators.
///
/// # Errors
/// [`Error::RoleTooLow`], [`Error::LoopbackOnly`], [`Error::DatabaseUnavailable`] before the
/// service has seen its database, and [`Error::InvalidRequest`] with every violation.
pub fn admit_operator<R, T: FromRequest<R>>(request: tonic::Request<R>) -> Result<T, Error> {
    let call = authenticated(&request)?;
    call.require_role(None)?;
    if matches!(call.caller, Caller::Anyone) && !is_local(&request) {
        return Err(Error::LoopbackOnly);
    }
    let mut check = list_validator(&request)?;
    let content = T::from_request(request.into_inner(), &mut check);
    let content = check.finish(content)?;
    if let Some(token_id) = content.target_token_id() {
        context::set_target_token_id(token_id);
    }
    if let Some(namespace) = content.target_namespace() {
        context::set_namespace(namespace);
    }
    if let Some(values) = content.target_quota() {
        context::set_target_quota(values);
    }
    Ok(content)
}

/// Admits a request without a namespace, for any role. Also returns the caller.
///
/// # Errors
/// [`Error::RoleTooLow`], and [`Error::InvalidRequest`] with every violation.
pub fn admit_any<R, T: FromRequest<R>>(request: tonic::Request<R>) -> Result<(Caller, T), Error> {
    let call = authenticated(&request)?;
    call.require_role(None)?;
    let mut check = validator(&request)?;
    let content = T::from_request(request.into_inner(), &mut check);
    Ok((call.caller, check.finish(content)?))
}

/// Returns whether a call comes over loopback and no proxy header is present.
fn is_local<R>(request: &tonic::Request<R>) -> bool {
    let mut headers = request.metadata().as_ref().keys();
    let is_forwarded = headers.any(|name| FORWARDED.iter().any(|it| name.as_str().starts_with(it)));
    let peer = request.extensions().get::<Arc<Peer>>();
    !is_forwarded && peer.is_some_and(|peer| is_loopback(peer.address))
}

fn authenticated<R>(request: &tonic::Request<R>) -> Result<AuthenticatedCall, Error> {
    let call = request.extensions().get::<AuthenticatedCall>().cloned();
    call.ok_or_else(|| internal("the request did not pass the auth layer"))
}

fn validator<R>(request: &tonic::Request<R>) -> Result<Validator, Error> {
    Ok(Validator::new(content_limits(request)?))
}

fn content_limits<R>(request: &tonic::Request<R>) -> Result<ContentLimits, Error> {
    let limits = request.extensions().get::<ContentLimits>().copied();
    limits.ok_or_else(|| internal("the request did not pass the call layer"))
}

/// Returns a validator for a request that may be a list.
fn list_validator<R>(request: &tonic::Request<R>) -> Result<Validator, Error> {
    let key = page_token::key_of(request)?;
    Ok(validator(request)?.with_page_tokens(key))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tonic::Request;

    use super::*;
    use crate::{
        domain::page_token_key::PageTokenKey, proto::v1::GetIndexUsageRequest,
        services::admin::model::IndexQuery,
    };

    /// A call of a service that runs without tokens.
    fn request() -> Request<GetIndexUsageRequest> {
        let mut request = Request::new(GetIndexUsageRequest::default());
        request.extensions_mut().insert(ContentLimits::default());
        request.extensions_mut().insert(PageTokenKey::default());
        request.extensions_mut().insert(AuthenticatedCall {
            caller: Caller::Anyone,
            rpc: None,
        });
        request
    }

    fn admitted(remote_addr: Option<&str>) -> Result<IndexQuery, Error> {
        let mut request = request();
        if let Some(address) = remote_addr {
            let address: SocketAddr = address.parse().unwrap();
            request.extensions_mut().insert(Peer::for_test(address));
        }
        admit_operator(request)
    }

    #[test]
    fn operators_are_on_this_machine() {
        for address in [
            "127.0.0.1:7",
            "127.8.9.1:7",
            "[::1]:7",
            "[::ffff:127.0.0.1]:7",
        ] {
            assert!(admitted(Some(address)).is_ok(), "{address}");
        }
        for address in [
            "192.0.2.1:7",
            "0.0.0.0:7",
            "[2001:db8::1]:7",
            "[::ffff:192.0.2.1]:7",
        ] {
            let rejected = admitted(Some(address));
            assert!(matches!(rejected, Err(Error::LoopbackOnly)), "{address}");
        }
        assert!(matches!(admitted(None), Err(Error::LoopbackOnly)));
    }

    #[test]
    fn a_call_through_a_proxy_is_not_local() {
        for (header, is_admitted) in [
            ("forwarded", false),
            ("via", false),
            ("x-real-ip", false),
            ("x-forwarded-for", false),
            ("x-forwarded-proto", false),
            ("x-envoy-expected-rq-timeout-ms", false),
            ("x-request-id", true),
        ] {
            let mut request = request();
            let address = ([127, 0, 0, 1], 7).into();
            request.extensions_mut().insert(Peer::for_test(address));
            let value = tonic::metadata::MetadataValue::from_static("1");
            request.metadata_mut().insert(header, value);
            let outcome: Result<IndexQuery, Error> = admit_operator(request);
            assert_eq!(outcome.is_ok(), is_admitted, "{header}");
        }
    }
}
