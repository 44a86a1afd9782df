//! A body that holds its call's permit until it has ended.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::complete;
use crate::permit::OwnedPermit;

pin_project! {
    /// The body of a response whose call has completed when it has ended, read or failed; from
    /// [`completion::Body`](super::completion::Body), or around any body by
    /// [`new`](LimitedBody::new).
    ///
    /// If it is dropped before its end, its call was cancelled.
    pub struct LimitedBody<B> {
        #[pin]
        body: B,
        permit: Option<OwnedPermit>,
        actual: Option<u64>,
    }
}

impl<B: Body> LimitedBody<B> {
    /// A body that holds this permit until it has ended. One that is empty has ended already.
    pub fn new(body: B, permit: OwnedPermit) -> Self {
        Self::with_actual(body, permit, None)
    }

    pub(super) fn with_actual(body: B, permit: OwnedPermit, actual: Option<u64>) -> Self {
        let mut this = Self { permit: Some(permit), actual, body };
        if this.body.is_end_stream() {
            end(&mut this.permit, actual);
        }
        this
    }
}

fn end(permit: &mut Option<OwnedPermit>, actual: Option<u64>) {
    if let Some(permit) = permit.take() {
        complete(permit, actual);
    }
}

impl<B: Body> Body for LimitedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let mut poll = || this.body.as_mut().poll_frame(context);
        let frame = ready!(match this.permit {
            Some(permit) => permit.0.work(poll),
            None => poll(),
        });
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            end(this.permit, *this.actual);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for LimitedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedBody")
            .field("has_ended", &self.permit.is_none())
            .finish_non_exhaustive()
    }
}
