//! A way to PostgreSQL on which one can see which statements go over it.

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

/// A prepared statement that was run, and what came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    pub sql: String,
    pub rows: usize,
    /// How long the rows are together.
    pub bytes: usize,
}

/// What was run, in its order. A statement is noted before PostgreSQL has it, and
/// its rows before the service has them: whoever has an answer finds all of it here.
#[derive(Clone, Default)]
pub struct Tap(Arc<Mutex<Vec<Ran>>>);

impl Tap {
    /// Answers a URL that leads to where another one does, by way of this.
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
                // Small messages are not to wait for each other.
                client.set_nodelay(true).unwrap();
                let server = UnixStream::connect(&socket).await.unwrap();
                tokio::spawn(tap.clone().relay(client, server));
            }
        });
        let (before, after) = url.split_once('@').unwrap();
        let (_, after) = after.split_once('/').unwrap();
        format!("{before}@{address}/{after}")
    }

    /// How many statements were run so far.
    pub fn mark(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// What was run since then on tables of tenants: not what the service asks for
    /// now and then, such as for its health.
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
        // Either side ends it.
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
            // Names and SQL end with a zero.
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

/// Reads one message: its type, if it has one, and its length, which counts itself.
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
