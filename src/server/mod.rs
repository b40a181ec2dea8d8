//! The composition root: puts the service together, runs it, and takes it down.

mod background;
mod embedded;
mod shutdown;
mod startup_log;
mod tls;

use std::{future::Future, net::SocketAddr, time::Duration};

use prometheus::{IntCounter, IntGauge};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tonic::service::Routes;
use tower::ServiceBuilder;

pub use self::tls::TlsState;
use self::{embedded::serve_embedded, shutdown::drain, startup_log::announce};
use crate::{
    config::{Auth, Config, DatabaseSource},
    db::{Database, migrations, pooler_check},
    ops::{
        metrics::{self, Metrics, endpoint},
        telemetry::Telemetry,
    },
    proto::{
        self,
        v1::{
            admin_service_server::AdminServiceServer,
            bridge_state_service_server::BridgeStateServiceServer,
            fsm_service_server::FsmServiceServer, registry_service_server::RegistryServiceServer,
            server_service_server::ServerServiceServer,
            workflow_service_server::WorkflowServiceServer,
        },
    },
    rpc::{
        auth::{certificate::CertificateMappingError, layer::AuthLayer, token_cache::TokenCache},
        call::CallLayer,
        health::Health,
        limits::LimitLayer,
        transport::{listener::listen, tls::TlsError},
    },
    services::{
        admin::service::Admin,
        bridge_state::service::BridgeStates,
        fsm::service::Fsm,
        registry::service::Registry,
        server_info::{model::LimitsInForce, service::Server},
        workflow::service::Workflows,
    },
};

/// How often a database that is away is looked for at the start.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why the service failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Signals can't be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
    /// The private PostgreSQL failed.
    #[error("the private PostgreSQL failed")]
    Embedded(#[from] crate::embedded::EmbeddedError),
    /// The schema lacks migrations.
    #[error(
        "the schema of the database is behind, it lacks {}; run `bridgebook migrate up`, or start with --migrate",
        .0.join(", ")
    )]
    SchemaBehind(Vec<String>),
    /// A pooler shares sessions.
    #[error(
        "a connection pooler before the database shares sessions between its clients; prepared \
         statements and settings would get lost there: use pool_mode = session"
    )]
    SharedSessions,
    /// The schema can't be read or brought up to date.
    #[error("the schema of the database could not be made ready")]
    Schema(#[from] migrations::MigrationError),
    /// The reflection service could not be built.
    #[error("the descriptors of the contract are not valid")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// What is counted has names that can't be.
    #[error("the figures have names that can't be")]
    Metrics(#[from] prometheus::Error),
    /// There can be no TLS.
    #[error("TLS is not possible")]
    Tls(#[from] TlsError),
    /// Clients' certificates stand for nobody.
    #[error("the tokens of clients' certificates are not known")]
    CertificateMapping(#[from] CertificateMappingError),
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Every [`ServeError`].
pub async fn serve(config: Config, telemetry: &Telemetry) -> Result<(), ServeError> {
    let stop = stop_signal()?;
    let metrics = Metrics::new()?;
    count_dropped_lines(&metrics, telemetry)?;
    let tls = TlsState::load(&config)?;
    let listener = bind(config.listen).await?;
    match &config.database {
        DatabaseSource::Url(url) => {
            let migrate = config.migrate;
            run(&config, &tls, &metrics, url, migrate, listener, stop).await?;
        }
        DatabaseSource::Embedded(data_dir) => {
            let settings = crate::embedded::Settings::new(data_dir);
            serve_embedded(&config, &tls, &metrics, settings, listener, stop).await?;
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Serves the database at `url` on `listener` until `stop` ends, then drains.
/// Address and database are given beside the settings, because by now they are
/// known: the port that was free, the cluster that was started.
///
/// # Errors
/// Every [`ServeError`].
pub async fn run(
    config: &Config,
    tls: &TlsState,
    metrics: &Metrics,
    url: &str,
    migrate: bool,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    announce(&listener, config);
    tell_when_certificate_ends(metrics, tls)?;
    let figures = match config.metrics_listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let figures = async {
        match figures {
            Some(listener) => endpoint::serve(listener, metrics.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = serve_calls(config, tls, metrics, url, migrate, listener, stop) => result,
        () = figures => Ok(()),
    }
}

async fn serve_calls(
    config: &Config,
    tls: &TlsState,
    metrics: &Metrics,
    url: &str,
    migrate: bool,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let database = Database::new(url, config.database_connections, metrics);
    let token_cache = (config.auth == Auth::Tokens)
        .then(|| TokenCache::new(database.clone(), config.limits.rate));
    let (health, health_service) = Health::new(metrics).await;

    let content = config.limits.content;
    let routes = Routes::new(health_service)
        .add_service(reflection()?.build_v1()?)
        .add_service(reflection()?.build_v1alpha()?);
    let limits = LimitsInForce {
        content,
        call_duration: config.call_timeout,
        calls_per_second: config.limits.rate,
    };
    let routes = with_services(routes, &database, limits).prepare();
    let service = ServiceBuilder::new()
        // A request id, a deadline, and what is counted and logged of it.
        .layer(CallLayer {
            max_duration: config.call_timeout,
            slow: config.slow_call,
            limits: content,
            metrics: metrics.clone(),
        })
        // Not more than we can do.
        .layer(LimitLayer::new(&config.limits, config.call_timeout))
        // Who calls.
        .layer(AuthLayer {
            token_cache: token_cache.clone(),
            certificate_mapping: tls.certificate_mapping.clone(),
        })
        .service(routes);
    let (begin_drain, drained) = oneshot::channel::<()>();
    // Dropped or sent: either way it is time.
    let drained = async { drop(drained.await) };
    let connections = config.limits.connection.clone();
    let server = listen(
        listener,
        tls.tls.clone(),
        connections,
        metrics.connections().clone(),
        service,
        drained,
    );
    let background = async {
        prepare(url, migrate).await?;
        database.mark_ready();
        let newest = migrations::newest()?;
        let health = health.clone();
        background::run(config, &database, url, newest, health, token_cache, metrics).await;
        Ok(())
    };
    tokio::pin!(server);
    tokio::select! {
        () = &mut server => return Ok(()),
        result = background => return result,
        () = tls.watch(config) => {}
        () = stop => {}
    }
    drain(config, &health, &database, begin_drain, server).await;
    Ok(())
}

/// Adds our services, which accept messages up to the limit in force.
fn with_services(routes: Routes, database: &Database, limits: LimitsInForce) -> Routes {
    let workflows = WorkflowServiceServer::new(Workflows::new(database.clone()));
    let fsm = FsmServiceServer::new(Fsm::new(database.clone()));
    let bridges = BridgeStateServiceServer::new(BridgeStates::new(database.clone()));
    let registry = RegistryServiceServer::new(Registry::new(database.clone()));
    let admin = AdminServiceServer::new(Admin::new(database.clone()));
    let server = ServerServiceServer::new(Server::new(database.clone(), limits));
    let max = limits.content.message_bytes;
    routes
        .add_service(workflows.max_decoding_message_size(max))
        .add_service(fsm.max_decoding_message_size(max))
        .add_service(bridges.max_decoding_message_size(max))
        .add_service(registry.max_decoding_message_size(max))
        .add_service(admin.max_decoding_message_size(max))
        .add_service(server.max_decoding_message_size(max))
}

fn reflection() -> Result<tonic_reflection::server::Builder<'static>, ServeError> {
    Ok(tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        // So that grpcurl can show the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET))
}

/// Waits for the database and makes sure of its schema.
async fn prepare(url: &str, migrate: bool) -> Result<(), ServeError> {
    let mut told = String::new();
    loop {
        if pooler_check::shares_sessions(url).await {
            return Err(ServeError::SharedSessions);
        }
        let outcome = match migrate {
            true => migrations::up(url).await.map(|applied| {
                if !applied.is_empty() {
                    tracing::info!("applied migrations {}", applied.join(", "));
                }
            }),
            false => match migrations::pending(url).await {
                Ok(pending) if !pending.is_empty() => {
                    return Err(ServeError::SchemaBehind(pending));
                }
                other => other.map(drop),
            },
        };
        match outcome {
            Err(migrations::MigrationError::Connect(error)) => {
                let cause = error.to_string();
                if cause != told {
                    tracing::warn!(cause, "waiting for the database");
                    told = cause;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

fn count_dropped_lines(metrics: &Metrics, telemetry: &Telemetry) -> prometheus::Result<()> {
    let dropped = metrics.register(IntCounter::new(
        "bridgebook_log_lines_dropped_total",
        "Lines of the log that were left out because nobody took them.",
    )?)?;
    let lines = telemetry.dropped_lines();
    metrics.on_scrape(move || {
        let count = u64::try_from(lines.dropped_lines()).unwrap_or(u64::MAX);
        metrics::follow(&dropped, count);
    });
    Ok(())
}

fn tell_when_certificate_ends(metrics: &Metrics, tls: &TlsState) -> prometheus::Result<()> {
    let gauge = metrics.register(IntGauge::new(
        "bridgebook_tls_certificate_expiry_timestamp_seconds",
        "When our certificate, or one between it and its root, ends, since 1970; 0 without TLS.",
    )?)?;
    if let Some(tls) = tls.tls.clone() {
        metrics.on_scrape(move || {
            gauge.set(i64::try_from(tls.expires_at().as_secs()).unwrap_or(i64::MAX))
        });
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| ServeError::Listen { address, source })
}

/// Ends at the first SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, ServeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
