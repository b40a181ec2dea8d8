//! Clients that ask for large lists and do not read them.

use std::net::{Ipv4Addr, SocketAddr};

use h2::client::ResponseFuture;
use tokio::net::TcpSocket;

use crate::{
    Options, Result,
    load::{End, closed, count, median, percentile},
    neighbours::{CALLERS, singles},
    requests::Tenant,
};

/// The address of the clients: another one of this machine than B's.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The numbers of clients.
const CLIENTS: [usize; 2] = [1, 8];
/// The lists that each of them asks for.
const LISTS: usize = 256;
/// The size of the document of a step, in bytes. A page has 1000 steps.
const STEP_BYTES: usize = 1800;

/// A client that asked, and does not read.
struct SlowReader {
    _responses: Vec<ResponseFuture>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl SlowReader {
    async fn connect(tenant: &Tenant, address: SocketAddr) -> Result<Self> {
        // Without tokens an address has one share, and B is another caller.
        let socket = TcpSocket::new_v4()?;
        socket.bind((SOURCE, 0).into())?;
        let stream = socket.connect(address).await?;
        let (client, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::spawn(async { drop(connection.await) });
        let list = tenant.list()?;
        let mut responses = Vec::new();
        for _ in 0..LISTS {
            let request = http::Request::post(list.uri.clone())
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())?;
            let mut client = client.clone().ready().await?;
            let (response, mut stream) = client.send_request(request, false)?;
            stream.send_data(list.message.clone(), true)?;
            responses.push(response);
        }
        Ok(SlowReader {
            _responses: responses,
            connection,
        })
    }
}

/// Prints B's latencies beside such clients, as ratios of those without them.
pub async fn measure(address: SocketAddr, options: &Options) -> Result<()> {
    let lists = Tenant::new(address, STEP_BYTES).await?;
    println!("| clients that do not read | B's p50, ratio | p99, ratio | B's failed calls |");
    println!("|--:|--:|--:|--:|");
    for clients in CLIENTS {
        let (mut p50, mut p99, mut failed) = (Vec::new(), Vec::new(), 0);
        for round in 1..=options.rounds {
            eprintln!(
                "{clients} slow readers, round {round} of {}",
                options.rounds
            );
            let calls = async || {
                let requests = singles(Tenant::new(address, 0).await?);
                closed(address, CALLERS, requests, options.window()).await
            };
            let without = calls().await?;
            let mut readers = Vec::new();
            for _ in 0..clients {
                readers.push(SlowReader::connect(&lists, address).await?);
            }
            let beside = calls().await?;
            drop(readers);
            let ratio = |percent| {
                percentile(&beside, End::Ok, percent).div_duration_f64(percentile(
                    &without,
                    End::Ok,
                    percent,
                ))
            };
            p50.push(ratio(50));
            p99.push(ratio(99));
            failed += beside.len() - count(&beside, End::Ok);
        }
        println!(
            "| {clients} | {:.1} | {:.1} | {failed} |",
            median(p50),
            median(p99)
        );
    }
    Ok(())
}
