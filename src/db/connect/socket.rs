//! Sockets to PostgreSQL.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_postgres::Config;
use tokio_util::either::Either;

/// A socket of either kind.
pub(super) type Socket = Either<TcpStream, UnixStream>;

/// Where a server listens.
#[derive(Debug, Clone)]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Endpoint {
    /// Returns the endpoints of a host: one for each address of its name.
    pub(super) async fn of(name: &str, port: u16, config: &Config) -> io::Result<Vec<Endpoint>> {
        if name.starts_with('/') {
            let path = PathBuf::from(name).join(format!(".s.PGSQL.{port}"));
            return Ok(vec![Endpoint::Unix(path)]);
        }
        if let Some(address) = config.get_hostaddrs().first() {
            return Ok(vec![Endpoint::Tcp((*address, port).into())]);
        }
        let found: Vec<_> = lookup_host((name, port))
            .await?
            .map(Endpoint::Tcp)
            .collect();
        match found.is_empty() {
            true => Err(io::Error::other("the name has no address")),
            false => Ok(found),
        }
    }

    /// Connects within the time that the address allows for it.
    pub(super) async fn connect(&self, config: &Config) -> io::Result<Socket> {
        let time = config.get_connect_timeout().copied();
        let connected = timeout(time.unwrap_or(Duration::MAX), self.open(config)).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn open(&self, config: &Config) -> io::Result<Socket> {
        let address = match self {
            Endpoint::Unix(path) => return Ok(Either::Right(UnixStream::connect(path).await?)),
            Endpoint::Tcp(address) => address,
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let socket = SockRef::from(&stream);
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(config.get_tcp_user_timeout().copied())?;
        if config.get_keepalives() {
            let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Ok(Either::Left(stream))
    }
}
