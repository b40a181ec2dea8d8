//! Exports traces over OTLP.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::ops::spans;

/// The service name of the traces, unless OTEL_SERVICE_NAME sets another one.
const SERVICE_NAME: &str = "bridgebook";

/// The longest time for sending the last spans at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Sends spans in the background, and the last ones when it is dropped. Spans that the collector
/// does not take are lost; calls never wait for it.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts to send spans to an endpoint.
    ///
    /// # Errors
    /// If the endpoint is not a URL.
    pub(super) fn to(endpoint: &str) -> Result<Self, String> {
        let fault = |error: &dyn std::fmt::Display| {
            format!("--otlp-endpoint: expected a URL, got {endpoint:?}: {error}")
        };
        let mut channel =
            Endpoint::from_shared(endpoint.to_owned()).map_err(|error| fault(&error))?;
        if !matches!(channel.uri().scheme_str(), Some("http" | "https")) {
            return Err(fault(&"it begins with neither http:// nor https://"));
        }
        if channel.uri().scheme_str() == Some("https") {
            let tls = ClientTlsConfig::new().with_native_roots();
            channel = channel.tls_config(tls).map_err(|error| fault(&error))?;
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel.connect_lazy())
            .build()
            .map_err(|error| fault(&error))?;
        let resource = Resource::builder();
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name(SERVICE_NAME),
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(exporter)
            .build();
        Ok(Traces(provider))
    }

    /// Returns the layer that exports the spans of [`spans`] and nothing else.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_ours = |metadata: &Metadata<'_>| metadata.target() == spans::TARGET;
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE_NAME))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_level(false)
            .with_target(false)
            .with_filter(filter_fn(is_ours))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        // Spans that are not sent in time are lost.
        let _ = self.0.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
    }
}
