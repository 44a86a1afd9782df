//! Pushed tasks: run here if they are granted at once, else by the tokio runtime when they are granted.
//!
//! A queued push is a waiter like any other. It joins the queue before `push` returns; then a tokio task owns
//! and polls it. So the order is that of the queue, no worker drains it, and a task that panics stops no other.

use std::fmt;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::deadline::MayExpire;
use crate::error::{AcquireError, PushError, PushRefusal, TaskError};
use crate::inner::{Inner, Kind, Standing};
use crate::reentrancy;
use crate::request::Terms;
use crate::run::{Task, run_permitted};
use crate::waiter::Waiter;

/// The outcome of a push.
#[derive(Debug)]
#[must_use = "a queued task's answer is lost with its handle"]
pub enum Pushed<T> {
    /// The task was granted at once and has run. This is its answer.
    Ran(T),
    /// The task is queued. It runs when it is granted, whether or not the handle is kept.
    Queued(TaskHandle<T>),
}

/// A handle that awaits the answer of a queued task. Dropping it does not affect the task.
///
/// Do not await it inside a task of the same limiter if that runs one task at a time: the queued task
/// waits for the running one to end.
///
/// # Cancel safety
///
/// Cancel-safe: the answer stays until it is taken.
#[must_use = "dropping a handle loses the task's answer; the task still runs"]
pub struct TaskHandle<T> {
    task: JoinHandle<Result<T, AcquireError>>,
}

impl<T> Pushed<T> {
    /// The answer: at once, or when the queued task has run.
    ///
    /// ```
    /// # use strict_rate_limiter::RateLimiter;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let limiter = RateLimiter::builder().limit("1/1ms".parse()?).build()?;
    /// assert!(limiter.push(|| async { 1 }).await?.has_run());
    /// let second = limiter.push(|| async { 2 }).await?;
    /// assert_eq!(second.answer().await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn answer(self) -> Result<T, TaskError> {
        match self {
            Self::Ran(answer) => Ok(answer),
            Self::Queued(handle) => handle.await,
        }
    }

    /// Whether the task ran at once.
    pub fn has_run(&self) -> bool {
        matches!(self, Self::Ran(_))
    }
}

impl<T> TaskHandle<T> {
    /// Cancels the task: in the queue, it leaves no trace; running, it is dropped at its next
    /// `await`, and completes [`abandon_grace`](crate::RateLimiterBuilder::abandon_grace) later.
    pub fn cancel(&self) {
        self.task.abort();
    }

    /// Whether the task has ended, by an answer, a panic or a cancellation.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task).poll(context).map(|joined| match joined {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(AcquireError::DeadlineExceeded { not_before })) => {
                Err(TaskError::DeadlineExceeded { not_before })
            }
            Ok(Err(AcquireError::Weight(error))) => Err(TaskError::Weight(error)),
            Ok(Err(AcquireError::Store(error))) => Err(TaskError::Store(error)),
            Ok(Err(_)) => Err(TaskError::Aborted),
            Err(error) => Err(match error.try_into_panic() {
                Ok(payload) => TaskError::Panicked(payload),
                Err(_) => TaskError::Cancelled,
            }),
        })
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle").field("is_finished", &self.is_finished()).finish()
    }
}

/// A task that makes its future when it is granted.
pub(crate) struct Async<F>(pub(crate) F);

/// A task that is a plain function.
pub(crate) struct Sync<F>(pub(crate) F);

impl<F: FnOnce() -> R, R: Future> Task for Async<F> {
    type Future = R;

    fn start(self) -> R {
        self.0()
    }
}

impl<F: FnOnce() -> T, T> Task for Sync<F> {
    type Future = Ready<T>;

    fn start(self) -> Ready<T> {
        ready(self.0())
    }
}

type Answer<K> = <<K as Task>::Future as Future>::Output;

/// Runs the task here if it is granted at once, else gives it to the runtime as soon as the queue has room
/// for it.
pub(crate) async fn push<K>(
    inner: &Arc<Inner>,
    terms: Terms,
    task: K,
) -> Result<Pushed<Answer<K>>, PushError<K>>
where
    K: Task<Future: Future<Output: Send + 'static> + Send> + Send + 'static,
{
    if reentrancy::is_inside(&**inner) {
        return try_push(inner, terms, task).map(Pushed::Queued);
    }
    let mut waiter = terms.waiter(Arc::clone(inner), Kind::Push);
    let standing = poll_fn(|context| match ready!(waiter.poll_in_task(context)) {
        Ok(Standing::Queued { accepted: false, .. }) => Poll::Pending,
        standing => Poll::Ready(standing),
    });
    match standing.await {
        Ok(Standing::Granted(permit)) => Ok(Pushed::Ran(run_permitted(permit, task).await)),
        Ok(Standing::Queued { .. }) => match Handle::try_current() {
            Ok(runtime) => Ok(Pushed::Queued(spawn(&runtime, task, waiter))),
            Err(_) => Err(PushError { reason: PushRefusal::NoRuntime, task }),
        },
        Err(error) => Err(PushError { reason: error.into(), task }),
    }
}

/// Gives the task to the runtime, if the queue has room for it.
pub(crate) fn try_push<K>(
    inner: &Arc<Inner>,
    terms: Terms,
    task: K,
) -> Result<TaskHandle<Answer<K>>, PushError<K>>
where
    K: Task<Future: Future<Output: Send + 'static> + Send> + Send + 'static,
{
    let Ok(runtime) = Handle::try_current() else {
        return Err(PushError { reason: PushRefusal::NoRuntime, task });
    };
    let mut waiter = terms.waiter(Arc::clone(inner), Kind::Push);
    // The task that will own the waiter has no waker yet; its first poll stores one.
    match waiter.poll_once(Waker::noop()) {
        Ok(Standing::Granted(permit)) => {
            Ok(spawn_on(&runtime, async { Ok(run_permitted(permit, task).await) }))
        }
        Ok(Standing::Queued { accepted: true, .. }) => Ok(spawn(&runtime, task, waiter)),
        Ok(Standing::Queued { accepted: false, .. }) => {
            Err(PushError { reason: PushRefusal::Full, task })
        }
        Err(error) => Err(PushError { reason: error.into(), task }),
    }
}

fn spawn<K>(
    runtime: &Handle,
    task: K,
    mut waiter: Waiter<Arc<Inner>, MayExpire>,
) -> TaskHandle<Answer<K>>
where
    K: Task<Future: Future<Output: Send + 'static> + Send> + Send + 'static,
{
    spawn_on(runtime, async move {
        let permit = poll_fn(|context| waiter.poll(context)).await?;
        Ok(run_permitted(permit, task).await)
    })
}

fn spawn_on<T: Send + 'static>(
    runtime: &Handle,
    task: impl Future<Output = Result<T, AcquireError>> + Send + 'static,
) -> TaskHandle<T> {
    TaskHandle { task: runtime.spawn(task) }
}
