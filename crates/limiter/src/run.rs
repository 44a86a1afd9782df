//! Runs a task that has its permit.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;
use std::task::Context;

use strict_rate_limiter_core::RunningTask;

use crate::deadline::Deadline;
use crate::error::AcquireError;
use crate::inner::Inner;
use crate::permit::PermitGuard;
use crate::reentrancy::{self, TaskId};
use crate::waiter::Waiter;

/// A task that a limiter can run.
pub(crate) trait Task {
    type Future: Future;

    fn start(self) -> Self::Future;
}

/// A task that is a future already.
pub(crate) struct Fut<R>(pub(crate) R);

impl<R: Future> Task for Fut<R> {
    type Future = R;

    fn start(self) -> R {
        self.0
    }
}

/// Waits for the permit, and runs the task.
pub(crate) async fn run<S, D, R>(
    mut waiter: Waiter<S, D>,
    task: R,
) -> Result<R::Output, AcquireError>
where
    S: Deref<Target = Inner> + Clone,
    D: Deadline,
    R: Future,
{
    let permit = poll_fn(|context| waiter.poll(context)).await?;
    Ok(run_permitted(permit, Fut(task)).await)
}

/// Makes the task's future and polls it as a task of this limiter (`reentrancy.rs`). Its end or its panic
/// completes the permit. If it is dropped half-way for any other reason, the permit is abandoned.
pub(crate) async fn run_permitted<S, K>(
    permit: PermitGuard<S>,
    what: K,
) -> <K::Future as Future>::Output
where
    S: Deref<Target = Inner>,
    K: Task,
{
    let task = RunningTask { id: reentrancy::new_task(), weight: permit.weight() };
    let ended = Ended { inner: permit.inner(), task: task.id };
    let mut future = pin!(permit.work(|| reentrancy::enter(permit.inner(), task, || what.start())));
    let poll = |context: &mut Context<'_>| {
        permit.work(|| reentrancy::enter(permit.inner(), task, || future.as_mut().poll(context)))
    };
    let answer = poll_fn(poll).await;
    drop(ended);
    permit.complete(None);
    answer
}

/// When it is dropped, the task has ended, and no waiter is inside it any more.
struct Ended<'a> {
    inner: &'a Inner,
    task: TaskId,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.inner.task_ended(self.task);
    }
}
