//! Who a request is for. The only place where a [`Namespace`] is made.

use std::{fmt, sync::Arc};

use diesel::{
    expression::AsExpression,
    pg::Pg,
    serialize::{self, Output, ToSql},
    sql_types::Text,
};

use crate::{
    access::{Call, Caller},
    config,
    error::{Error, internal},
    id::TokenId,
    request,
    transport::peer::Peer,
    validate::{Checker, Violations},
};

/// The tenant that a request may act for. Every store function asks for one,
/// and only [`admit`] makes it (but for the service's own), so that no query can forget whose rows it reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, AsExpression)]
#[diesel(sql_type = Text)]
pub struct Namespace(String);

/// Namespaces of the service's own begin like this. Tenants may read some of
/// them, and nobody but the service writes there.
const RESERVED: &str = "bridgebook.";

/// The registry's own, see [`Namespace::registry`].
const REGISTRY: &str = "bridgebook.registry";

impl Namespace {
    /// Where the registry, which all tenants share, journals what becomes of nodes.
    #[must_use]
    pub fn registry() -> Self {
        Namespace(REGISTRY.to_owned())
    }

    /// Whether a row is in the registry's own namespace.
    #[must_use]
    pub fn is_registrys(namespace: &str) -> bool {
        namespace == REGISTRY
    }

    /// Any namespace, for tests of what does not ask who may use it.
    #[cfg(test)]
    pub(crate) fn for_test(namespace: &str) -> Self {
        Namespace(namespace.to_owned())
    }

    /// The namespace as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ToSql<Text, Pg> for Namespace {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<Text, Pg>::to_sql(self.0.as_str(), out)
    }
}

/// Whether there are rows for a namespace, or may be: for the service's own there are those
/// of the registry.
#[must_use]
pub fn may_have_rows(namespace: &str) -> bool {
    !namespace.starts_with(RESERVED) || Namespace::is_registrys(namespace)
}

/// A request of a tenant.
pub trait TenantRequest {
    /// Whether it may name the registry's namespace: those that only read what
    /// everybody may know.
    const READS_RESERVED: bool = false;

    /// The value of its field `namespace`.
    fn namespace(&self) -> &str;

    /// The value of its field `correlation_id`, if it has one: the log has it.
    fn correlation_id(&self) -> Option<&str> {
        None
    }
}

/// Declares requests that have a field `namespace`.
#[macro_export]
macro_rules! tenant_requests {
    ($($request:ty),+ $(,)?) => {$(
        impl $crate::namespace::TenantRequest for $request {
            fn namespace(&self) -> &str {
                &self.namespace
            }
        }
    )+};
}

/// What a request asks for, and for whom.
#[derive(Debug)]
pub struct Scoped<T> {
    /// For whom.
    pub namespace: Namespace,
    /// With which token, which the journal keeps; none if nobody was asked for one.
    pub token_id: Option<TokenId>,
    /// What.
    pub content: T,
}

impl<T> std::ops::Deref for Scoped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

/// Beginnings of headers by which a proxy on this machine says that a call is
/// somebody else's.
const FORWARDED: [&str; 5] = ["forwarded", "via", "x-envoy-", "x-forwarded-", "x-real-ip"];

/// Lets a request of an operator in, who is of no tenant. Where nobody is asked for
/// a token, whoever is on this machine is taken for one, and nobody else.
///
/// # Errors
/// [`Error::RoleTooLow`], [`Error::LoopbackOnly`], and [`Error::InvalidRequest`] with
/// everything that is wrong with it.
pub fn admit_operator<R, T>(request: tonic::Request<R>) -> Result<T, Error>
where
    T: TryFrom<R, Error = Violations>,
{
    let call = call_of(&request)?;
    call.require_role(None)?;
    if matches!(call.caller, Caller::Anyone) && !is_local(&request) {
        return Err(Error::LoopbackOnly);
    }
    Ok(T::try_from(request.into_inner())?)
}

/// Whether a call comes from this machine, as far as can be told.
fn is_local<R>(request: &tonic::Request<R>) -> bool {
    let mut headers = request.metadata().as_ref().keys();
    let is_forwarded = headers.any(|name| FORWARDED.iter().any(|it| name.as_str().starts_with(it)));
    let peer = request.extensions().get::<Arc<Peer>>();
    !is_forwarded && peer.is_some_and(|peer| config::is_local(peer.address))
}

fn call_of<R>(request: &tonic::Request<R>) -> Result<Call, Error> {
    let call = request.extensions().get::<Call>().cloned();
    call.ok_or_else(|| internal("the request did not come through the access layer"))
}

/// Lets a request in: finds out for whom it is, and turns it into what it asks for.
///
/// # Errors
/// [`Error::RoleTooLow`], [`Error::NamespaceDenied`], and [`Error::InvalidRequest`]
/// with everything that is wrong with it, the namespace included.
pub fn admit<R, T>(request: tonic::Request<R>) -> Result<Scoped<T>, Error>
where
    R: TenantRequest,
    T: TryFrom<R, Error = Violations>,
{
    let call = call_of(&request)?;
    let request = request.into_inner();
    if let Some(correlation_id) = request.correlation_id() {
        request::correlates(correlation_id);
    }
    let mut check = Checker::default();
    let namespace = Namespace(check.namespace("namespace", request.namespace().to_owned()));
    let named = check.is_content().then_some(&namespace);
    if let Some(namespace) = named {
        request::is_for(namespace.as_str());
    }
    call.require_role(named)?;
    if namespace.0.starts_with(RESERVED) {
        if !(R::READS_RESERVED && namespace == Namespace::registry()) {
            check.violation(
                "namespace",
                format!("must not begin with {RESERVED}, which is reserved"),
            );
        }
    } else if let Some(namespace) = named {
        call.require_namespace(namespace)?;
    }
    let token_id = call.caller.token_id();
    match T::try_from(request) {
        Ok(content) => Ok(check.finish(Scoped {
            namespace,
            token_id,
            content,
        })?),
        Err(violations) => Err(check.also(violations).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tonic::Request;

    use super::*;
    use crate::{admin::model::IndexQuery, proto::v1::GetIndexUsageRequest};

    /// A call of anybody's.
    fn request() -> Request<GetIndexUsageRequest> {
        let mut request = Request::new(GetIndexUsageRequest::default());
        request.extensions_mut().insert(Call {
            caller: Caller::Anyone,
            rpc: None,
        });
        request
    }

    fn admitted(remote_addr: Option<&str>) -> Result<IndexQuery, Error> {
        let mut request = request();
        if let Some(address) = remote_addr {
            let address: SocketAddr = address.parse().unwrap();
            request
                .extensions_mut()
                .insert(Peer::new(address, None, false, Arc::default()));
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
            let refused = admitted(Some(address));
            assert!(matches!(refused, Err(Error::LoopbackOnly)), "{address}");
        }
        assert!(matches!(admitted(None), Err(Error::LoopbackOnly)));
    }

    #[test]
    fn whoever_comes_through_a_proxy_is_from_elsewhere() {
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
            request
                .extensions_mut()
                .insert(Peer::new(address, None, false, Arc::default()));
            let value = tonic::metadata::MetadataValue::from_static("1");
            request.metadata_mut().insert(header, value);
            let outcome: Result<IndexQuery, Error> = admit_operator(request);
            assert_eq!(outcome.is_ok(), is_admitted, "{header}");
        }
    }
}
