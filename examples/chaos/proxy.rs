//! A way on which connections can be cut where it hurts.

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

/// Where a way leads to.
#[derive(Clone)]
pub enum Target {
    /// The service.
    Address(SocketAddr),
    /// PostgreSQL.
    Socket(PathBuf),
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Lives,
    /// It is cut, whatever is on it.
    Cut,
    /// What is asked next goes through, and what comes back is swallowed; then it is cut:
    /// a commit whose answer is lost.
    LosesAnswer,
}

/// A way, and all connections on it.
pub struct Proxy {
    /// Where it begins.
    pub address: SocketAddr,
    links: Links,
}

type Links = Arc<Mutex<Vec<watch::Sender<Fate>>>>;

impl Proxy {
    /// Opens a way.
    pub async fn to(target: Target) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let links = Links::default();
        let all = Arc::clone(&links);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (fate, decided) = watch::channel(Fate::Lives);
                lock(&all).push(fate);
                let target = target.clone();
                // Either end may go whenever it likes.
                tokio::spawn(async move { drop(link(client, target, decided).await) });
            }
        });
        Ok(Proxy { address, links })
    }

    /// Decides the fate of one connection, if there are any; answers whether there are.
    pub fn strike(&self, random: &mut fastrand::Rng, fate: Fate) -> bool {
        let mut links = lock(&self.links);
        links.retain(|link| !link.is_closed());
        match random.choice(links.iter()) {
            Some(link) => link.send(fate).is_ok(),
            None => false,
        }
    }
}

fn lock(links: &Links) -> MutexGuard<'_, Vec<watch::Sender<Fate>>> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn link(client: TcpStream, target: Target, fate: watch::Receiver<Fate>) -> io::Result<()> {
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
    let answers = fate.clone();
    tokio::select! {
        asked = pass(from_client, to_server, || false) => asked,
        answered = pass(from_server, to_client, || *answers.borrow() == Fate::LosesAnswer) => answered,
        _ = fate.wait_for(|fate| *fate == Fate::Cut) => Ok(()),
    }
}

/// Passes bytes on, until those come that are lost.
async fn pass(
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
