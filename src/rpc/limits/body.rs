//! The bodies of a call, which hold what it takes until they are dropped.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body, codegen::Bytes};

use super::permit::Permit;

/// How much of an answer is handed on at a time, in bytes, so that what nobody takes
/// stays here, where it is counted: some of HTTP/2's largest frames.
const PIECE: usize = 64 * 1024;

/// The body of a request, whose bytes count as they come.
pub(super) struct Request {
    pub(super) body: Body,
    pub(super) permit: Arc<Permit>,
}

impl HttpBody for Request {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => self
                .permit
                .receive(frame.data_ref().map_or(0, Bytes::len))?,
            // Until now it was only read.
            None => self.permit.begin_work()?,
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        // Its end has to be noticed.
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a body gives: a frame, a failure, or its end.
type Given = Option<Result<Frame<Bytes>, Status>>;

/// The body of an answer, whose bytes count until they are taken.
pub(super) struct Answer {
    body: Body,
    permit: Arc<Permit>,
    /// What the body gave, and has not been handed on.
    next: Option<Given>,
}

impl Answer {
    /// Has the answer written, if it is there, so that it counts from now on.
    pub(super) async fn new(mut body: Body, permit: Arc<Permit>) -> Self {
        let next = poll_fn(|context| {
            Poll::Ready(match Pin::new(&mut body).poll_frame(context) {
                Poll::Ready(given) => Some(given),
                Poll::Pending => None,
            })
        });
        let next = next.await;
        permit.answer(next.as_ref().map_or(0, length));
        permit.progress();
        Answer { body, permit, next }
    }
}

fn length(given: &Given) -> usize {
    let frame = given.as_ref().and_then(|frame| frame.as_ref().ok());
    frame.and_then(Frame::data_ref).map_or(0, Bytes::len)
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let given = match self.next.take() {
            Some(given) => given,
            None => {
                let given = ready!(Pin::new(&mut self.body).poll_frame(context));
                self.permit.answer(length(&given));
                given
            }
        };
        if length(&given) <= PIECE {
            return Poll::Ready(given);
        }
        self.permit.progress();
        let data = given.and_then(Result::ok).map(Frame::into_data);
        Poll::Ready(data.and_then(Result::ok).map(|mut data| {
            let piece = data.split_to(PIECE.min(data.len()));
            self.next = Some(Some(Ok(Frame::data(data))));
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        match &self.next {
            Some(given) => given.is_none(),
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        // What was taken out of the body is no part of its own hint.
        match &self.next {
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}
