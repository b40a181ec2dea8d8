//! A proxy to PostgreSQL that records the statements.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixStream},
};
use tokio_postgres::config::{Config, Host};

/// A prepared statement that was run, and its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    pub sql: String,
    pub rows: usize,
    /// The total length of the rows.
    pub bytes: usize,
}

/// The statements that were run, in order. A statement is recorded before PostgreSQL gets it,
/// and its rows before the service gets them. So the record is complete when a call returns.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Vec<Ran>>>);

impl Tap {
    /// Starts the proxy in front of a URL. Returns the URL of the proxy.
    pub async fn before(&self, url: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config: Config = url.parse().unwrap();
        let Some(Host::Unix(directory)) = config.get_hosts().first() else {
            panic!("no socket: {url}");
        };
        let socket = directory.join(format!(".s.PGSQL.{}", config.get_ports()[0]));
        let tap = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Small messages must not wait for each other.
                client.set_nodelay(true).unwrap();
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(tap.clone().relay(client, server));
            }
        });
        let (before, after) = url.split_once('@').unwrap();
        let (_, after) = after.split_once('/').unwrap();
        format!("{before}@{address}/{after}")
    }

    /// Returns the number of statements so far.
    pub fn mark(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Returns the later statements on tables of tenants. Statements of background tasks,
    /// such as health checks, are left out.
    pub fn since(&self, mark: usize) -> Vec<Ran> {
        let tables = ["workflow_", "metadata_stamps", "fsm_", "bridge_"];
        let ran = self.0.lock().unwrap();
        let ran = ran[mark..].iter();
        let ran = ran.filter(|it| tables.iter().any(|table| it.sql.contains(table)));
        ran.cloned().collect()
    }

    async fn relay(self, client: tokio::net::TcpStream, server: UnixStream) {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let current = Arc::new(Mutex::new(None));
        let asked = self.clone().requests(from_client, to_server, &current);
        // Either side may close the connection.
        tokio::select! {
            _ = asked => {}
            _ = self.clone().answers(from_server, to_client, &current) => {}
        }
    }

    async fn requests(
        self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        current: &Mutex<Option<usize>>,
    ) -> io::Result<()> {
        let mut prepared = HashMap::new();
        // The first message has no type.
        let first = message(&mut from, 0).await?;
        to.write_all(&first).await?;
        loop {
            let message = message(&mut from, 1).await?;
            // Names and SQL end with a zero byte.
            let mut texts = message[5..].split(|byte| *byte == 0);
            let mut text =
                || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
            match message[0] {
                b'P' => drop(prepared.insert(text(), text())),
                b'B' => {
                    let (_portal, name) = (text(), text());
                    let sql = prepared.get(&name).cloned().unwrap_or_default();
                    let mut ran = self.0.lock().unwrap();
                    *current.lock().unwrap() = Some(ran.len());
                    ran.push(Ran {
                        sql,
                        ..Ran::default()
                    });
                }
                _ => {}
            }
            to.write_all(&message).await?;
        }
    }

    async fn answers(
        self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        current: &Mutex<Option<usize>>,
    ) -> io::Result<()> {
        loop {
            let message = message(&mut from, 1).await?;
            if let (b'D', Some(current)) = (message[0], *current.lock().unwrap()) {
                let ran = &mut self.0.lock().unwrap()[current];
                ran.rows += 1;
                ran.bytes += message.len();
            }
            to.write_all(&message).await?;
        }
    }
}

/// Reads one message: its type, if it has one, and its length, which includes itself.
async fn message(from: &mut (impl AsyncRead + Unpin), type_bytes: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; type_bytes + 4];
    from.read_exact(&mut message).await?;
    let length = message[type_bytes..].try_into().unwrap();
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap();
    let start = message.len();
    message.resize(type_bytes + length, 0);
    from.read_exact(&mut message[start..]).await?;
    Ok(message)
}
