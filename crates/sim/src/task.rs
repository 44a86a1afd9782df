//! A caller of the limiter, and the task that it runs.
//!
//! Each call of the library is reported to the checker right beside it: joining and leaving the queue,
//! starting, ending, being dropped.

use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use strict_rate_limiter::{
    AcquireError, PushRefusal, Pushed, RateLimiter, TaskError, TaskHandle, TryAcquireError,
};

use crate::deadline::{deadline, missed, request};
use crate::environment::Environment;
use crate::executor::SimPanic;
use crate::model::Status;
use crate::probe::RequestProbe;
use crate::scenario::{Call, HandleUse, PermitEnd, Task};

/// Makes the call and awaits it, unless another future of the same task panics first.
pub(crate) async fn ask(env: Arc<Environment>, limiter: RateLimiter, task: Task) {
    let Some(ns) = task.panics_beside_ns else { return ask_alone(env, limiter, task).await };
    let mut beside = pin!({
        let env = Arc::clone(&env);
        async move { env.nap(ns).await }
    });
    let mut asks = pin!(ask_alone(env, limiter, task));
    poll_fn(|context| {
        let asked = asks.as_mut().poll(context);
        panic_if(asked.is_pending() && beside.as_mut().poll(context).is_ready());
        asked
    })
    .await;
}

async fn ask_alone(env: Arc<Environment>, limiter: RateLimiter, task: Task) {
    match task.call {
        Call::Acquire => acquire(env, limiter, task).await,
        Call::Run => run(env, limiter, task).await,
        Call::Push | Call::PushFn => push(env, limiter, task).await,
        Call::TryPush => {
            let used = task.handle_use;
            if let Some((handle, id)) = try_push(&env, &limiter, task) {
                drop(limiter);
                await_handle(&env, handle, used, id).await;
            }
        }
        Call::TryAcquire => try_acquire(env, limiter, task).await,
    }
}

async fn acquire(env: Arc<Environment>, limiter: RateLimiter, task: Task) {
    let acquire = request(&limiter, &task).owned().acquire();
    drop(limiter);
    let probe = RequestProbe::new(&env, task.weight);
    let deadline = deadline(&env, &task);
    match watch(&env, probe.id, task.weight, false, acquire).await {
        Err(error) => refused(&env, probe.id, task.weight, deadline, &error),
        Ok(permit) => {
            let mut running = probe.start();
            run_through(&env, &task, None, || ()).await;
            running.has_ended();
            env.stall(task.stall_ns);
            match task.permit_end {
                PermitEnd::Complete => permit.complete(),
                PermitEnd::CompleteWith(actual) => {
                    let excess = permit.complete_with(actual);
                    if excess != actual.saturating_sub(task.weight) {
                        env.checker().report(format!("{}: an excess of {excess}", running.id));
                    }
                    return running.complete(Some(actual));
                }
                PermitEnd::Drop => {
                    drop(permit);
                    return running.abandon();
                }
            }
            running.complete(None);
        }
    }
}

async fn try_acquire(env: Arc<Environment>, limiter: RateLimiter, task: Task) {
    let probe = RequestProbe::new(&env, task.weight);
    let now = env.clock.reading_ns();
    match limiter.request().weight(task.weight).owned().try_acquire() {
        Ok(permit) => {
            drop(limiter);
            let mut running = probe.start();
            run_through(&env, &task, None, || ()).await;
            running.has_ended();
            permit.complete();
            running.complete(None);
        }
        Err(error) => {
            let mut checker = env.checker();
            checker.stats.refused += 1;
            let model = &checker.model;
            let is_right = match error {
                TryAcquireError::Weight(_) => !model.could_ever_run(task.weight),
                TryAcquireError::Closed => model.is_closed(),
                TryAcquireError::Busy { not_before } => {
                    let at = not_before.map(|at| env.clock.to_reading(at));
                    let is_late = at.is_some_and(|at| {
                        at > now && model.queued() == 0 && model.may_grant(task.weight, at - 1)
                    });
                    !model.may_grant_newcomer(task.weight, now) && !is_late
                }
                _ => false,
            };
            if !is_right {
                checker.report(format!("{} is refused: {error:?}", probe.id));
            }
        }
    }
}

async fn run(env: Arc<Environment>, limiter: RateLimiter, mut task: Task) {
    let (weight, child) = (task.weight, task.child.take());
    let probe = RequestProbe::new(&env, weight);
    let id = probe.id;
    let (request, deadline) = (request(&limiter, &task), deadline(&env, &task));
    let body = body(probe, task, child.map(|child| (limiter.clone(), child)));
    match watch(&env, id, weight, false, request.run(body)).await {
        Ok(answer) => expect_answer(&env, id, answer),
        Err(error) => refused(&env, id, weight, deadline, &error),
    }
}

async fn push(env: Arc<Environment>, limiter: RateLimiter, mut task: Task) {
    let (weight, handle_use, call) = (task.weight, task.handle_use, task.call);
    let child = task.child.take().map(|child| (limiter.clone(), child));
    let probe = RequestProbe::new(&env, weight);
    let id = probe.id;
    let pushed = if call == Call::PushFn {
        let push =
            limiter.request().weight(weight).push_fn(move || body_at_once(probe, &task, child));
        watch(&env, id, weight, true, push).await.map_err(|error| error.reason)
    } else {
        let push = limiter.request().weight(weight).push(move || body(probe, task, child));
        watch(&env, id, weight, true, push).await.map_err(|error| error.reason)
    };
    match pushed {
        Ok(Pushed::Ran(answer)) => expect_answer(&env, id, answer),
        Ok(Pushed::Queued(handle)) => {
            env.queued(id, weight);
            drop(limiter);
            await_handle(&env, handle, handle_use, id).await;
        }
        Err(reason) => push_refused(&env, id, weight, reason),
    }
}

/// May also be called from inside of a task.
fn try_push(
    env: &Arc<Environment>,
    limiter: &RateLimiter,
    mut task: Task,
) -> Option<(TaskHandle<u32>, u32)> {
    let (weight, child) = (task.weight, task.child.take());
    let probe = RequestProbe::new(env, weight);
    let id = probe.id;
    let now = env.clock.reading_ns();
    let has_room = {
        let model = &mut env.checker().model;
        if model.could_ever_run(weight) && !model.is_closed() {
            model.look(now);
        }
        model.may_grant_newcomer(weight, now)
    };
    let child = child.map(|child| (limiter.clone(), child));
    match limiter.request().weight(weight).try_push(move || body(probe, task, child)) {
        Ok(handle) if has_room => {
            env.checker().model.take_in_hand(id, weight);
            Some((handle, id))
        }
        Ok(handle) => {
            env.queued(id, weight);
            Some((handle, id))
        }
        Err(error) => {
            let may_be_full = !has_room && env.checker().model.is_full();
            if error.reason == PushRefusal::Full && may_be_full {
                env.checker().stats.refused += 1;
            } else {
                push_refused(env, id, weight, error.reason);
            }
            None
        }
    }
}

async fn await_handle(env: &Environment, handle: TaskHandle<u32>, used: HandleUse, id: u32) {
    let cancelled = match used {
        HandleUse::Drop => return,
        HandleUse::Await => false,
        HandleUse::CancelAfter(ns) => {
            env.nap(ns).await;
            handle.cancel();
            true
        }
    };
    match handle.await {
        Ok(answer) => expect_answer(env, id, answer),
        Err(error) => {
            let is_right = match &error {
                TaskError::Aborted => env.checker().model.is_closed(),
                TaskError::Weight(_) => env.checker().model.became_too_heavy(id),
                TaskError::Cancelled => cancelled,
                TaskError::Panicked(payload) => payload.is::<SimPanic>(),
                _ => false,
            };
            if !is_right {
                env.checker().report(format!("{id}: its handle says {error:?}"));
            }
        }
    }
}

/// A task as a future.
async fn body(probe: RequestProbe, task: Task, child: Option<(RateLimiter, Box<Task>)>) -> u32 {
    let env = Arc::clone(&probe.env);
    let mut running = probe.start();
    run_through(&env, &task, child, || running.panics()).await;
    running.has_ended();
    let id = running.id;
    running.complete(None);
    id
}

/// A task as a function: it blocks where the future naps.
fn body_at_once(probe: RequestProbe, task: &Task, child: Option<(RateLimiter, Box<Task>)>) -> u32 {
    let env = Arc::clone(&probe.env);
    let mut running = probe.start();
    env.clock.pass(task.naps[0]);
    push_child(&env, child);
    if task.panics {
        running.panics();
    }
    panic_if(task.panics);
    running.has_ended();
    let id = running.id;
    running.complete(None);
    id
}

async fn run_through(
    env: &Arc<Environment>,
    task: &Task,
    child: Option<(RateLimiter, Box<Task>)>,
    before_panic: impl FnOnce(),
) {
    env.nap(task.naps[0]).await;
    push_child(env, child);
    env.nap(task.naps[1]).await;
    if task.panics {
        before_panic();
    }
    panic_if(task.panics);
}

fn panic_if(panics: bool) {
    if panics {
        resume_unwind(Box::new(SimPanic));
    }
}

/// From inside of a task, a push is queued or refused and never run at once, and an acquire that would wait
/// for this task itself is an error.
fn push_child(env: &Arc<Environment>, child: Option<(RateLimiter, Box<Task>)>) {
    let Some((limiter, child)) = child else { return };
    let mut acquire = pin!(limiter.request().owned().acquire());
    let one_at_a_time = env.checker().model.runs_one_at_a_time();
    if one_at_a_time {
        let polled = acquire.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let expected = match polled {
            Poll::Ready(Err(AcquireError::WouldDeadlock)) => true,
            Poll::Ready(Err(AcquireError::Closed)) => env.checker().model.is_closed(),
            _ => false,
        };
        if !expected {
            env.checker().report("an acquire inside of a task waits for that task".into());
        }
    }
    let _ = try_push(env, &limiter, *child);
}

fn expect_answer(env: &Environment, id: u32, answer: u32) {
    if id != answer {
        env.checker().report(format!("{id} got the answer of {answer}"));
    }
}

fn refused(env: &Environment, id: u32, weight: u64, deadline: Option<u64>, error: &AcquireError) {
    let now = env.clock.reading_ns();
    let mut checker = env.checker();
    if let (AcquireError::DeadlineExceeded { not_before }, Some(deadline)) = (error, deadline) {
        let not_before = not_before.map(|at| env.clock.to_reading(at));
        let is_right = missed(&mut checker, id, weight, now, deadline, not_before);
        if !is_right {
            checker
                .report(format!("{id} has missed {deadline} at {now}: not before {not_before:?}"));
        }
        return;
    }
    checker.stats.refused += 1;
    let is_right = match error {
        AcquireError::Weight(_) => {
            !checker.model.could_ever_run(weight) || checker.model.became_too_heavy(id)
        }
        AcquireError::Closed | AcquireError::Aborted => checker.model.is_closed(),
        _ => false,
    };
    if !is_right {
        checker.report(format!("{id} is refused: {error:?}"));
    }
}

fn push_refused(env: &Environment, id: u32, weight: u64, reason: PushRefusal) {
    let error = match reason {
        PushRefusal::Weight(error) => AcquireError::Weight(error),
        PushRefusal::Closed => AcquireError::Closed,
        _ => return env.checker().report(format!("the push of {id} is refused: {reason:?}")),
    };
    refused(env, id, weight, None, &error);
}

/// Polls a waiting future and tells the model what each poll means.
async fn watch<F: Future>(
    env: &Environment,
    id: u32,
    weight: u64,
    is_push: bool,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let was_first = env.checker().model.head() == Some(id);
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            let now = env.clock.reading_ns();
            let mut checker = env.checker();
            match checker.model.status(id) {
                Status::New => {
                    checker.model.look(now);
                    if is_push && !checker.model.is_full() {
                        checker.report(format!("{id} waits for room in a queue that is not full"));
                    }
                    let joined = checker.model.join(id, weight, now);
                    checker.check(joined);
                }
                Status::Waiting if was_first => checker.model.look(now),
                _ => {}
            }
        }
        polled
    })
    .await
}

impl Environment {
    /// A push was accepted into the queue.
    fn queued(&self, id: u32, weight: u64) {
        let now = self.clock.reading_ns();
        let mut checker = self.checker();
        if checker.model.status(id) == Status::New {
            checker.model.look(now);
            if checker.model.is_full() {
                checker.report(format!("{id} is accepted into a full queue"));
            }
            let joined = checker.model.join(id, weight, now);
            checker.check(joined);
        }
    }
}
