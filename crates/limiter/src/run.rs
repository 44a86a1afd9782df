//! Running a task that has its permit.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;
use std::task::Context;

use strict_rate_limiter_core::RunningTask;

use crate::permit::Held;
use crate::scope::{self, TaskId};
use crate::shared::Shared;

/// What a limiter can run.
pub(crate) trait Task {
    type Future: Future;

    fn start(self) -> Self::Future;
}

/// A future that is already there.
pub(crate) struct Fut<R>(pub(crate) R);

impl<R: Future> Task for Fut<R> {
    type Future = R;

    fn start(self) -> R {
        self.0
    }
}

/// Makes the task's future and drives it inside the limiter's scope. Its end is the completion of
/// the permit, and so is its panic; being dropped half-way, for whatever reason, is an abandonment.
pub(crate) async fn run_permitted<S, K>(permit: Held<S>, what: K) -> <K::Future as Future>::Output
where
    S: Deref<Target = Shared>,
    K: Task,
{
    let task = RunningTask { id: scope::new_task(), weight: permit.weight() };
    let ended = Ended { shared: permit.shared(), task: task.id };
    let mut future = pin!(permit.work(|| scope::enter(permit.shared(), task, || what.start())));
    let poll = |context: &mut Context<'_>| {
        permit.work(|| scope::enter(permit.shared(), task, || future.as_mut().poll(context)))
    };
    let answer = poll_fn(poll).await;
    drop(ended);
    permit.complete(None);
    answer
}

/// When it is dropped, nothing waits inside of the task any more.
struct Ended<'a> {
    shared: &'a Shared,
    task: TaskId,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.shared.task_ended(self.task);
    }
}
