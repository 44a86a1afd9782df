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
//! Each item comes with its permit, as [`Permitted`]. The work on the item counts until the [`Permitted`] is
//! completed or dropped. A stream that only delayed items could not know how long each is worked on, so the
//! server's window could overflow.
//!
//! Drop or complete items before polling for more than the limiter's concurrency: `collect` on a longer stream
//! waits for itself for ever.

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
    /// A stream of the items, each with a permit of weight 1, in order.
    fn rate_limited(self, limiter: &RateLimiter) -> RateLimited<'_, Self, fn(&Self::Item) -> u64> {
        self.rate_limited_by(limiter, |_| 1)
    }

    /// A stream of the items, each with a permit of the weight that a closure returns, in order.
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
    /// It takes the next item from the inner stream before it waits for the permit, so a slow stream holds no
    /// permit. Dropped while an item waits, it leaves no trace in the limiter;
    /// [`into_parts`](Self::into_parts) returns the item.
    ///
    /// # Cancel safety
    ///
    /// Its `next` is cancel-safe: an item that waits keeps its position in the queue.
    #[must_use = "streams do nothing unless polled"]
    pub struct RateLimited<'a, S: Stream, W> {
        #[pin]
        stream: S,
        limiter: &'a RateLimiter,
        weight: W,
        // The item taken from the stream, which waits for its permit.
        item: Option<S::Item>,
        waiting: Option<Acquire<'a>>,
    }
}

/// An item and its permit. The end of the permit is the completion of the work, as with a [`Permit`].
#[must_use = "an item that is dropped at once is a task that has completed at once"]
pub struct Permitted<'a, T> {
    item: T,
    permit: Permit<'a>,
}

/// Why an item got no permit, with the item.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused<T> {
    /// Why.
    pub reason: AcquireError,
    /// The item.
    pub item: T,
}

impl<S: Stream, W> RateLimited<'_, S, W> {
    /// The inner stream, and the item taken from it that still waits for its permit.
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
                // If this panics, the item is still here.
                this.waiting.insert(limiter.acquire_weighing((this.weight)(item)))
            }
        };
        let permit = ready!(Pin::new(waiting).poll(context));
        *this.waiting = None;
        let item = this.item.take().expect("an item waits");
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
    /// Completes the work and returns the item.
    pub fn complete(self) -> T {
        self.permit.complete();
        self.item
    }

    /// Completes the work with its actual weight and returns the item. See [`Permit::complete_with`], whose
    /// excess this does not return.
    pub fn complete_with(self, actual: u64) -> T {
        _ = self.permit.complete_with(actual);
        self.item
    }

    /// The item and its permit.
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
