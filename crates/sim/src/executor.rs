//! An executor that polls the woken task that the simulation picks.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

/// What a task panics with on purpose.
pub(crate) struct SimPanic;

/// A task of this executor.
struct Actor {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

struct Flag {
    slot: usize,
    is_ready: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

/// A slot is never used twice, so it names one task for the whole run.
#[derive(Default)]
pub(crate) struct Executor {
    actors: Vec<Option<(Actor, Arc<Flag>)>>,
    ready: Arc<Mutex<Vec<usize>>>,
    alive: usize,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push(self.slot);
        }
    }
}

impl Executor {
    pub(crate) fn spawn(&mut self, future: impl Future<Output = ()> + 'static) -> usize {
        let slot = self.actors.len();
        let is_ready = AtomicBool::new(false);
        let flag = Arc::new(Flag { slot, is_ready, ready: Arc::clone(&self.ready) });
        let actor = Actor { future: Box::pin(future), waker: Waker::from(Arc::clone(&flag)) };
        flag.wake_by_ref();
        self.actors.push(Some((actor, flag)));
        self.alive += 1;
        slot
    }

    pub(crate) fn alive(&self) -> usize {
        self.alive
    }

    pub(crate) fn ready(&self) -> usize {
        lock(&self.ready).len()
    }

    /// Polls one of the woken tasks. A task that panics on purpose has ended.
    pub(crate) fn poll(&mut self, which: usize) {
        let slot = lock(&self.ready).swap_remove(which);
        let Some((mut actor, flag)) = self.actors[slot].take() else { return };
        flag.is_ready.store(false, Ordering::Relaxed);
        let waker = actor.waker.clone();
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| actor.future.as_mut().poll(&mut context)));
        match polled {
            Ok(poll) if poll.is_pending() => self.actors[slot] = Some((actor, flag)),
            Err(payload) if !payload.is::<SimPanic>() => resume_unwind(payload),
            _ => self.alive -= 1,
        }
    }

    /// Drops one of the woken tasks.
    pub(crate) fn kill_ready(&mut self, which: usize) {
        let slot = lock(&self.ready).swap_remove(which);
        self.kill(slot);
    }

    /// Drops a task, whatever it is doing.
    pub(crate) fn kill(&mut self, slot: usize) {
        self.alive -= usize::from(self.actors[slot].take().is_some());
    }
}

fn lock(ready: &Mutex<Vec<usize>>) -> MutexGuard<'_, Vec<usize>> {
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}
