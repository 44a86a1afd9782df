//! One who asks the limiter for something, and the task that it runs.
//!
//! Everything that the judges have to know is told here, beside the call that it is about: joining
//! and leaving the queue, starting, ending, being dropped half-way.

use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use strict_rate_limiter::{
    AcquireError, PushRefusal, Pushed, RateLimiter, TaskError, TaskHandle, TryAcquireError,
};

use crate::place::Place;
use crate::referee::Fate;
use crate::world::World;

/// What a task panics with on purpose.
pub(crate) struct SimPanic;

/// How the limiter is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Acquire,
    Run,
    Push,
    PushFn,
    TryPush,
    TryAcquire,
}

/// What becomes of an acquired permit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Finish {
    Complete,
    CompleteWith(u64),
    Drop,
}

/// What becomes of the handle of a queued push.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Handle {
    Await,
    Drop,
    CancelAfter(u64),
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) weight: u64,
    pub(crate) way: Way,
    pub(crate) naps: [u64; 2],
    pub(crate) panics: bool,
    pub(crate) finish: Finish,
    pub(crate) handle: Handle,
    /// For how long the process stalls in the middle of it.
    pub(crate) stall_ns: u64,
    /// After how long whoever asks is dropped.
    pub(crate) patience_ns: Option<u64>,
    /// After how long somebody panics beside it, in the same task of the executor.
    pub(crate) panics_beside_ns: Option<u64>,
    /// What it pushes to its own limiter.
    pub(crate) child: Option<Box<Task>>,
}

impl Way {
    pub(crate) fn unless(self, exception: bool, other: Self) -> Self {
        if exception { other } else { self }
    }
}

/// Asks the limiter and sees it through, unless somebody panics beside it.
pub(crate) async fn ask(world: Arc<World>, limiter: RateLimiter, task: Task) {
    let Some(ns) = task.panics_beside_ns else { return ask_alone(world, limiter, task).await };
    let mut beside = pin!({
        let world = Arc::clone(&world);
        async move { world.nap(ns).await }
    });
    let mut asks = pin!(ask_alone(world, limiter, task));
    poll_fn(|context| {
        let asked = asks.as_mut().poll(context);
        panic_if(asked.is_pending() && beside.as_mut().poll(context).is_ready());
        asked
    })
    .await;
}

async fn ask_alone(world: Arc<World>, limiter: RateLimiter, task: Task) {
    match task.way {
        Way::Acquire => acquire(world, limiter, task).await,
        Way::Run => run(world, limiter, task).await,
        Way::Push | Way::PushFn => push(world, limiter, task).await,
        Way::TryPush => {
            let fate = task.handle;
            if let Some((handle, id)) = try_push(&world, &limiter, task) {
                drop(limiter);
                see_through(&world, handle, fate, id).await;
            }
        }
        Way::TryAcquire => try_acquire(world, limiter, task).await,
    }
}

async fn acquire(world: Arc<World>, limiter: RateLimiter, task: Task) {
    let acquire = limiter.acquire_weight_owned(task.weight);
    drop(limiter);
    let place = Place::new(&world, task.weight);
    match watch(&world, place.id, task.weight, false, acquire).await {
        Err(error) => refused(&world, place.id, task.weight, error),
        Ok(permit) => {
            let mut running = place.start();
            live_through(&world, &task, None, || ()).await;
            running.has_ended();
            world.stall(task.stall_ns);
            match task.finish {
                Finish::Complete => permit.complete(),
                Finish::CompleteWith(actual) => {
                    let excess = permit.complete_with(actual);
                    if excess != actual.saturating_sub(task.weight) {
                        world.book().find(format!("{}: an excess of {excess}", running.id));
                    }
                    return running.complete(Some(actual));
                }
                Finish::Drop => {
                    drop(permit);
                    return running.abandon();
                }
            }
            running.complete(None);
        }
    }
}

async fn try_acquire(world: Arc<World>, limiter: RateLimiter, task: Task) {
    let place = Place::new(&world, task.weight);
    let now = world.clock.reading_ns();
    match limiter.try_acquire_weight_owned(task.weight) {
        Ok(permit) => {
            drop(limiter);
            let mut running = place.start();
            live_through(&world, &task, None, || ()).await;
            running.has_ended();
            permit.complete();
            running.complete(None);
        }
        Err(error) => {
            let mut book = world.book();
            book.tally.refused += 1;
            let referee = &book.referee;
            let is_right = match error {
                TryAcquireError::Weight(_) => !referee.could_ever_run(task.weight),
                TryAcquireError::Closed => referee.is_closed(),
                TryAcquireError::Busy { not_before } => {
                    let at = not_before.map(|at| world.clock.to_reading(at));
                    let is_late = at.is_some_and(|at| {
                        at > now && referee.queued() == 0 && referee.may_grant(task.weight, at - 1)
                    });
                    !referee.may_grant_newcomer(task.weight, now) && !is_late
                }
                _ => false,
            };
            if !is_right {
                book.find(format!("{} is refused: {error:?}", place.id));
            }
        }
    }
}

async fn run(world: Arc<World>, limiter: RateLimiter, mut task: Task) {
    let (weight, child) = (task.weight, task.child.take());
    let place = Place::new(&world, weight);
    let id = place.id;
    let body = body(place, task, child.map(|child| (limiter.clone(), child)));
    match watch(&world, id, weight, false, limiter.run_weight(weight, body)).await {
        Ok(answer) => expect_answer(&world, id, answer),
        Err(error) => refused(&world, id, weight, error),
    }
}

async fn push(world: Arc<World>, limiter: RateLimiter, mut task: Task) {
    let (weight, handle_fate, way) = (task.weight, task.handle, task.way);
    let child = task.child.take().map(|child| (limiter.clone(), child));
    let place = Place::new(&world, weight);
    let id = place.id;
    let pushed = if way == Way::PushFn {
        let push = limiter.push_fn_weight(weight, move || body_at_once(place, &task, child));
        watch(&world, id, weight, true, push).await.map_err(|error| error.reason)
    } else {
        let push = limiter.push_weight(weight, move || body(place, task, child));
        watch(&world, id, weight, true, push).await.map_err(|error| error.reason)
    };
    match pushed {
        Ok(Pushed::Ran(answer)) => expect_answer(&world, id, answer),
        Ok(Pushed::Queued(handle)) => {
            world.queued(id, weight);
            drop(limiter);
            see_through(&world, handle, handle_fate, id).await;
        }
        Err(reason) => push_refused(&world, id, weight, reason),
    }
}

/// From wherever it is called, inside of a task too.
fn try_push(
    world: &Arc<World>,
    limiter: &RateLimiter,
    mut task: Task,
) -> Option<(TaskHandle<u32>, u32)> {
    let (weight, child) = (task.weight, task.child.take());
    let place = Place::new(world, weight);
    let id = place.id;
    let now = world.clock.reading_ns();
    let has_room = {
        let referee = &mut world.book().referee;
        if referee.could_ever_run(weight) && !referee.is_closed() {
            referee.look(now);
        }
        referee.may_grant_newcomer(weight, now)
    };
    let child = child.map(|child| (limiter.clone(), child));
    match limiter.try_push_weight(weight, move || body(place, task, child)) {
        Ok(handle) if has_room => {
            world.book().referee.take_in_hand(id, weight);
            Some((handle, id))
        }
        Ok(handle) => {
            world.queued(id, weight);
            Some((handle, id))
        }
        Err(error) => {
            let may_be_full = !has_room && world.book().referee.is_full();
            if error.reason == PushRefusal::Full && may_be_full {
                world.book().tally.refused += 1;
            } else {
                push_refused(world, id, weight, error.reason);
            }
            None
        }
    }
}

async fn see_through(world: &World, handle: TaskHandle<u32>, fate: Handle, id: u32) {
    let cancelled = match fate {
        Handle::Drop => return,
        Handle::Await => false,
        Handle::CancelAfter(ns) => {
            world.nap(ns).await;
            handle.cancel();
            true
        }
    };
    match handle.await {
        Ok(answer) => expect_answer(world, id, answer),
        Err(error) => {
            let is_right = match &error {
                TaskError::Aborted => world.book().referee.is_closed(),
                TaskError::Cancelled => cancelled,
                TaskError::Panicked(payload) => payload.is::<SimPanic>(),
                _ => false,
            };
            if !is_right {
                world.book().find(format!("{id}: its handle says {error:?}"));
            }
        }
    }
}

/// A task that is a future.
async fn body(place: Place, task: Task, child: Option<(RateLimiter, Box<Task>)>) -> u32 {
    let world = Arc::clone(&place.world);
    let mut running = place.start();
    live_through(&world, &task, child, || running.panics()).await;
    running.has_ended();
    let id = running.id;
    running.complete(None);
    id
}

/// A task that is a function: it blocks where others nap.
fn body_at_once(place: Place, task: &Task, child: Option<(RateLimiter, Box<Task>)>) -> u32 {
    let world = Arc::clone(&place.world);
    let mut running = place.start();
    world.clock.pass(task.naps[0]);
    push_child(&world, child);
    if task.panics {
        running.panics();
    }
    panic_if(task.panics);
    running.has_ended();
    let id = running.id;
    running.complete(None);
    id
}

async fn live_through(
    world: &Arc<World>,
    task: &Task,
    child: Option<(RateLimiter, Box<Task>)>,
    before_panic: impl FnOnce(),
) {
    world.nap(task.naps[0]).await;
    push_child(world, child);
    world.nap(task.naps[1]).await;
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

/// From inside of a task, a push is queued or refused, and never run on the spot; an acquire that
/// would wait for the task itself is told so.
fn push_child(world: &Arc<World>, child: Option<(RateLimiter, Box<Task>)>) {
    let Some((limiter, child)) = child else { return };
    let mut acquire = pin!(limiter.acquire_owned());
    let one_at_a_time = world.book().referee.runs_one_at_a_time();
    if one_at_a_time {
        let polled = acquire.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let expected = match polled {
            Poll::Ready(Err(AcquireError::WouldDeadlock)) => true,
            Poll::Ready(Err(AcquireError::Closed)) => world.book().referee.is_closed(),
            _ => false,
        };
        if !expected {
            world.book().find("an acquire inside of a task waits for the task itself".into());
        }
    }
    let _ = try_push(world, &limiter, *child);
}

fn expect_answer(world: &World, id: u32, answer: u32) {
    if id != answer {
        world.book().find(format!("{id} got the answer of {answer}"));
    }
}

fn refused(world: &World, id: u32, weight: u64, error: AcquireError) {
    let mut book = world.book();
    book.tally.refused += 1;
    let is_right = match error {
        AcquireError::Weight(_) => !book.referee.could_ever_run(weight),
        AcquireError::Closed | AcquireError::Aborted => book.referee.is_closed(),
        _ => false,
    };
    if !is_right {
        book.find(format!("{id} is refused: {error:?}"));
    }
}

fn push_refused(world: &World, id: u32, weight: u64, reason: PushRefusal) {
    let error = match reason {
        PushRefusal::Weight(error) => AcquireError::Weight(error),
        PushRefusal::Closed => AcquireError::Closed,
        _ => return world.book().find(format!("the push of {id} is refused: {reason:?}")),
    };
    refused(world, id, weight, error);
}

/// Tells the referee what each poll of an asking future means.
async fn watch<F: Future>(
    world: &World,
    id: u32,
    weight: u64,
    is_push: bool,
    future: F,
) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let was_first = world.book().referee.head() == Some(id);
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            let now = world.clock.reading_ns();
            let mut book = world.book();
            match book.referee.fate(id) {
                Fate::New => {
                    book.referee.look(now);
                    if is_push && !book.referee.is_full() {
                        book.find(format!("{id} waits for room in a queue that is not full"));
                    }
                    let joined = book.referee.join(id, weight, now);
                    book.hold_to(joined);
                }
                Fate::Waiting if was_first => book.referee.look(now),
                _ => {}
            }
        }
        polled
    })
    .await
}

impl World {
    /// A push was left in the queue.
    fn queued(&self, id: u32, weight: u64) {
        let now = self.clock.reading_ns();
        let mut book = self.book();
        if book.referee.fate(id) == Fate::New {
            book.referee.look(now);
            if book.referee.is_full() {
                book.find(format!("{id} is accepted into a full queue"));
            }
            let joined = book.referee.join(id, weight, now);
            book.hold_to(joined);
        }
    }
}
