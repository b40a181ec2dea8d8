//! The bodies of a request and of its response, which hold the call's [`Permit`].

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body, codegen::Bytes};

use super::permit::Permit;
use crate::domain::error::Error;

/// Size of the pieces in which HTTP/2 gets a response, in bytes: a frame, so that each frame that is
/// sent shows that the client reads.
const PIECE: usize = 16 * 1024;

/// Returns the error of a request that ends before it is complete. Its code is one that only the
/// call layer reads, which replaces it.
fn cut_off() -> Status {
    Status::unknown("the request was cut off")
}

/// The body of a request. Counts its bytes as they arrive.
pub(super) struct RequestBody {
    body: Body,
    permit: Arc<Permit>,
    /// Ends the wait for the rest of the request, once there is one.
    reclaimed: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl RequestBody {
    /// Makes the body of a call with this permit.
    pub(super) fn new(body: Body, permit: Arc<Permit>) -> Self {
        RequestBody {
            body,
            permit,
            reclaimed: None,
        }
    }

    /// Waits for the rest of the request. Fails if the connection has to close meanwhile.
    fn poll_reclaimed(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        self.permit.end_work();
        let permit = &self.permit;
        let reclaimed = self
            .reclaimed
            .get_or_insert_with(|| Box::pin(permit.reclaimed()));
        let reclaimed = reclaimed.as_mut().poll(context);
        reclaimed.map(|()| Error::ConnectionReclaimed.into())
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_reclaimed(context).map(|status| Some(Err(status)));
        };
        match &frame {
            Some(Ok(frame)) => self
                .permit
                .receive(frame.data_ref().map_or(0, Bytes::len))?,
            // The client reset the stream, or the connection broke. tonic would take the reason of
            // the reset for the status of the call, such as RESOURCE_EXHAUSTED.
            Some(Err(_)) => return Poll::Ready(Some(Err(cut_off()))),
            // hyper ends the body of a cancelled call as that of a complete one.
            None if !self.body.is_end_stream() => return Poll::Ready(Some(Err(cut_off()))),
            // The request is complete.
            None => self.permit.take_slot()?,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // The end has to pass through `poll_frame`.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What polling a body returns: a frame, an error, or the end.
type Polled = Option<Result<Frame<Bytes>, Status>>;

/// A piece of a response that HTTP/2 has taken. It is dropped when the piece is sent, or the client has
/// reset the stream. Until then the permit counts its bytes.
struct Piece {
    data: Bytes,
    permit: Arc<Permit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.permit.read(self.data.len());
    }
}

/// The body of a response. Its bytes count until the client has taken all of them.
pub(super) struct ResponseBody {
    body: Body,
    permit: Arc<Permit>,
    /// Polled from the body, but not passed on yet.
    next: Option<Polled>,
}

impl ResponseBody {
    /// Polls the response once. If it is ready, it is encoded now, and its bytes count from
    /// now on.
    pub(super) async fn new(mut body: Body, permit: Arc<Permit>) -> Self {
        let next = poll_fn(|context| {
            Poll::Ready(match Pin::new(&mut body).poll_frame(context) {
                Poll::Ready(polled) => Some(polled),
                Poll::Pending => None,
            })
        });
        let next = next.await;
        permit.release_request();
        permit.count_response(next.as_ref().map_or(0, length));
        permit.progress();
        permit.end_work();
        ResponseBody { body, permit, next }
    }
}

fn length(polled: &Polled) -> usize {
    let frame = polled.as_ref().and_then(|frame| frame.as_ref().ok());
    frame.and_then(Frame::data_ref).map_or(0, Bytes::len)
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = match self.next.take() {
            Some(polled) => polled,
            None => {
                let this = &mut *self;
                let body = Pin::new(&mut this.body);
                let polled = this.permit.poll_response(|| body.poll_frame(context));
                let polled = ready!(polled);
                self.permit.count_response(length(&polled));
                polled
            }
        };
        let Some(Ok(frame)) = polled else {
            return Poll::Ready(polled);
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) => {
                let piece = data.split_to(PIECE.min(data.len()));
                match data.is_empty() {
                    true => self.permit.queued(),
                    false => self.next = Some(Some(Ok(Frame::data(data)))),
                }
                Frame::data(Bytes::from_owner(Piece {
                    data: piece,
                    permit: Arc::clone(&self.permit),
                }))
            }
            Err(other) => other,
        })))
    }

    fn is_end_stream(&self) -> bool {
        match &self.next {
            Some(polled) => polled.is_none(),
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        // The body's own hint lacks the frame that was polled already.
        match &self.next {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}
