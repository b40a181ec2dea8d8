//! One of the two databases, with a service on it.

use std::{
    ffi::OsStr,
    time::{Duration, Instant},
};

use h2::client::SendRequest;
use prost::bytes::Bytes;

use crate::{
    Result,
    call::{call, connect},
    case::{Answered, Ask, Case, PAGE},
    cases,
    cluster::Cluster,
    service::Service,
    world::{World, mixed},
};

/// How many rows the pages have that are passed over: as many as a page may have.
const STRIDE: u64 = 1000;

/// A service, a connection to it, and what to ask it.
pub struct Side {
    service: Service,
    connection: SendRequest<Bytes>,
    /// The cases, with requests for this database.
    pub cases: Vec<Case>,
}

/// A call that was answered.
pub struct Called {
    /// How long it took.
    pub took: Duration,
    /// How many rows the answer has.
    pub rows: usize,
}

impl Side {
    /// Starts a service on a database.
    pub async fn start(cluster: &Cluster, database: &str, world: World) -> Result<Self> {
        let url = cluster.url(database);
        let service = Service::start(&["--database-url".as_ref(), OsStr::new(&url)]).await?;
        eprintln!("{database}: served after {} ms", service.took.as_millis());
        Ok(Side {
            connection: connect(service.address).await?,
            service,
            cases: cases::all(world),
        })
    }

    /// Finds the page of a case, by walking there.
    pub async fn page_token(&self, case: &Case) -> Result<String> {
        let mut page_token = String::new();
        let mut left = case.skip;
        while left > 0 {
            let stride = left.min(STRIDE);
            left -= stride;
            let ask = Ask {
                page_size: i32::try_from(stride)?,
                page_token,
                ..Ask::default()
            };
            page_token = self.ask(case, ask).await?.1.next_page_token;
            if page_token.is_empty() {
                return Err(format!("{}: the list ends early", case.name()).into());
            }
        }
        Ok(page_token)
    }

    /// Makes call `number` of a case.
    pub async fn call(&self, case: &Case, number: u64, page_token: &str) -> Result<Called> {
        let ask = Ask {
            number: mixed(number),
            page_size: PAGE,
            page_token: page_token.to_owned(),
        };
        let (took, answered) = self.ask(case, ask).await?;
        match answered.rows {
            0 => Err(format!("{}: an empty answer", case.name()).into()),
            rows => Ok(Called { took, rows }),
        }
    }

    async fn ask(&self, case: &Case, ask: Ask) -> Result<(Duration, Answered)> {
        let uri = format!(
            "http://{}/bridgebook.v1.{}",
            self.service.address, case.method
        );
        let (uri, request) = (uri.parse()?, case.request(ask)?);
        let begun = Instant::now();
        let answer = call(&self.connection, uri, None, request).await;
        let took = begun.elapsed();
        let answer = answer.map_err(|error| format!("{}: {error}", case.name()))?;
        Ok((took, case.read(answer)?))
    }

    /// Stops the service; answers the most memory that it ever had, in KiB.
    pub async fn stop(self) -> Result<Option<u64>> {
        let peak_memory = self.service.peak_memory();
        self.service.stop().await?;
        Ok(peak_memory)
    }
}
