//! What all handles, waiters and permits of one limiter share: the machine under its lock, the
//! clock, the timer.
//!
//! Every change is a [`Turn`] (`turn.rs`), which decides and wakes once it is over.
//!
//! There is no background task. The timer wakes a [`Looker`], not a waiter, so that a waiter that is not
//! polled holds its own place in the line and never the timer of those behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{InsideWaiter, Machine, Place, Ticket, TicketStatus, TryGrantError};

use crate::clock::Source;
use crate::error::{AcquireError, TryAcquireError};
use crate::foreign;
use crate::lead::Lead;
use crate::lookout::Lookout;
use crate::observe::{Name, Observer};
use crate::scope::{self, TaskId};
use crate::stats::Stats;
use crate::sync::{Mutex, MutexGuard};
use crate::turn::{End, Inner, Turn};

pub(crate) struct Shared {
    pub(crate) clock: Source,
    pub(crate) observer: Observer,
    /// Whether anyone in the line was asked for inside a task of this limiter.
    has_inside_waiters: AtomicBool,
    inner: Mutex<Inner>,
}

/// What the timer wakes.
struct Looker(Weak<Shared>);

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whoever called: where that is a task of the same limiter, it may be waiting for itself.
    Acquire,
    /// A pushed task, which the runtime runs in its turn.
    #[cfg(feature = "tokio")]
    Push,
}

/// What became of a waiter that joined, or looked again.
pub(crate) enum Standing {
    Granted(core::Permit),
    Queued { ticket: Ticket, accepted: bool },
}

impl Shared {
    pub(crate) fn new(machine: Machine<Waker>, clock: Source, name: Name) -> Arc<Self> {
        let shortest_per = machine.config().limits.iter().map(core::Limit::per).min();
        let shortest_per = shortest_per.expect("a machine has at least one limit");
        let observer = Observer::new(name, &machine.config().limits);
        Arc::new_cyclic(|this| Self {
            has_inside_waiters: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                machine,
                fast: clock.fast(shortest_per),
                lookout: Lookout::new(
                    clock.timer(),
                    Waker::from(Arc::new(Looker(Weak::clone(this)))),
                    if clock.wakes_late() { Lead::new(shortest_per) } else { Lead::none() },
                ),
                drained: Vec::new(),
                next_drained: 0,
                inside: Vec::new(),
                unstamped: Vec::new(),
                is_look_owed: false,
            }),
            observer,
            clock,
        })
    }

    pub(crate) fn try_acquire(&self, weight: u64) -> Result<core::Permit, TryAcquireError> {
        let mut turn = self.turn();
        if let Some(permit) = turn.inner.machine.grant_at_once(weight) {
            return Ok(permit);
        }
        let Some(now) = turn.now() else { turn.end_and_tell() };
        let granted = turn.inner.machine.try_grant(now, weight);
        granted.map_err(|error| match error {
            TryGrantError::Request(error) => TryAcquireError::Weight(error),
            TryGrantError::Busy { not_before } => TryAcquireError::Busy {
                not_before: not_before.and_then(|at| self.clock.to_instant(at)),
            },
            _ => TryAcquireError::Closed,
        })
    }

    /// Granted now, or a place at the end of the line.
    #[inline]
    pub(crate) fn enter(
        &self,
        weight: u64,
        kind: Kind,
        waker: &Waker,
    ) -> Result<Standing, AcquireError> {
        let mut inner = self.lock();
        match inner.machine.grant_at_once(weight) {
            Some(permit) => Ok(Standing::Granted(permit)),
            None => self.join(Turn::new(&self.clock, inner), weight, kind, waker),
        }
    }

    fn join(
        &self,
        mut turn: Turn<'_>,
        weight: u64,
        kind: Kind,
        waker: &Waker,
    ) -> Result<Standing, AcquireError> {
        // Where only a completion can make room, the time does not matter.
        let mut now = None;
        if turn.inner.is_look_owed || !turn.inner.machine.awaits_completion() {
            let Some(read) = turn.now() else { turn.end_and_tell() };
            if let Ok(permit) = turn.inner.machine.try_grant(read, weight) {
                turn.end_quietly();
                return Ok(Standing::Granted(permit));
            }
            now = Some(read);
        }
        let tasks = if kind == Kind::Acquire { scope::tasks_of(self) } else { Vec::new() };
        let Inner { machine, inside, .. } = &mut *turn.inner;
        if !tasks.is_empty() && !machine.could_nest(&tasks, weight, inside) {
            machine.check(weight)?;
            let closed = machine.is_closed();
            return Err(if closed { AcquireError::Closed } else { AcquireError::WouldDeadlock });
        }
        let cloned = foreign::call(|| waker.clone());
        let Some(waker) = turn.panics.note(cloned) else { turn.end_and_tell() };
        let Place { ticket, accepted } = turn.inner.machine.enqueue(weight, waker)?;
        if !tasks.is_empty() {
            turn.inner.inside.push(InsideWaiter { ticket, tasks });
            self.has_inside_waiters.store(true, Ordering::Relaxed);
        }
        let Some(now) = now else { return Ok(Standing::Queued { ticket, accepted }) };
        turn.drive(now);
        if turn.panics.is_some() {
            // Nobody will ever ask for this place.
            self.forget(&mut turn, ticket);
            turn.end_and_tell();
        }
        let standing = self.standing(&mut turn, ticket);
        turn.end_quietly();
        standing
    }

    /// What has become of a waiter that joined. If it is first, it looks at the clock as well.
    pub(crate) fn look_for(&self, ticket: Ticket, waker: &Waker) -> Result<Standing, AcquireError> {
        let mut turn = self.turn();
        let mut look_at_once = false;
        if let Some(old) = turn.inner.machine.waiter_mut(ticket) {
            if !old.will_wake(waker) {
                let cloned = foreign::call(|| waker.clone());
                if let Some(waker) = turn.panics.note(cloned)
                    && let Some(old) = turn.inner.machine.waiter_mut(ticket)
                {
                    let old = std::mem::replace(old, waker);
                    turn.replaced.push(old);
                }
            }
            if turn.inner.machine.head() == Some(ticket) {
                look_at_once = turn.head_looks();
            }
        }
        if turn.panics.is_some() {
            // The place is kept: dropping the waiter gives it up.
            turn.end_and_tell();
        }
        let standing = self.standing(&mut turn, ticket);
        turn.end_quietly();
        if look_at_once && matches!(standing, Ok(Standing::Queued { .. })) {
            // The opening is near: come back as soon as the executor has let others run.
            waker.wake_by_ref();
        }
        standing
    }

    /// A waiter leaves, granted or not.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut turn = self.turn();
        self.forget(&mut turn, ticket);
        turn.settle(None);
        turn.end_quietly();
    }

    fn forget(&self, turn: &mut Turn<'_>, ticket: Ticket) {
        if turn.inner.machine.head() == Some(ticket) {
            // Whoever is first from now on has not been woken for the opening.
            turn.disarm();
        }
        let waker = turn.inner.machine.cancel(ticket);
        turn.replaced.extend(waker);
        self.no_longer_waits(turn, ticket);
    }

    /// A task has ended. Returns what it used beyond its reservation.
    #[inline]
    pub(crate) fn complete(&self, permit: core::Permit, actual: Option<u64>) -> u64 {
        let excess = actual.map_or(0, |actual| actual.saturating_sub(permit.weight()));
        self.end(permit, End::Completed { actual });
        excess
    }

    /// A task was dropped while it ran, or may have been.
    #[inline]
    pub(crate) fn abandon(&self, permit: core::Permit) {
        self.end(permit, End::Abandoned);
    }

    #[inline]
    fn end(&self, permit: core::Permit, end: End) {
        let mut inner = self.lock();
        match self.clock.read(&mut inner.fast) {
            Ok(reading) => {
                inner.record(permit, end, reading);
                // Nobody waits: the usual case.
                if inner.needs_a_look() {
                    Turn::new(&self.clock, inner).settle_and_end(reading.earliest);
                }
            }
            Err(panic) => {
                inner.unstamped.push((permit, end));
                let mut turn = Turn::new(&self.clock, inner);
                turn.panics.note::<()>(Err(panic));
                turn.owe_a_look();
                turn.end_quietly();
            }
        }
    }

    /// A task that has its permit will not be started.
    pub(crate) fn undo(&self, permit: core::Permit) {
        let mut turn = self.turn();
        turn.inner.machine.undo(permit);
        turn.settle(None);
        turn.end_quietly();
    }

    /// A task of this limiter has ended, so that nothing waits inside of it any more.
    #[inline]
    pub(crate) fn task_ended(&self, task: TaskId) {
        if self.has_inside_waiters.load(Ordering::Relaxed) {
            let inner = &mut *self.lock();
            for waiter in &mut inner.inside {
                waiter.tasks.retain(|outer| outer.id != task);
            }
            inner.inside.retain(|waiter| !waiter.tasks.is_empty());
            self.has_inside_waiters.store(!inner.inside.is_empty(), Ordering::Relaxed);
        }
    }

    /// The other side says how much of a limit is in use.
    pub(crate) fn reconcile(&self, limit: usize, used: u64) -> u64 {
        let mut turn = self.turn();
        let Some(now) = turn.now() else { turn.end_and_tell() };
        let added = turn.inner.machine.reconcile(now, now, limit, used);
        turn.settle(Some(now));
        turn.end_quietly();
        added
    }

    /// Whether a limiter made just now would decide the same from here on. Not, where the clock panics.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_blank(&self) -> bool {
        foreign::call(|| self.now(Machine::is_blank)).unwrap_or(false)
    }

    pub(crate) fn pause_until(&self, until: u64) {
        let mut turn = self.turn();
        turn.inner.machine.pause_until(until);
        turn.settle(None);
        turn.end_quietly();
    }

    pub(crate) fn resume(&self) {
        let mut turn = self.turn();
        turn.inner.machine.resume();
        turn.settle(None);
        turn.end_quietly();
    }

    pub(crate) fn backoff_ns(&self) -> u64 {
        self.now(Machine::backoff_ns)
    }

    /// How long the pause lasts from now, in nanoseconds.
    pub(crate) fn paused_for(&self) -> u64 {
        self.now(|machine, now| machine.paused_until().saturating_sub(now))
    }

    /// Asks the machine something as of now, which changes nothing.
    fn now<R>(&self, ask: impl FnOnce(&mut Machine<Waker>, u64) -> R) -> R {
        let mut turn = self.turn();
        let Some(now) = turn.now() else { turn.end_and_tell() };
        let answer = ask(&mut turn.inner.machine, now);
        turn.end_quietly();
        answer
    }

    pub(crate) fn close(&self) {
        self.lock().machine.close();
    }

    pub(crate) fn abort(&self) {
        let mut turn = self.turn();
        let aborted = turn.inner.machine.abort();
        turn.wakes.extend(aborted);
        turn.settle(None);
        turn.end_quietly();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().machine.is_closed()
    }

    pub(crate) fn stats(&self) -> Stats {
        let core::Stats { running, queued, completed, held, next_opening } =
            self.now(Machine::stats);
        let next_opening = next_opening.and_then(|at| self.clock.to_instant(at));
        Stats { running, queued, completed, held, next_opening }
    }

    pub(crate) fn forecast(&self, tasks: u64, weight: u64) -> Result<Duration, core::RequestError> {
        self.now(|machine, now| {
            let at = machine.forecast(now, tasks, weight)?;
            Ok(Duration::from_nanos(at.saturating_sub(now)))
        })
    }

    pub(crate) fn limits(&self) -> Vec<core::Limit> {
        self.lock().machine.config().limits.clone()
    }

    /// Whether nothing runs and nobody waits; else `waker` is woken, once, when that is so. `id` is
    /// the listener's place, `None` before it has one.
    pub(crate) fn poll_drained(&self, id: &mut Option<u64>, waker: &Waker) -> Poll<()> {
        let mut turn = self.turn();
        let Some(now) = turn.now() else { turn.end_and_tell() };
        let cloned = foreign::call(|| waker.clone());
        let Some(waker) = turn.panics.note(cloned) else { turn.end_and_tell() };
        let inner = &mut *turn.inner;
        let place = inner.drained.iter_mut().find(|(listener, _)| Some(*listener) == *id);
        if let Some((_, old)) = place {
            let old = std::mem::replace(old, waker);
            turn.replaced.push(old);
        } else {
            let listener = inner.next_drained;
            inner.next_drained += 1;
            inner.drained.push((listener, waker));
            *id = Some(listener);
        }
        turn.drive(now);
        if turn.panics.is_some() {
            turn.end_and_tell();
        }
        // Driving has emptied the list of listeners if it is so.
        let drained = turn.inner.machine.is_drained();
        turn.end_quietly();
        if drained { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(crate) fn forget_drained(&self, id: u64) {
        let mut turn = self.turn();
        let index = turn.inner.drained.iter().position(|(listener, _)| *listener == id);
        let forgotten = index.map(|index| turn.inner.drained.swap_remove(index).1);
        turn.replaced.extend(forgotten);
        turn.end_quietly();
    }

    /// The timer has come, early or late.
    fn look(&self) {
        let mut turn = self.turn();
        turn.inner.lookout.timer_has_come();
        turn.look();
        turn.end_quietly();
    }

    fn standing(&self, turn: &mut Turn<'_>, ticket: Ticket) -> Result<Standing, AcquireError> {
        let machine = &mut turn.inner.machine;
        let standing = match machine.status(ticket) {
            TicketStatus::Queued { accepted } => Ok(Standing::Queued { ticket, accepted }),
            // It is out of the line and was not granted: only `abort` does that to a waiter.
            TicketStatus::Gone => Err(AcquireError::Aborted),
            TicketStatus::Granted => {
                let permit = machine.claim(ticket);
                permit.map(Standing::Granted).ok_or(AcquireError::Aborted)
            }
        };
        if !matches!(standing, Ok(Standing::Queued { .. })) {
            self.no_longer_waits(turn, ticket);
        }
        standing
    }

    fn no_longer_waits(&self, turn: &mut Turn<'_>, ticket: Ticket) {
        let inside = &mut turn.inner.inside;
        if !inside.is_empty() {
            inside.retain(|waiter| waiter.ticket != ticket);
            self.has_inside_waiters.store(!inside.is_empty(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn turn(&self) -> Turn<'_> {
        Turn::new(&self.clock, self.lock())
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock but a bug; what it leaves behind is still the machine.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Looker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.look();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use strict_rate_limiter_core::Config;

    use super::*;
    use crate::clock::{Clock, ManualClock, Timer};
    use crate::lookout::HEAD_OVERDUE_NS;

    const US: Duration = Duration::from_micros(1);
    const NS: Duration = Duration::from_nanos(1);
    const PER: Duration = Duration::from_millis(10);

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Woken {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    /// Somebody in the line.
    struct Waiting {
        woken: Arc<Woken>,
        waker: Waker,
        ticket: Ticket,
    }

    impl Waiting {
        fn new(shared: &Shared) -> Self {
            let woken = Arc::<Woken>::default();
            let waker = Waker::from(Arc::clone(&woken));
            match shared.enter(1, Kind::Acquire, &waker) {
                Ok(Standing::Queued { ticket, .. }) => Self { woken, waker, ticket },
                _ => panic!("the window is full"),
            }
        }

        fn is_granted(&self, shared: &Shared) -> bool {
            matches!(shared.look_for(self.ticket, &self.waker), Ok(Standing::Granted(_)))
        }
    }

    /// When the head is woken, after the last task's end.
    fn ahead(lead: Duration) -> Duration {
        (PER + NS).saturating_sub(lead)
    }

    /// A clock that moves when it is told to, for which everything is done as for the real one.
    #[derive(Debug)]
    struct AsIfReal(ManualClock);

    impl Clock for AsIfReal {
        fn now(&self) -> std::time::Instant {
            self.0.now()
        }

        fn timer(&self) -> Box<dyn Timer> {
            self.0.timer()
        }

        fn wakes_late(&self) -> bool {
            true
        }
    }

    /// A full window of one task on a clock that wakes late, and the lead that it begins with.
    fn full() -> (Arc<Shared>, ManualClock, Duration) {
        let limit = core::Limit::tasks(1, PER).unwrap();
        let clock = ManualClock::new();
        let machine = Machine::new(Config::new([limit])).unwrap();
        let shared = Shared::new(
            machine,
            Source::new(Some(Arc::new(AsIfReal(clock.clone()))), false),
            Name::new(None, &[limit], false),
        );
        let permit = shared.try_acquire(1).unwrap();
        shared.complete(permit, None);
        let lead = Duration::from_nanos(shared.lock().lookout.lead_ns());
        assert!(lead > 10 * US && lead < PER / 5);
        (shared, clock, lead)
    }

    #[test]
    fn the_head_is_woken_ahead_of_the_opening_and_looks_until_it_comes() {
        let (shared, clock, lead) = full();
        let head = Waiting::new(&shared);
        assert_eq!(clock.advance_to_next_timer(), Some(ahead(lead)));
        assert_eq!(head.woken.take(), 1);
        for _ in 0..3 {
            assert!(!head.is_granted(&shared), "the window is still full");
            assert_eq!(head.woken.take(), 1, "it asks to be polled again at once");
            clock.advance(US);
        }
        clock.advance(lead.saturating_sub(3 * US));
        assert!(head.is_granted(&shared), "by its own look, without the timer");
        assert!(Duration::from_nanos(shared.lock().lookout.lead_ns()) < lead, "it came early");
    }

    #[test]
    fn a_head_that_does_not_come_is_granted_by_the_timer() {
        let (shared, clock, lead) = full();
        let head = Waiting::new(&shared);
        let behind = Waiting::new(&shared);
        clock.advance(ahead(lead));
        assert_eq!((head.woken.take(), behind.woken.take()), (1, 0));
        let overdue = Duration::from_nanos(HEAD_OVERDUE_NS);
        assert_eq!(clock.advance_to_next_timer(), Some(lead + overdue));
        assert_eq!(shared.stats().running, 1, "nobody polled anything");
        assert!(head.is_granted(&shared));
    }

    #[test]
    fn when_a_woken_head_leaves_the_next_is_woken() {
        let (shared, clock, lead) = full();
        let head = Waiting::new(&shared);
        let next = Waiting::new(&shared);
        clock.advance(ahead(lead));
        assert!(!head.is_granted(&shared));
        shared.leave(head.ticket);
        assert_eq!(next.woken.take(), 0, "the lead has shrunk: it is a little early");
        assert_eq!(clock.advance_to_next_timer(), Some(2 * US));
        assert_eq!(next.woken.take(), 1);
        clock.advance(lead);
        assert!(next.is_granted(&shared));
    }

    #[test]
    fn a_timer_that_comes_at_any_time_does_no_harm() {
        let (shared, clock, lead) = full();
        let head = Waiting::new(&shared);
        let timer_comes = || {
            let _ = shared.lock().lookout.disarm();
            shared.look();
        };
        for _ in 0..5 {
            timer_comes();
            clock.advance(US);
            assert!(!head.is_granted(&shared));
        }
        assert_eq!(head.woken.take(), 0, "the opening is far");
        assert_eq!(
            clock.advance_to_next_timer(),
            Some(ahead(lead).saturating_sub(5 * US)),
            "set again"
        );
        assert_eq!(head.woken.take(), 1);
        timer_comes();
        clock.advance(lead);
        timer_comes();
        assert!(head.is_granted(&shared));
        assert_eq!(clock.advance_to_next_timer(), None, "no timer is left");
    }
}
