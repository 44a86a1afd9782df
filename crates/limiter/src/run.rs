//! Running a task that has its permit.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;

use crate::permit::Held;
use crate::scope;
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
/// the permit; so is a panic, by the permit's own drop; being dropped half-way is an abandonment.
pub(crate) async fn run_permitted<S, K>(permit: Held<S>, task: K) -> <K::Future as Future>::Output
where
    S: Deref<Target = Shared>,
    K: Task,
{
    let weight = permit.weight();
    let mut future =
        pin!(permit.running().inside(|| scope::enter(permit.shared(), weight, || task.start())));
    let answer = poll_fn(|context| {
        let poll = || scope::enter(permit.shared(), weight, || future.as_mut().poll(context));
        permit.running().inside(poll)
    });
    let answer = answer.await;
    permit.complete(None);
    answer
}
