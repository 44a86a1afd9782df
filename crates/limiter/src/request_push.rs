//! The pushes of requests. The work is done in `push.rs`.

use std::future::Future;

use crate::error::PushError;
use crate::push::{self, Async, Pushed, Sync, TaskHandle};
use crate::request::{OwnedRequest, Request};

macro_rules! push_methods {
    () => {
        /// Runs the task here if it is granted at once, else queues it. See
        /// [`RateLimiter::push`](crate::RateLimiter::push).
        ///
        /// # Errors
        ///
        /// As [`RateLimiter::push`](crate::RateLimiter::push), with the task. Also
        /// [`DeadlineExceeded`](crate::PushRefusal::DeadlineExceeded) if the deadline cannot be met, or comes
        /// while the task waits for room in the queue.
        ///
        /// # Cancel safety
        ///
        /// As [`RateLimiter::push`](crate::RateLimiter::push).
        pub async fn push<F, R>(self, task: F) -> Result<Pushed<R::Output>, PushError<F>>
        where
            F: FnOnce() -> R + Send + 'static,
            R: Future<Output: Send + 'static> + Send + 'static,
        {
            let pushed = push::push(&self.inner, self.terms, Async(task)).await;
            pushed.map_err(|error| error.map(|Async(task)| task))
        }

        /// As [`push`](Self::push), for a synchronous task. See
        /// [`RateLimiter::push_fn`](crate::RateLimiter::push_fn).
        ///
        /// # Errors
        ///
        /// As [`push`](Self::push).
        ///
        /// # Cancel safety
        ///
        /// As [`RateLimiter::push`](crate::RateLimiter::push).
        pub async fn push_fn<F, T>(self, task: F) -> Result<Pushed<T>, PushError<F>>
        where
            F: FnOnce() -> T + Send + 'static,
            T: Send + 'static,
        {
            let pushed = push::push(&self.inner, self.terms, Sync(task)).await;
            pushed.map_err(|error| error.map(|Sync(task)| task))
        }

        /// Gives the task to the tokio runtime without waiting; it runs when it is granted. If the queue is
        /// full, returns the task in the error.
        ///
        /// ```
        /// # use strict_rate_limiter::{PushRefusal, RateLimiter};
        /// # #[tokio::main(flavor = "current_thread")]
        /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// let limiter = RateLimiter::builder().limit("1/1h".parse()?).queue_capacity(1).build()?;
        /// let runs_at_once = limiter.request().try_push(|| async { 1 })?;
        /// let _waits_for_an_hour = limiter.request().try_push(|| async { 2 })?;
        /// let error = limiter.request().try_push(|| async { 3 }).unwrap_err();
        /// assert_eq!(error.reason, PushRefusal::Full);
        /// assert_eq!((error.task)().await, 3);
        /// assert_eq!(runs_at_once.await?, 1);
        /// # Ok(())
        /// # }
        /// ```
        ///
        /// # Errors
        ///
        /// As [`push`](Self::push), and [`Full`](crate::PushRefusal::Full).
        pub fn try_push<F, R>(self, task: F) -> Result<TaskHandle<R::Output>, PushError<F>>
        where
            F: FnOnce() -> R + Send + 'static,
            R: Future<Output: Send + 'static> + Send + 'static,
        {
            let pushed = push::try_push(&self.inner, self.terms, Async(task));
            pushed.map_err(|error| error.map(|Async(task)| task))
        }

        /// As [`try_push`](Self::try_push), for a synchronous task.
        ///
        /// # Errors
        ///
        /// As [`try_push`](Self::try_push).
        pub fn try_push_fn<F, T>(self, task: F) -> Result<TaskHandle<T>, PushError<F>>
        where
            F: FnOnce() -> T + Send + 'static,
            T: Send + 'static,
        {
            let pushed = push::try_push(&self.inner, self.terms, Sync(task));
            pushed.map_err(|error| error.map(|Sync(task)| task))
        }
    };
}

impl Request<'_> {
    push_methods!();
}

impl OwnedRequest {
    push_methods!();
}
