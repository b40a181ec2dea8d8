//! The composition root: puts the service together, runs it, and takes it down.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures_util::TryStreamExt;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::server::HealthReporter;

use crate::{
    access::{layer::AccessLayer, verifier::Verifier},
    admin::service::Admin,
    bridge_state::service::BridgeStates,
    config::{Auth, Config, DatabaseSource, is_local},
    connection::Connection,
    db::{Database, migrations},
    embedded::{self, Embedded},
    error::chain,
    fsm::service::Fsm,
    health,
    proto::{
        self,
        v1::{
            admin_service_server::AdminServiceServer,
            bridge_state_service_server::BridgeStateServiceServer,
            fsm_service_server::FsmServiceServer, registry_service_server::RegistryServiceServer,
            workflow_service_server::WorkflowServiceServer,
        },
    },
    registry::{service::Registry, sweeper},
    request::CallLayer,
    workflow::service::Workflows,
};

/// How often a database that is away is looked for at the start.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a call, and what a connection, may send before it has to wait until
/// something of it was read, in bytes: a usual batch, and some of them. It bounds
/// the memory that a client takes which sends without end.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// How many calls a connection may have under way; clients let more wait.
const MAX_STREAMS: u32 = 256;

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
    Embedded(#[from] embedded::EmbeddedError),
    /// The schema lacks migrations.
    #[error(
        "the schema of the database is behind, it lacks {}; run `bridgebook migrate up`, or start with --migrate",
        .0.join(", ")
    )]
    SchemaBehind(Vec<String>),
    /// The schema can't be read or brought up to date.
    #[error("the schema of the database could not be made ready")]
    Schema(#[from] migrations::MigrationError),
    /// The reflection service could not be built.
    #[error("the descriptors of the contract are not valid")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the transport failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// Every [`ServeError`].
pub async fn serve(config: Config) -> Result<(), ServeError> {
    let stop = stop_signal()?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| ServeError::Listen {
            address: config.listen,
            source,
        })?;
    match &config.database {
        DatabaseSource::Url(url) => run(&config, url, config.migrate, listener, stop).await,
        DatabaseSource::Embedded(data_dir) => {
            let settings = embedded::Settings::new(data_dir);
            serve_embedded(&config, settings, listener, stop).await
        }
    }
}

/// Serves a private PostgreSQL, from its start to its stop.
async fn serve_embedded(
    config: &Config,
    settings: embedded::Settings,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    tokio::pin!(stop);
    let embedded = tokio::select! {
        embedded = Embedded::start(settings.clone()) => embedded?,
        // Dropped in the middle, the start leaves nothing behind that runs.
        () = &mut stop => return Ok(()),
    };
    let url = embedded.database_url();
    let mut embedded = Some(embedded);
    let result = tokio::select! {
        result = run(config, &url, true, listener, stop) => result,
        error = keep_running(&mut embedded, &settings) => Err(error.into()),
    };
    let stopped = match embedded {
        Some(embedded) => embedded.stop().await.map_err(ServeError::from),
        None => Ok(()),
    };
    result.and(stopped)
}

/// Starts the private PostgreSQL again whenever it crashes, until that fails.
async fn keep_running(
    embedded: &mut Option<Embedded>,
    settings: &embedded::Settings,
) -> embedded::EmbeddedError {
    loop {
        if let Some(running) = embedded {
            let crash = running.crashed().await;
            tracing::error!("{}; starting it again", chain(&crash));
        }
        // What is left of it goes first, with the lock on the data directory.
        *embedded = None;
        match Embedded::start(settings.clone()).await {
            Ok(running) => *embedded = Some(running),
            Err(error) => return error,
        }
    }
}

/// Serves the database at `url` on `listener` until `stop` ends, then drains.
/// Address and database are given beside the settings, because by now they are
/// known: the port that was free, the cluster that was started.
///
/// # Errors
/// Every [`ServeError`].
pub async fn run(
    config: &Config,
    url: &str,
    migrate: bool,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    announce(&listener, config);
    let database = Database::new(url, config.database_connections);
    let (reporter, health_service) = tonic_health::server::health_reporter();
    health::set(&reporter, false).await;

    let verifier = (config.auth == Auth::Tokens).then(|| Verifier::new(database.clone()));
    let (begin_drain, drain) = oneshot::channel::<()>();
    let server = Server::builder()
        // Clients that are gone without a word are noticed, and so are we.
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        // A large batch arrives without waiting to be let on.
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        // A request id and a deadline for every call.
        .layer(CallLayer {
            longest: config.call_timeout,
        })
        // Who calls.
        .layer(AccessLayer {
            verifier: verifier.clone(),
        })
        .add_service(health_service)
        .add_service(reflection()?.build_v1()?)
        .add_service(reflection()?.build_v1alpha()?)
        .add_service(WorkflowServiceServer::new(Workflows::new(database.clone())))
        .add_service(FsmServiceServer::new(Fsm::new(database.clone())))
        .add_service(BridgeStateServiceServer::new(BridgeStates::new(
            database.clone(),
        )))
        .add_service(RegistryServiceServer::new(Registry::new(database.clone())))
        .add_service(AdminServiceServer::new(Admin::new(database.clone())))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener)
                .with_nodelay(Some(true))
                .map_ok(Connection::from),
            // Dropped or sent: either way it is time.
            async { drop(drain.await) },
        );
    let server = async { server.await.map_err(ServeError::from) };
    let ready = async {
        prepare(url, migrate).await?;
        database.open();
        let watch = health::watch(reporter.clone(), url.to_owned(), migrations::newest()?);
        let sweeper = sweeper::run(database, config.sweep_interval, config.sweep_grace);
        let verifier = async {
            if let Some(verifier) = verifier {
                verifier.run().await;
            }
        };
        tokio::join!(watch, sweeper, verifier);
        Ok(())
    };
    tokio::pin!(server);
    tokio::select! {
        result = &mut server => return result,
        result = ready => return result,
        () = stop => {}
    }
    drain_calls(&reporter, begin_drain, server, config.drain_timeout).await
}

/// Says where we listen, and what that means.
fn announce(listener: &TcpListener, config: &Config) {
    let Ok(address) = listener.local_addr() else {
        return;
    };
    tracing::info!("listening on {address}");
    if is_local(address) && config.auth == Auth::None {
        tracing::info!("without tokens: whoever is on this machine can read and write everything");
    }
    if is_local(address) {
        return;
    }
    if config.auth == Auth::None {
        tracing::warn!(
            "--insecure: whoever reaches {address} can read and write everything, without a token"
        );
    }
    tracing::warn!(
        "--insecure: without TLS, whoever is on the way to {address} can read everything"
    );
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
    loop {
        let outcome = match migrate {
            true => migrations::up(url).await.map(|applied| {
                if !applied.is_empty() {
                    tracing::info!("applied migrations {}", applied.join(", "));
                }
            }),
            false => {
                let status = migrations::status(url).await;
                let pending = status.map(|migrations| {
                    let pending = migrations
                        .into_iter()
                        .filter(|migration| migration.applied_at.is_none());
                    pending.map(|migration| migration.name).collect::<Vec<_>>()
                });
                match pending {
                    Ok(pending) if !pending.is_empty() => {
                        return Err(ServeError::SchemaBehind(pending));
                    }
                    other => other.map(drop),
                }
            }
        };
        match outcome {
            Err(migrations::MigrationError::Connect(error)) => {
                tracing::warn!("waiting for the database: {error}");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// Tells everybody that we are about to go, takes no more calls, and lets those
/// under way end, for so long.
async fn drain_calls(
    reporter: &HealthReporter,
    begin_drain: oneshot::Sender<()>,
    server: impl Future<Output = Result<(), ServeError>>,
    patience: Duration,
) -> Result<(), ServeError> {
    tracing::info!("stopping: NOT_SERVING, letting the calls under way end");
    health::set(reporter, false).await;
    // Whoever watches is told, and let go: a watch would last for ever.
    health::clear(reporter).await;
    drop(begin_drain);
    match tokio::time::timeout(patience, server).await {
        Ok(result) => result,
        Err(_) => {
            tracing::warn!("some calls did not end within {} s", patience.as_secs());
            Ok(())
        }
    }
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
