//! The port for metrics and health checks over HTTP.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Requests a path. Returns the status and the body, or None if the port is closed.
pub async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Metrics in the text format of Prometheus.
pub struct Figures(String);

impl Figures {
    pub fn parse(text: String) -> Self {
        Figures(text)
    }

    pub async fn of(address: SocketAddr) -> Self {
        let (status, figures) = get(address, "/metrics").await.expect("the port is open");
        assert_eq!(status, 200);
        Figures(figures)
    }

    /// Returns the sum of the series of a name that have all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let sum = self.try_sum(name, labels);
        sum.unwrap_or_else(|| panic!("no series {name} {labels:?}:\n{}", self.0))
    }

    /// The same; `None` if there are no series.
    pub fn try_sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        let values: Vec<f64> = lines
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}
