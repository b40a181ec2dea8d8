//! The composition root: builds the service, runs it, and shuts it down.

mod background;
mod call_threads;
mod embedded;
mod error;
mod schema;
mod shutdown;
mod startup_log;
mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use futures_util::FutureExt;
use prometheus::{IntCounter, IntGauge};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
};
use tonic::service::Routes;
use tonic_reflection::pb::{v1, v1alpha};
use tower::ServiceBuilder;

use self::{
    call_threads::CallThreads,
    embedded::serve_embedded,
    shutdown::Draining,
    startup_log::{log_database, log_listening},
};
pub use self::{error::ServeError, shutdown::Stop, tls::TlsState};
use crate::{
    config::{Auth, Config, DatabaseSource},
    db::{Database, DatabaseAddress, migrations},
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
        auth::{layer::AuthLayer, token_cache::TokenCache},
        call::{CallLayer, Cutoff, RepeatedLines},
        health::Health,
        limits::{LimitLayer, MAX_INFRASTRUCTURE_MESSAGE},
        quota::{Quotas, layer::QuotaLayer},
        reflection::Reflection,
        slices::use_encoded,
        transport::{backpressure::Load, listener::listen},
    },
    services::{
        admin::service::Admin,
        bridge_state::service::BridgeStates,
        fsm::service::Fsm,
        registry::service::Registry,
        server_info::{model::LimitsInForce, service::Server},
        workflow::service::Workflows,
    },
    util::{open_files, panics::keep_running},
};

/// The connections that wait to be accepted, if the system allows as many (net.core.somaxconn).
const BACKLOG: u32 = 4096;
/// Files that the process needs beside connections with an authenticated call: 256 for others, 256 for
/// those that are closing, and the rest for the database and the log.
const OTHER_FILES: usize = 768;

/// Serves until SIGTERM or SIGINT. A second one ends the drain.
///
/// # Errors
/// Every [`ServeError`].
pub async fn serve(config: Config, telemetry: &Telemetry) -> Result<(), ServeError> {
    let stop = Stop::by_signals()?;
    let metrics = Metrics::new()?;
    count_dropped_lines(&metrics, telemetry)?;
    let tls = TlsState::load(&config)?;
    let listeners = Listeners::bind(&config)?;
    check_open_files(&config);
    match &config.database {
        DatabaseSource::External(address) => {
            log_database(address);
            run(
                &config,
                &tls,
                &metrics,
                address,
                config.migrate,
                listeners,
                stop,
            )
            .await?;
        }
        DatabaseSource::Embedded(data_dir) => {
            let settings = crate::embedded::Settings::new(data_dir);
            serve_embedded(&config, &tls, &metrics, settings, listeners, stop).await?;
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// The ports of the service.
pub struct Listeners {
    /// The port of gRPC.
    pub calls: TcpListener,
    /// The port for metrics and health checks over HTTP, if it is on.
    pub metrics: Option<TcpListener>,
}

impl Listeners {
    /// Binds the ports of the settings, before anything is done to the database. Port 0 stands for
    /// any free port.
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    pub fn bind(config: &Config) -> Result<Self, ServeError> {
        Ok(Listeners {
            calls: bind(config.listen)?,
            metrics: config.metrics_listen.map(bind).transpose()?,
        })
    }
}

/// Serves the database at `url` on `listeners` until a stop is requested, then drains.
///
/// Listeners and URL are passed beside the settings because they are known by now: the port that was
/// free, the PostgreSQL that was started.
///
/// # Errors
/// Every [`ServeError`].
pub async fn run(
    config: &Config,
    tls: &TlsState,
    metrics: &Metrics,
    address: &DatabaseAddress,
    migrate: bool,
    listeners: Listeners,
    stop: Stop,
) -> Result<(), ServeError> {
    log_listening(&listeners, config);
    register_certificate_expiry(metrics, tls)?;
    let http = async {
        match listeners.metrics {
            Some(listener) => {
                let serve = || endpoint::serve(&listener, metrics.clone());
                keep_running("metrics endpoint", metrics.panics(), serve).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = serve_calls(config, tls, metrics, address, migrate, listeners.calls, stop) => result,
        () = http => Ok(()),
    }
}

async fn serve_calls(
    config: &Config,
    tls: &TlsState,
    metrics: &Metrics,
    address: &DatabaseAddress,
    migrate: bool,
    listener: TcpListener,
    mut stop: Stop,
) -> Result<(), ServeError> {
    let database = Database::new(address, config.database_connections, metrics);
    let token_cache = (config.auth == Auth::Tokens).then(|| TokenCache::new(database.clone()));
    metrics.namespaces().set_limit(config.metrics_namespaces);
    metrics.tokens().set_limit(config.metrics_tokens);
    let quotas = Quotas::new(&database, config.limits.quotas);
    let (health, health_service) = Health::new(metrics);

    let content = config.limits.content;
    let page_token_key = Arc::new(OnceLock::new());
    let reflection = Reflection::new(proto::DESCRIPTORS)?;
    let max = MAX_INFRASTRUCTURE_MESSAGE;
    let newest = v1::server_reflection_server::ServerReflectionServer::new(reflection.clone());
    let alpha = v1alpha::server_reflection_server::ServerReflectionServer::new(reflection);
    let routes = Routes::new(health_service.max_decoding_message_size(max))
        .add_service(newest.max_decoding_message_size(max))
        .add_service(alpha.max_decoding_message_size(max));
    let limits = LimitsInForce {
        content,
        call_duration: config.call_timeout,
        quotas: quotas.clone(),
    };
    let routes = with_services(routes, &database, limits).prepare();
    let cutoff = Cutoff::default();
    let auth = AuthLayer {
        token_cache: token_cache.clone(),
        certificate_mapping: tls.certificate_mapping.clone(),
    };
    let known = auth.known_tokens();
    let service = ServiceBuilder::new()
        // Request id, panics, deadline, log and metrics.
        .layer(CallLayer {
            max_duration: config.call_timeout,
            slow: config.slow_call,
            limits: content,
            page_token_key: Arc::clone(&page_token_key),
            header_bytes: config.limits.connection.header_bytes,
            metrics: metrics.clone(),
            repeated_lines: RepeatedLines::default(),
            cutoff: cutoff.clone(),
        })
        // Load shedding: concurrent calls, memory.
        .layer(LimitLayer::new(&config.limits, config.call_timeout, known))
        // Authentication.
        .layer(auth)
        // Quotas of tokens; those of tenants follow once the message is read.
        .layer(QuotaLayer(quotas.clone()))
        // Responses that their handlers have encoded.
        .map_response(use_encoded)
        .service(routes);
    let (begin_drain, drained) = oneshot::channel::<()>();
    // The drain begins when the sender is used or dropped.
    let drained = async { drop(drained.await) };
    let (tls_in_use, counted) = (tls.tls.clone(), metrics.clone());
    let limits = config.limits.connection.clone();
    let load = Load::new(config.limits.work_slots());
    let threads = CallThreads::start()?;
    let calls = Arc::clone(&load);
    let server = threads.run(async move {
        listen(
            listener, tls_in_use, limits, calls, &counted, service, drained,
        )
        .await;
    });
    let server = server.fuse();
    let background = async {
        let key = schema::prepare(address, migrate).await?;
        database.mark_ready();
        // Calls are refused until the key is known, and health is NOT_SERVING until the tasks below
        // run. So no call is admitted before its quota is known.
        quotas.load().await;
        page_token_key.get_or_init(|| key);
        let newest = migrations::newest().to_owned();
        let health = health.clone();
        let tasks = background::Tasks {
            config,
            database: &database,
            address,
            newest,
            health,
            token_cache,
            quotas,
            load,
        };
        tasks.run().await;
        Ok(())
    };
    tokio::pin!(server);
    tokio::select! {
        () = &mut server => return Ok(()),
        result = background => return result,
        () = keep_running("file watch", metrics.panics(), || tls.watch(config)) => {}
        () = stop.requested() => {}
    }
    let service = Draining {
        config,
        health: &health,
        database: &database,
        begin_drain,
        cutoff,
    };
    service.drain(server, stop).await;
    Ok(())
}

/// Adds our services, which accept messages up to the limit in force.
fn with_services(routes: Routes, database: &Database, limits: LimitsInForce) -> Routes {
    let workflows = WorkflowServiceServer::new(Workflows::new(database.clone()));
    let fsm = FsmServiceServer::new(Fsm::new(database.clone()));
    let bridges = BridgeStateServiceServer::new(BridgeStates::new(database.clone()));
    let registry = RegistryServiceServer::new(Registry::new(database.clone()));
    let admin = AdminServiceServer::new(Admin::new(database.clone(), limits.quotas.clone()));
    let max = limits.content.message_bytes;
    let server = ServerServiceServer::new(Server::new(database.clone(), limits));
    routes
        .add_service(workflows.max_decoding_message_size(max))
        .add_service(fsm.max_decoding_message_size(max))
        .add_service(bridges.max_decoding_message_size(max))
        .add_service(registry.max_decoding_message_size(max))
        .add_service(admin.max_decoding_message_size(max))
        .add_service(server.max_decoding_message_size(max))
}

/// Raises the limit of open files, and warns if it is too low for the connections.
fn check_open_files(config: &Config) {
    let needed = config.limits.connection.connections + OTHER_FILES;
    let limit = open_files::raise_limit();
    if limit.is_some_and(|limit| limit < needed as u64) {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files is too low for --max-connections"
        );
    }
}

fn count_dropped_lines(metrics: &Metrics, telemetry: &Telemetry) -> prometheus::Result<()> {
    let dropped = metrics.register(IntCounter::new(
        "bridgebook_log_lines_dropped_total",
        "Log lines dropped because the log buffer was full.",
    )?)?;
    let lines = telemetry.dropped_lines();
    metrics.on_scrape(move || {
        let count = u64::try_from(lines.dropped_lines()).unwrap_or(u64::MAX);
        metrics::catch_up(&dropped, count);
    });
    Ok(())
}

fn register_certificate_expiry(metrics: &Metrics, tls: &TlsState) -> prometheus::Result<()> {
    let gauge = metrics.register(IntGauge::new(
        "bridgebook_tls_certificate_expiry_timestamp_seconds",
        "Unix time at which the first certificate of the server's chain expires; 0 without TLS.",
    )?)?;
    if let Some(tls) = tls.tls.clone() {
        metrics.on_scrape(move || {
            gauge.set(i64::try_from(tls.expires_at().as_secs()).unwrap_or(i64::MAX))
        });
    }
    Ok(())
}

/// Binds a port. A flood of connections waits in the backlog rather than being dropped, because a
/// client that is dropped tries again only after a second.
fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Lets a restart bind the port while connections of the former process are closing.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| ServeError::Listen { address, source })
}
