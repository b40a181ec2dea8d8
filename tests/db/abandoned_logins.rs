//! Connections that are given up while the server owes an answer.

use bridgebook::db;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::database_address;

/// AuthenticationOk, BackendKeyData and ReadyForQuery, the answer to a login.
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";

/// PgBouncer does that while all its connections to the server are in use.
#[tokio::test]
async fn a_connection_whose_first_query_is_never_answered_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://node@127.0.0.1:{port}/book?sslmode=disable");
    let connected = tokio::spawn(async move { db::connect(&database_address(&url)).await.err() });
    let (mut socket, _) = listener.accept().await.unwrap();
    let length = socket.read_u32().await.unwrap();
    let mut startup = vec![0; length as usize - 4];
    socket.read_exact(&mut startup).await.unwrap();
    socket.write_all(WELCOME).await.unwrap();
    // The query, and then the end of the connection.
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest.first(), Some(&b'Q'));
    let error = connected.await.unwrap().unwrap().to_string();
    assert!(error.contains("no answer within"), "{error}");
}
