//! Items of a stream, each with its permit.
//!
//! ```
//! use futures_util::{StreamExt, stream};
//! use strict_rate_limiter::{RateLimiter, stream::RateLimitStreamExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limiter = RateLimiter::builder().limit("10/20ms".parse()?).concurrency(4).build()?;
//! let calls = stream::iter(0..25).rate_limited(&limiter);
//! calls
//!     .for_each_concurrent(None, async |item| {
//!         let item = item.expect("the limiter is open");
//!         // The call, with `*item`, goes here.
//!         item.complete();
//!     })
//!     .await;
//! assert_eq!(limiter.stats().completed, 25);
//! # Ok(())
//! # }
//! ```
//!
//! A limiter that only delays items cannot know how long each is worked on, and a consumer that works
//! on several at once, or on one for long, overflows its window. So an item comes with its permit, as
//! [`Permitted`], and is held to be worked on until that is dropped or told to be complete.
//!
//! Let go of each before the next is asked for, or as many as the limiter's concurrency: `collect`
//! on a stream of more than that waits for itself, as a task does that holds a permit and asks for
//! another.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::{FusedStream, Stream};
use pin_project_lite::pin_project;

use crate::error::AcquireError;
use crate::future::Acquire;
use crate::limiter::RateLimiter;
use crate::permit::Permit;

/// Rate limits for every [`Stream`].
pub trait RateLimitStreamExt: Stream + Sized {
    /// Gives each item with a permit of weight 1, in order.
    fn rate_limited(self, limiter: &RateLimiter) -> RateLimited<'_, Self, fn(&Self::Item) -> u64> {
        self.rate_limited_by(limiter, |_| 1)
    }

    /// Gives each item with a permit of the weight that a closure says, in order.
    fn rate_limited_by<W: FnMut(&Self::Item) -> u64>(
        self,
        limiter: &RateLimiter,
        weight: W,
    ) -> RateLimited<'_, Self, W> {
        RateLimited { stream: self, limiter, weight, item: None, waiting: None }
    }
}

impl<S: Stream> RateLimitStreamExt for S {}

pin_project! {
    /// A stream whose items come with permits; from [`RateLimitStreamExt`].
    ///
    /// The next item is taken from the stream inside before its permit is waited for: a slow stream
    /// keeps no permit from anyone. Dropped while that item waits, it leaves no trace in the limiter, and
    /// [`into_parts`](Self::into_parts) gives the item back.
    ///
    /// # Cancel safety
    ///
    /// Its `next` is cancel-safe: an item that waits keeps its place in the line.
    #[must_use = "streams do nothing unless polled"]
    pub struct RateLimited<'a, S: Stream, W> {
        #[pin]
        stream: S,
        limiter: &'a RateLimiter,
        weight: W,
        // Taken from the stream, and in line for its permit.
        item: Option<S::Item>,
        waiting: Option<Acquire<'a>>,
    }
}

/// An item and the permit to work on it. The end of the permit is the completion of the work, as it is
/// with a [`Permit`].
#[must_use = "an item that is dropped at once is a task that has completed at once"]
pub struct Permitted<'a, T> {
    item: T,
    permit: Permit<'a>,
}

/// An item that can have no permit. The item is in it, so nothing is lost.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused<T> {
    /// Why.
    pub reason: AcquireError,
    /// The item.
    pub item: T,
}

impl<S: Stream, W> RateLimited<'_, S, W> {
    /// The stream inside, and the item that was taken from it and still waits for its permit.
    pub fn into_parts(self) -> (S, Option<S::Item>) {
        (self.stream, self.item)
    }
}

impl<'a, S: Stream, W: FnMut(&S::Item) -> u64> Stream for RateLimited<'a, S, W> {
    type Item = Result<Permitted<'a, S::Item>, Refused<S::Item>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        if this.item.is_none() {
            let Some(item) = ready!(this.stream.poll_next(context)) else {
                return Poll::Ready(None);
            };
            *this.item = Some(item);
        }
        let item = this.item.as_ref().expect("it was taken from the stream");
        let waiting = match this.waiting {
            Some(waiting) => waiting,
            None => {
                let limiter: &'a RateLimiter = this.limiter;
                // Where this panics, the item is still here.
                this.waiting.insert(limiter.acquire_weighing((this.weight)(item)))
            }
        };
        let permit = ready!(Pin::new(waiting).poll(context));
        *this.waiting = None;
        let item = this.item.take().expect("it was in line");
        Poll::Ready(Some(match permit {
            Ok(permit) => Ok(Permitted { item, permit }),
            Err(reason) => Err(Refused { reason, item }),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let waiting = usize::from(self.item.is_some());
        let (least, most) = self.stream.size_hint();
        (least.saturating_add(waiting), most.and_then(|most| most.checked_add(waiting)))
    }
}

impl<S: FusedStream, W: FnMut(&S::Item) -> u64> FusedStream for RateLimited<'_, S, W> {
    fn is_terminated(&self) -> bool {
        self.item.is_none() && self.stream.is_terminated()
    }
}

impl<'a, T> Permitted<'a, T> {
    /// The work has ended; gives back the item.
    pub fn complete(self) -> T {
        self.permit.complete();
        self.item
    }

    /// The work has ended, and weighed `actual` units in the end. See [`Permit::complete_with`], whose
    /// excess this does not tell.
    pub fn complete_with(self, actual: u64) -> T {
        _ = self.permit.complete_with(actual);
        self.item
    }

    /// The item and its permit, each to be kept elsewhere.
    pub fn into_parts(self) -> (T, Permit<'a>) {
        (self.item, self.permit)
    }
}

impl<T> Deref for Permitted<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for Permitted<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

impl<T: fmt::Debug> fmt::Debug for Permitted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permitted").field("item", &self.item).finish_non_exhaustive()
    }
}

impl<S: Stream + fmt::Debug, W> fmt::Debug for RateLimited<'_, S, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimited")
            .field("stream", &self.stream)
            .field("limiter", &self.limiter)
            .field("has_item", &self.item.is_some())
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the item has no permit: {}", self.reason)
    }
}

impl<T> std::error::Error for Refused<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}
