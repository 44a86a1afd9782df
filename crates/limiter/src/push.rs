//! Tasks that the limiter runs: at once where they may, else in their turn.
//!
//! A queued push is a waiter like any other, joined to the line before `push` returns and then
//! handed to a tokio task that owns it and polls it for as long as the runtime lives. So the order
//! is the line's, nobody has to drain anything, and a task that panics takes nothing with it.

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

/// What became of a pushed task.
#[derive(Debug)]
#[must_use = "a queued task's answer is lost with its handle"]
pub enum Pushed<T> {
    /// It was permitted at once: it has run, and this is its answer.
    Ran(T),
    /// It is queued and will run in its turn, whether or not the handle is kept.
    Queued(TaskHandle<T>),
}

/// Awaits the answer of a queued task. Dropping it leaves the task alone.
///
/// Do not await it inside a task of the same limiter that runs one at a time: the queued task
/// waits for that one to end.
///
/// # Cancel safety
///
/// Cancel-safe: the answer stays until it is taken.
#[must_use = "dropping a handle is fine, and loses the task's answer"]
pub struct TaskHandle<T> {
    task: JoinHandle<Result<T, AcquireError>>,
}

impl<T> Pushed<T> {
    /// The answer, now or when the task has had its turn.
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

    /// Whether it ran at once.
    pub fn has_run(&self) -> bool {
        matches!(self, Self::Ran(_))
    }
}

impl<T> TaskHandle<T> {
    /// Cancels the task: in the queue, it leaves no trace; running, it is dropped at its next
    /// `await`, which is its completion (plus the limiter's grace).
    pub fn cancel(&self) {
        self.task.abort();
    }

    /// Whether the task has ended, in whichever way.
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

/// A task that makes a future when its turn comes.
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

/// Runs the task at once if it is permitted at once, else leaves it to the runtime as soon as the
/// queue has room for it.
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

/// Leaves the task to the runtime, if the queue has room for it.
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
    // The task that will own the waiter has no waker yet; its first poll leaves one.
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
