//! A TCP proxy that can cut a connection, or lose the next response on it.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
};

/// The upstream of a proxy.
#[derive(Clone)]
pub enum Target {
    /// The service.
    Address(SocketAddr),
    /// PostgreSQL.
    Socket(PathBuf),
}

/// The fate of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays open.
    Lives,
    /// It is cut at once.
    Cut,
    /// The next request passes, but its response is dropped and the connection is cut. For a
    /// write, the commit succeeds and the acknowledgement is lost.
    LosesResponse,
}

/// A proxy and its connections.
pub struct Proxy {
    /// The address that it listens on.
    pub address: SocketAddr,
    connections: Connections,
}

type Connections = Arc<Mutex<Vec<watch::Sender<Fate>>>>;

impl Proxy {
    /// Starts a proxy on a free port.
    pub async fn to(target: Target) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Connections::default();
        let all = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (fate, decided) = watch::channel(Fate::Lives);
                lock(&all).push(fate);
                let target = target.clone();
                // Either end may close at any time.
                tokio::spawn(async move { drop(forward(client, target, decided).await) });
            }
        });
        Ok(Proxy {
            address,
            connections,
        })
    }

    /// Sets the fate of a random connection. Returns false if there is none.
    pub fn decide(&self, random: &mut fastrand::Rng, fate: Fate) -> bool {
        let mut connections = lock(&self.connections);
        connections.retain(|it| !it.is_closed());
        match random.choice(connections.iter()) {
            Some(connection) => connection.send(fate).is_ok(),
            None => false,
        }
    }
}

fn lock(connections: &Connections) -> MutexGuard<'_, Vec<watch::Sender<Fate>>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(client: TcpStream, target: Target, fate: watch::Receiver<Fate>) -> io::Result<()> {
    client.set_nodelay(true)?;
    match target {
        Target::Address(address) => {
            let server = TcpStream::connect(address).await?;
            server.set_nodelay(true)?;
            relay(client, server, fate).await
        }
        Target::Socket(path) => relay(client, UnixStream::connect(path).await?, fate).await,
    }
}

async fn relay(
    client: TcpStream,
    server: impl AsyncRead + AsyncWrite,
    mut fate: watch::Receiver<Fate>,
) -> io::Result<()> {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    let responses = fate.clone();
    tokio::select! {
        sent = copy(from_client, to_server, || false) => sent,
        received = copy(from_server, to_client, || *responses.borrow() == Fate::LosesResponse) => received,
        _ = fate.wait_for(|fate| *fate == Fate::Cut) => Ok(()),
    }
}

/// Copies bytes until the end, or until bytes arrive that must be lost.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    is_lost: impl Fn() -> bool,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 || is_lost() {
            return Ok(());
        }
        to.write_all(bytes.get(..count).unwrap_or_default()).await?;
    }
}
