//! The timeout for the HTTP/2 preface, which closes connections of silent clients.

use std::{future::Future, time::Duration};

use tokio::{io::AsyncRead, sync::oneshot, time::timeout};
use tokio_util::io::InspectReader;

/// Minimum length of a client's preface: its fixed part (RFC 9113, section 3.4) and the
/// header of a SETTINGS frame.
const PREFACE_BYTES: usize = 24 + 9;

/// Wraps a connection. The future completes if the preface does not arrive in time, and
/// never completes otherwise.
pub(super) fn expect_preface<S: AsyncRead>(
    stream: S,
    limit: Duration,
) -> (
    InspectReader<S, impl FnMut(&[u8])>,
    impl Future<Output = ()>,
) {
    let (sender, received) = oneshot::channel::<()>();
    let mut sender = Some(sender);
    let mut missing = PREFACE_BYTES;
    let stream = InspectReader::new(stream, move |bytes: &[u8]| {
        missing = missing.saturating_sub(bytes.len());
        if missing == 0 {
            // Completes `received`.
            drop(sender.take());
        }
    });
    let expired = async move {
        if timeout(limit, received).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    (stream, expired)
}
