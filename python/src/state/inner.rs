//! What the lock guards. Methods that concern loops and decisions are in `loops.rs` and `decisions.rs`.

use std::collections::HashMap;
use std::mem;

use pyo3::prelude::*;
use strict_rate_limiter_core::{Config, Grant, Machine, RequestError, Ticket, TryGrantError, raw};

use super::loops::{LoopId, LoopState, StartedId, StartedTask};
use super::permits::{Ending, Hold, PermitId};
use super::waiters::Waiter;
use super::watch::{Caller, Watch};
use crate::config::value_error;
use crate::fork::forks;
use crate::future::Future;
use crate::reentrancy::Frames;
use crate::thread_mark::ThreadMark;

/// What the lock guards.
pub(crate) struct Inner {
    pub(crate) machine: Machine<Waiter>,
    /// The loops that have waiters, timers or running tasks here.
    pub(crate) loops: Vec<LoopState>,
    pub(super) next_loop: LoopId,
    /// The tasks of this limiter that are on a thread's stack right now, outermost first.
    pub(crate) frames: Frames,
    /// Pushed tasks that run as tasks of a loop.
    pub(crate) started: HashMap<StartedId, StartedTask>,
    pub(super) next_started: StartedId,
    /// Futures that wait until nothing runs and nobody waits.
    pub(crate) drained: Vec<(LoopId, Py<Future>)>,
    /// Threads that new limits refused, and that have not woken since.
    pub(crate) refused: HashMap<Ticket, RequestError>,
    /// How many hold the limiter itself, by `async with limiter` and `with limiter`.
    entered: usize,
    /// The threads that hold it by `with limiter`.
    pub(crate) blocking: Vec<ThreadMark>,
    pub(crate) on_error: Option<Py<PyAny>>,
    /// A hook, and what it is to be told.
    pub(super) watch: Option<Box<Watch>>,
    /// Ends of tasks at which the clock could not be read. The next reading stamps them, which is later than the true
    /// end and so is safe.
    unstamped: Vec<(Hold, Ending)>,
    /// The process that this is the state of.
    forks: u32,
    /// Whether the machine is still that of the process that forked.
    is_copied: bool,
}

impl Inner {
    pub(super) fn new(
        config: Config,
        on_error: Option<Py<PyAny>>,
        on_event: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            machine: Machine::new(config).map_err(value_error)?,
            loops: Vec::new(),
            next_loop: LoopId::default(),
            frames: Frames::default(),
            started: HashMap::new(),
            next_started: StartedId::default(),
            drained: Vec::new(),
            refused: HashMap::new(),
            entered: 0,
            blocking: Vec::new(),
            on_error,
            watch: on_event.map(|hook| Box::new(Watch::new(hook))),
            unstamped: Vec::new(),
            forks: forks(),
            is_copied: false,
        })
    }

    /// Whether this is a forked child in which it was not used yet.
    #[inline]
    pub(super) fn is_of_another_process(&self) -> bool {
        self.forks != forks()
    }

    /// Whether something is to be settled by the next reading of the clock.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        self.is_copied || !self.unstamped.is_empty()
    }

    /// In a forked child: the waiters, the loops and the running tasks are the parent's.
    #[cold]
    pub(super) fn begin_in_child(&mut self) {
        (self.forks, self.is_copied) = (forks(), true);
        // Their ends would run Python code under the lock.
        mem::forget(self.machine.cancel_where(|_| true));
        mem::forget(mem::take(&mut self.loops));
        mem::forget(mem::take(&mut self.started));
        mem::forget(mem::take(&mut self.drained));
        mem::forget(mem::take(&mut self.frames));
        self.unstamped.clear();
        self.forget_watched();
        (self.entered, self.blocking) = (0, Vec::new());
    }

    /// The first reading of the clock in a forked child. The window is as full as it was, and what ran in the parent
    /// counts as abandoned now.
    #[cold]
    fn restart(&mut self, now: u64) {
        self.is_copied = false;
        let config = self.machine.config().clone();
        let Ok(mut machine) = Machine::new(config) else { return };
        machine.remember(now, self.machine.history(now));
        machine.pause_until(self.machine.paused_until());
        if self.machine.is_closed() {
            machine.close();
        }
        self.machine = machine;
    }

    /// What is left of a pause in seconds, if that is more than is waited for.
    pub(crate) fn paused_too_long(&self, now: u64, max_ns: u64) -> Option<f64> {
        let until = self.machine.paused_until();
        let left = until.saturating_sub(now);
        #[expect(clippy::cast_precision_loss, reason = "a float is what users of asyncio expect")]
        let seconds = if until == u64::MAX { f64::INFINITY } else { left as f64 / 1e9 };
        (left > max_ns).then_some(seconds)
    }

    /// Grants if there is room as far as is known without a look at the time.
    #[inline]
    pub(crate) fn grant_at_once(&mut self, weight: u64) -> Option<Hold> {
        if self.is_copied || self.watch.is_some() {
            return None;
        }
        let grant = self.machine.grant_at_once(weight)?;
        Some(self.hold(grant, PermitId::default()))
    }

    /// Grants now or not at all.
    pub(crate) fn try_grant(&mut self, now: u64, weight: u64) -> Result<Hold, TryGrantError> {
        let grant = self.machine.try_grant(now, weight)?;
        let id = self.note_granted_at_once(weight, now);
        Ok(self.hold(grant, id))
    }

    #[inline]
    fn hold(&self, grant: Grant, id: PermitId) -> Hold {
        Hold { grant, forks: self.forks, id }
    }

    /// The permit of a waiter that was granted.
    pub(crate) fn claim(&mut self, ticket: Ticket) -> Option<Hold> {
        let grant = self.machine.claim(ticket)?;
        let id = self.claim_watched(ticket);
        Some(self.hold(grant, id))
    }

    /// Takes back a permit whose task never started.
    pub(crate) fn undo(&mut self, hold: Hold) {
        if hold.forks == self.forks {
            self.machine.undo(hold.grant);
            self.note_unused(hold.id);
        }
    }

    /// A task has ended. Returns what it used beyond what was reserved for it. The parent's tasks end in the parent.
    #[inline]
    pub(crate) fn record(&mut self, hold: Hold, ending: Ending, now: u64) -> u64 {
        if hold.forks != self.forks {
            return 0;
        }
        let excess = match ending {
            Ending::Completed { actual } => self.machine.complete(hold.grant, now, now, actual),
            Ending::Cancelled => {
                self.machine.abandon(hold.grant, now, now);
                0
            }
        };
        self.note_ended(hold.id, ending, excess, now);
        excess
    }

    /// A task has ended, and nobody knows when. The next reading of the clock stamps it.
    pub(crate) fn record_unstamped(&mut self, hold: Hold, ending: Ending) {
        if hold.forks == self.forks {
            self.unstamped.push((hold, ending));
        }
    }

    /// What only a reading of the clock can settle.
    #[cold]
    pub(super) fn catch_up(&mut self, now: u64) {
        if self.is_copied {
            self.restart(now);
        }
        for (hold, ending) in mem::take(&mut self.unstamped) {
            self.record(hold, ending, now);
        }
    }

    /// Whether somebody may move up.
    #[inline]
    pub(crate) fn has_waiters(&self) -> bool {
        self.machine.head().is_some() || !self.drained.is_empty()
    }

    /// A caller holds the limiter itself. Every permit of weight 1 is like any other, so they are only counted. Only a
    /// hook needs to know which caller it is.
    #[expect(clippy::needless_pass_by_value, reason = "the permit is counted from here on")]
    pub(crate) fn enter(&mut self, hold: Hold, caller: Option<Caller>) {
        debug_assert_eq!(hold.weight(), 1);
        if hold.forks == self.forks {
            self.entered += 1;
            self.note_entered(caller, hold.id);
        }
    }

    /// A thread holds the limiter by `with limiter`.
    pub(crate) fn enter_blocking(&mut self, hold: Hold, caller: Option<Caller>) {
        self.enter(hold, caller);
        self.blocking.push(ThreadMark::here());
    }

    /// One of them leaves: this thread, or another one for it.
    pub(crate) fn leave_blocking(&mut self) {
        let here = ThreadMark::here();
        match self.blocking.iter().rposition(|thread| *thread == here) {
            Some(index) => drop(self.blocking.swap_remove(index)),
            None => drop(self.blocking.pop()),
        }
    }

    /// One of them leaves, with a permit. `None` if there was none.
    pub(crate) fn leave(&mut self, caller: Option<Caller>) -> Option<Hold> {
        self.entered = self.entered.checked_sub(1)?;
        let id = self.take_entered(caller);
        Some(self.hold(raw::grant(1), id))
    }

    pub(crate) fn take_drained(&mut self) -> Vec<(LoopId, Py<Future>)> {
        if self.machine.is_drained() { mem::take(&mut self.drained) } else { Vec::new() }
    }

    /// Takes out every Python object, for the collector: nobody refers to the limiter any more.
    pub(crate) fn take_objects(&mut self) -> impl Sized + use<> {
        (
            self.machine.cancel_where(|_| true),
            mem::take(&mut self.loops),
            mem::take(&mut self.started),
            mem::take(&mut self.drained),
            mem::take(&mut self.frames),
            self.on_error.take(),
            self.take_hook(),
        )
    }
}
