//! Runs a service on one of the two databases and calls it.

use std::{
    ffi::OsStr,
    time::{Duration, Instant},
};

use h2::client::SendRequest;
use prost::bytes::Bytes;

use crate::{
    Result,
    call::{call, connect},
    case::{Case, PAGE, Params, Summary},
    cases,
    cluster::Cluster,
    dataset::{Dataset, splitmix64},
    service::Service,
};

/// The page size while skipping to a deep page: the largest that the service allows.
const STRIDE: u64 = 1000;

/// A service, a connection to it, and the cases to call.
pub struct Side {
    service: Service,
    connection: SendRequest<Bytes>,
    /// The cases with requests for this database.
    pub cases: Vec<Case>,
}

/// A completed call.
pub struct TimedCall {
    /// The latency.
    pub latency: Duration,
    /// The number of rows in the response.
    pub rows: usize,
}

impl Side {
    /// Starts a service on a database.
    pub async fn start(cluster: &Cluster, database: &str, dataset: Dataset) -> Result<Self> {
        let url = cluster.url(database);
        let service = Service::start(&["--database-url".as_ref(), OsStr::new(&url)]).await?;
        eprintln!(
            "{database}: SERVING after {} ms",
            service.startup_time.as_millis()
        );
        Ok(Side {
            connection: connect(service.address).await?,
            service,
            cases: cases::all(dataset),
        })
    }

    /// Finds the page of a case by following the page tokens.
    pub async fn page_token(&self, case: &Case) -> Result<String> {
        let mut page_token = String::new();
        let mut left = case.skip;
        while left > 0 {
            let stride = left.min(STRIDE);
            left -= stride;
            let params = Params {
                page_size: i32::try_from(stride)?,
                page_token,
                ..Params::default()
            };
            page_token = self.send(case, params).await?.1.next_page_token;
            if page_token.is_empty() {
                return Err(format!("{}: the list ends before the page", case.name()).into());
            }
        }
        Ok(page_token)
    }

    /// Makes call `number` of a case.
    pub async fn call(&self, case: &Case, number: u64, page_token: &str) -> Result<TimedCall> {
        let params = Params {
            number: splitmix64(number),
            page_size: PAGE,
            page_token: page_token.to_owned(),
        };
        let (latency, summary) = self.send(case, params).await?;
        match summary.rows {
            0 => Err(format!("{}: the response is empty", case.name()).into()),
            rows => Ok(TimedCall { latency, rows }),
        }
    }

    async fn send(&self, case: &Case, params: Params) -> Result<(Duration, Summary)> {
        let uri = format!(
            "http://{}/bridgebook.v1.{}",
            self.service.address, case.method
        );
        let (uri, request) = (uri.parse()?, case.request(params)?);
        let begun = Instant::now();
        let response = call(&self.connection, uri, None, request).await;
        let latency = begun.elapsed();
        let response = response.map_err(|error| format!("{}: {error}", case.name()))?;
        Ok((latency, case.read(response)?))
    }

    /// Stops the service and returns its peak memory in KiB.
    pub async fn stop(self) -> Result<Option<u64>> {
        let peak_memory = self.service.peak_memory();
        self.service.stop().await?;
        Ok(peak_memory)
    }
}
