//! What the lock guards. Methods that concern loops and decisions are in `loops.rs` and `decisions.rs`.

use std::collections::HashMap;
use std::mem;

use pyo3::prelude::*;
use strict_rate_limiter_core::{Config, Grant, Machine, RequestError, Ticket, raw};

use super::loops::{LoopId, LoopState, StartedId, StartedTask};
use super::permits::{Ending, Hold};
use super::waiters::Waiter;
use crate::config::value_error;
use crate::fork::forks;
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
    pub(crate) drained: Vec<(LoopId, Py<PyAny>)>,
    /// Threads that new limits refused, and that have not woken since.
    pub(crate) refused: HashMap<Ticket, RequestError>,
    /// How many hold the limiter itself, by `async with limiter` and `with limiter`.
    entered: usize,
    /// The threads that hold it by `with limiter`.
    pub(crate) blocking: Vec<ThreadMark>,
    pub(crate) on_error: Option<Py<PyAny>>,
    /// Ends of tasks at which the clock could not be read. The next reading stamps them, which is later than the true
    /// end and so is safe.
    unstamped: Vec<(Hold, Ending)>,
    /// The process that this is the state of.
    forks: u32,
    /// Whether the machine is still that of the process that forked.
    is_copied: bool,
}

impl Inner {
    pub(super) fn new(config: Config, on_error: Option<Py<PyAny>>) -> PyResult<Self> {
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

    /// Grants if there is room as far as is known without a look at the time.
    #[inline]
    pub(crate) fn grant_at_once(&mut self, weight: u64) -> Option<Hold> {
        if self.is_copied {
            return None;
        }
        let grant = self.machine.grant_at_once(weight)?;
        Some(self.hold(grant))
    }

    #[inline]
    pub(crate) fn hold(&self, grant: Grant) -> Hold {
        Hold { grant, forks: self.forks }
    }

    /// The permit of a waiter that was granted.
    pub(crate) fn claim(&mut self, ticket: Ticket) -> Option<Hold> {
        let grant = self.machine.claim(ticket)?;
        Some(self.hold(grant))
    }

    /// Takes back a permit whose task never started.
    pub(crate) fn undo(&mut self, hold: Hold) {
        if hold.forks == self.forks {
            self.machine.undo(hold.grant);
        }
    }

    /// A task has ended. Returns what it used beyond what was reserved for it. The parent's tasks end in the parent.
    #[inline]
    pub(crate) fn record(&mut self, hold: Hold, ending: Ending, now: u64) -> u64 {
        if hold.forks != self.forks {
            return 0;
        }
        match ending {
            Ending::Completed { actual } => self.machine.complete(hold.grant, now, now, actual),
            Ending::Cancelled => {
                self.machine.abandon(hold.grant, now, now);
                0
            }
        }
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

    #[expect(clippy::needless_pass_by_value, reason = "the permit is counted from here on")]
    /// A caller holds the limiter itself. Every permit of weight 1 is like any other, so they are only counted.
    pub(crate) fn enter(&mut self, hold: Hold) {
        debug_assert_eq!(hold.weight(), 1);
        self.entered += usize::from(hold.forks == self.forks);
    }

    /// A thread holds the limiter by `with limiter`.
    pub(crate) fn enter_blocking(&mut self, hold: Hold) {
        self.enter(hold);
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
    pub(crate) fn leave(&mut self) -> Option<Hold> {
        self.entered = self.entered.checked_sub(1)?;
        Some(self.hold(raw::grant(1)))
    }

    pub(crate) fn take_drained(&mut self) -> Vec<(LoopId, Py<PyAny>)> {
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
        )
    }
}
