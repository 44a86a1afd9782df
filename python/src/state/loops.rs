//! The loops that have waiters, timers or running tasks of a limiter.

use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use super::RateLimiter;
use super::inner::Inner;
use super::permits::Hold;
use crate::event_loop::EventLoop;
use crate::pushed::Pushed;

/// Identifies a loop of this limiter.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoopId(u64);

/// A loop that this limiter deals with.
pub(crate) struct LoopState {
    pub(crate) id: LoopId,
    pub(crate) event_loop: EventLoop,
    pub(crate) plan: Plan,
    /// Granted tasks that the loop has yet to start.
    pub(crate) ready: VecDeque<(Pushed, Hold)>,
}

/// When a loop calls back next.
#[derive(Default)]
pub(crate) struct Plan {
    /// Tells this plan from the ones that it replaced.
    pub(crate) id: u64,
    pub(crate) when: When,
    /// The timer's handle, held weakly: the loop alone keeps its timers, so that a timer that ends without having been
    /// called tells that the loop was closed.
    pub(crate) timer: Option<Py<PyWeakrefReference>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    #[default]
    Never,
    Soon,
    /// For this opening.
    At(u64),
    /// After a look that failed.
    Retry,
}

/// Identifies a pushed task that runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct StartedId(u64);

/// A pushed task that runs as a task of a loop.
pub(crate) struct StartedTask {
    pub(crate) event_loop: LoopId,
    /// The loop's task, which could be collected while it runs if nobody kept it.
    pub(crate) task: Option<Py<PyAny>>,
    pub(crate) hold: Hold,
}

/// Has a loop run what a pushed task returned to be awaited.
pub(crate) type Spawn = fn(
    &Bound<'_, RateLimiter>,
    (LoopId, &EventLoop),
    &Pushed,
    Bound<'_, PyAny>,
    Hold,
) -> PyResult<()>;

impl Plan {
    /// Makes a new plan; the old one's timer is to be cancelled.
    pub(crate) fn replace(&mut self, when: When) -> Option<Py<PyWeakrefReference>> {
        self.id += 1;
        self.when = when;
        self.timer.take()
    }
}

impl Inner {
    /// A pushed task begins to run.
    pub(crate) fn add_started(&mut self, event_loop: LoopId, hold: Hold) -> StartedId {
        let id = self.next_started;
        self.next_started = StartedId(id.0 + 1);
        self.started.insert(id, StartedTask { event_loop, task: None, hold });
        id
    }

    pub(crate) fn loop_mut(&mut self, id: LoopId) -> Option<&mut LoopState> {
        self.loops.iter_mut().find(|state| state.id == id)
    }

    pub(crate) fn add_loop(&mut self, event_loop: EventLoop) -> LoopId {
        let id = self.next_loop;
        self.next_loop = LoopId(id.0 + 1);
        let known = self.keep_loop(id, event_loop);
        debug_assert!(known.is_none(), "its number is new");
        id
    }

    /// A waiter of this loop joins. Another thread may have found the loop idle since it was added, and forgotten it.
    /// Returns the loop if it is known, to be dropped after the lock.
    pub(crate) fn keep_loop(&mut self, id: LoopId, event_loop: EventLoop) -> Option<EventLoop> {
        if self.loop_mut(id).is_some() {
            return Some(event_loop);
        }
        let (plan, ready) = (Plan::default(), VecDeque::new());
        self.loops.push(LoopState { id, event_loop, plan, ready });
        None
    }

    /// Whether something of this limiter waits for that loop.
    pub(crate) fn uses(&self, state: &LoopState) -> bool {
        state.plan.when != When::Never
            || !state.ready.is_empty()
            || self.drained.iter().any(|(id, _)| *id == state.id)
            || self.started.values().any(|task| task.event_loop == state.id)
            || self.machine.waiters().any(|waiter| waiter.event_loop() == Some(state.id))
    }
}
