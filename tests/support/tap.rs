//! A proxy to PostgreSQL that records the statements. It can hold one back, or lose the answer
//! of a commit.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    sync::oneshot,
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
pub struct Tap {
    ran: Arc<Mutex<Vec<Ran>>>,
    hold: Arc<Mutex<Option<Hold>>>,
    /// A part of the next statement that writes and whose commit is not answered.
    loses: Arc<Mutex<Option<String>>>,
}

/// A statement to hold back.
struct Hold {
    /// A part of its text.
    sql: String,
    reached: oneshot::Sender<()>,
    release: oneshot::Receiver<()>,
}

/// A statement that is held back until the value is dropped.
pub struct Held {
    reached: oneshot::Receiver<()>,
    _release: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the service sends the statement.
    pub async fn reached(&mut self) {
        let reached = tokio::time::timeout(super::PATIENCE, &mut self.reached).await;
        reached.expect("the statement is sent").unwrap();
    }
}

/// What the two directions of a connection share.
#[derive(Default)]
struct Link {
    /// The index of the running statement.
    current: Mutex<Option<usize>>,
    /// Whether the next commit is not answered.
    loses: AtomicBool,
}

impl Tap {
    /// Holds back the next statement that contains this text.
    pub fn hold(&self, sql: &str) -> Held {
        let (reached, is_reached) = oneshot::channel();
        let (release, is_released) = oneshot::channel();
        *self.hold.lock().unwrap() = Some(Hold {
            sql: sql.to_owned(),
            reached,
            release: is_released,
        });
        Held {
            reached: is_reached,
            _release: release,
        }
    }

    /// Closes the connection of the next statement whose text or parameters contain `part`, and
    /// which writes, once its transaction is committed, and without its answer.
    pub fn lose_commit(&self, part: &str) {
        *self.loses.lock().unwrap() = Some(part.to_owned());
    }

    /// Forgets the commit that [`lose_commit`](Tap::lose_commit) names.
    pub fn keep_commits(&self) {
        *self.loses.lock().unwrap() = None;
    }

    /// Returns whether the answer that [`lose_commit`](Tap::lose_commit) names is lost.
    pub fn has_lost_commit(&self) -> bool {
        self.loses.lock().unwrap().is_none()
    }

    async fn hold_back(&self, sql: &str) {
        let hold = {
            let mut hold = self.hold.lock().unwrap();
            hold.take_if(|hold| sql.contains(&hold.sql))
        };
        if let Some(hold) = hold {
            // The test may have ended.
            let _ = hold.reached.send(());
            let _ = hold.release.await;
        }
    }

    fn is_lost(&self, sql: &str, message: &[u8]) -> bool {
        let writes = [
            "INSERT INTO",
            "UPDATE \"",
            "UPDATE fsm",
            "UPDATE node",
            "DELETE FROM",
        ];
        let writes = writes.iter().any(|word| sql.contains(word));
        let mut loses = self.loses.lock().unwrap();
        let is_lost = loses.as_ref().is_some_and(|part| {
            let mut windows = message.windows(part.len().max(1));
            sql.contains(part) || windows.any(|window| window == part.as_bytes())
        });
        writes && is_lost && loses.take().is_some()
    }

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
        // The proxy reads what it relays, and PostgreSQL has no TLS on its socket.
        let separator = if after.contains('?') { '&' } else { '?' };
        format!("{before}@{address}/{after}{separator}sslmode=disable")
    }

    /// Returns the number of statements so far.
    pub fn mark(&self) -> usize {
        self.ran.lock().unwrap().len()
    }

    /// Returns the later statements on tables of tenants. Statements of background tasks,
    /// such as health checks, and the first one of the feed, are left out.
    pub fn since(&self, mark: usize) -> Vec<Ran> {
        let tables = ["workflow_", "metadata_stamps", "fsm_", "bridge_"];
        let ran = self.ran.lock().unwrap();
        let ran = ran[mark..].iter();
        let ran = ran.filter(|it| tables.iter().any(|table| it.sql.contains(table)));
        let ran = ran.filter(|it| !it.sql.contains("'fsm_transitions'::regclass"));
        ran.cloned().collect()
    }

    /// Returns the texts of all later statements, in any table.
    pub fn texts_since(&self, mark: usize) -> BTreeSet<String> {
        let ran = self.ran.lock().unwrap();
        ran[mark..].iter().map(|it| it.sql.clone()).collect()
    }

    async fn relay(self, client: tokio::net::TcpStream, server: UnixStream) {
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let link = Link::default();
        let asked = self.clone().requests(from_client, to_server, &link);
        // Either side may close the connection.
        tokio::select! {
            _ = asked => {}
            _ = self.clone().answers(from_server, to_client, &link) => {}
        }
    }

    async fn requests(
        self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        link: &Link,
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
                    self.hold_back(&sql).await;
                    if self.is_lost(&sql, &message) {
                        link.loses.store(true, Ordering::SeqCst);
                    }
                    let mut ran = self.ran.lock().unwrap();
                    *link.current.lock().unwrap() = Some(ran.len());
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
        link: &Link,
    ) -> io::Result<()> {
        let mut kept = Vec::new();
        loop {
            let message = message(&mut from, 1).await?;
            if let (b'D', Some(current)) = (message[0], *link.current.lock().unwrap()) {
                let ran = &mut self.ran.lock().unwrap()[current];
                ran.rows += 1;
                ran.bytes += message.len();
            }
            kept.extend(&message);
            // ReadyForQuery ends an answer, and says whether a transaction is open.
            let is_end = message[0] == b'Z';
            if link.loses.load(Ordering::SeqCst) {
                if is_end && message[5] == b'I' {
                    return Ok(());
                }
                if !is_end {
                    continue;
                }
            }
            to.write_all(&std::mem::take(&mut kept)).await?;
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
