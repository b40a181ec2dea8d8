//! The gRPC service of health, as its protocol defines it.
//!
//! tonic-health's own service ends a Watch of an unknown service with NOT_FOUND. Clients that wait
//! for a service to appear, as the protocol has them do, would call again without end.

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{self, Health},
};
use tonic_reflection::pb as reflection;

use crate::{
    domain::error::{Error, ProtocolError},
    proto::v1::{
        admin_service_server, bridge_state_service_server, fsm_service_server,
        registry_service_server, server_service_server, workflow_service_server,
    },
    util::excerpt::{MAX_VALUE, excerpt},
};

/// The names with a status, which they share. The empty name is the whole server.
const SHARED: &[&str] = &[
    "",
    workflow_service_server::SERVICE_NAME,
    fsm_service_server::SERVICE_NAME,
    bridge_state_service_server::SERVICE_NAME,
    admin_service_server::SERVICE_NAME,
    registry_service_server::SERVICE_NAME,
    server_service_server::SERVICE_NAME,
];

/// The services that need no database: they serve for as long as the server runs.
const ALWAYS_SERVING: &[&str] = &[
    health_server::SERVICE_NAME,
    reflection::v1::server_reflection_server::SERVICE_NAME,
    reflection::v1alpha::server_reflection_server::SERVICE_NAME,
];

/// Where the status of a name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Shared,
    AlwaysServing,
    Unknown,
}

impl Source {
    fn of(name: &str) -> Self {
        match name {
            _ if SHARED.contains(&name) => Source::Shared,
            _ if ALWAYS_SERVING.contains(&name) => Source::AlwaysServing,
            _ => Source::Unknown,
        }
    }

    /// Returns the status of the name while the names in [`SHARED`] have the status `shared`.
    fn status(self, shared: ServingStatus) -> ServingStatus {
        match self {
            Source::Shared => shared,
            Source::AlwaysServing => ServingStatus::Serving,
            Source::Unknown => ServingStatus::ServiceUnknown,
        }
    }
}

/// The service `grpc.health.v1.Health`.
pub(super) struct HealthService {
    /// The status of all names. `None` when the server shuts down, which ends every Watch.
    pub(super) status: watch::Receiver<Option<ServingStatus>>,
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let source = Source::of(&name);
        if source == Source::Unknown {
            let error = ProtocolError::UnknownService(excerpt(&name, MAX_VALUE));
            return Err(Error::from(error).into());
        }
        let status = match *self.status.borrow() {
            Some(shared) => source.status(shared),
            None => ServingStatus::NotServing,
        };
        Ok(Response::new(response(status)))
    }

    type WatchStream = stream::BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let source = Source::of(&request.get_ref().service);
        let changes = changes(self.status.clone(), source);
        Ok(Response::new(changes.map(|it| Ok(response(it))).boxed()))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

/// Returns the present status of a name and every later change of it. An unknown service stays
/// SERVICE_UNKNOWN, because the services are known at the start.
fn changes(
    status: watch::Receiver<Option<ServingStatus>>,
    source: Source,
) -> impl Stream<Item = ServingStatus> {
    stream::unfold((status, None), move |(mut status, last)| async move {
        let is_news = |now: &Option<ServingStatus>| match now {
            Some(now) => last != Some(source.status(*now)),
            None => true,
        };
        // Fails only after the sender is dropped, when the server is gone.
        let now = (*status.wait_for(is_news).await.ok()?)?;
        let reported = source.status(now);
        Some((reported, (status, Some(reported))))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_watch_reports_changes_only_and_ends_with_the_server() {
        let (sender, status) = watch::channel(Some(ServingStatus::NotServing));
        let mut known = Box::pin(changes(status.clone(), Source::Shared));
        let mut unknown = Box::pin(changes(status, Source::Unknown));
        let known = &mut known;
        let unknown = &mut unknown;
        assert_eq!(
            known.next().now_or_never().unwrap(),
            Some(ServingStatus::NotServing)
        );
        let is_unknown = Some(ServingStatus::ServiceUnknown);
        assert_eq!(unknown.next().now_or_never().unwrap(), is_unknown);
        sender.send_replace(Some(ServingStatus::NotServing));
        assert_eq!(known.next().now_or_never(), None);
        sender.send_replace(Some(ServingStatus::Serving));
        assert_eq!(
            known.next().now_or_never().unwrap(),
            Some(ServingStatus::Serving)
        );
        assert_eq!(unknown.next().now_or_never(), None);
        sender.send_replace(None);
        assert_eq!(known.next().now_or_never().unwrap(), None);
        assert_eq!(unknown.next().now_or_never().unwrap(), None);
    }
}
