//! What all handles, waiters and permits of one limiter share: the machine under its lock, the
//! clock, the timer.
//!
//! Every change goes the same way: lock, change the machine, `drive` it until it has nothing more to
//! grant, unlock, wake whoever was granted. Nobody is woken under the lock.
//!
//! There is no background task. Driving arms the timer for when the machine wants to be looked at
//! again; the timer wakes a [`Looker`], not a waiter, so that a waiter that is not polled holds its
//! own place in the line and never the timer of those behind it.

use std::sync::{Arc, PoisonError, Weak};
use std::task::{Poll, Wake, Waker};

use strict_rate_limiter_core as core;
use strict_rate_limiter_core::{Decision, Machine, Place, Ticket, TicketStatus, TryGrantError};

use crate::clock::{Fast, Reading, Source};
use crate::error::{AcquireError, TryAcquireError};
use crate::lead::Lead;
use crate::lookout::{Look, Lookout};
use crate::observe::{Name, Observer};
use crate::scope;
use crate::stats::Stats;
use crate::sync::{Mutex, MutexGuard};
use crate::wakes::Wakes;

pub(crate) struct Shared {
    pub(crate) clock: Source,
    pub(crate) observer: Observer,
    inner: Mutex<Inner>,
}

struct Inner {
    machine: Machine<Waker>,
    fast: Fast,
    lookout: Lookout,
    drained: Vec<(u64, Waker)>,
    next_drained: u64,
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
            }),
            observer,
            clock,
        })
    }

    pub(crate) fn try_acquire(&self, weight: u64) -> Result<core::Permit, TryAcquireError> {
        let mut inner = self.lock();
        if let Some(permit) = inner.machine.grant_at_once(weight) {
            return Ok(permit);
        }
        let now = self.clock.now();
        inner.machine.try_grant(now, weight).map_err(|error| match error {
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
            None => self.join(inner, weight, kind, waker),
        }
    }

    fn join(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        weight: u64,
        kind: Kind,
        waker: &Waker,
    ) -> Result<Standing, AcquireError> {
        // Where only a completion can make room, the time does not matter.
        let now = (!inner.machine.awaits_completion()).then(|| self.clock.now());
        if let Some(Ok(permit)) = now.map(|now| inner.machine.try_grant(now, weight)) {
            return Ok(Standing::Granted(permit));
        }
        let would_deadlock = |outer| !inner.machine.could_nest(outer, weight);
        if kind == Kind::Acquire && scope::any_running(self, would_deadlock) {
            inner.machine.check(weight)?;
            let closed = inner.machine.is_closed();
            return Err(if closed { AcquireError::Closed } else { AcquireError::WouldDeadlock });
        }
        let enqueued = inner.machine.enqueue(weight, waker.clone());
        let Place { ticket, accepted } = enqueued?;
        let Some(now) = now else { return Ok(Standing::Queued { ticket, accepted }) };
        let mut wakes = Wakes::default();
        self.drive(&mut inner, now, &mut wakes);
        let standing = inner.standing(ticket);
        drop(inner);
        wakes.wake();
        standing
    }

    /// What has become of a waiter that joined. If it is first, it looks at the clock as well.
    pub(crate) fn look_for(&self, ticket: Ticket, waker: &Waker) -> Result<Standing, AcquireError> {
        let mut inner = self.lock();
        if let Some(permit) = inner.machine.claim(ticket) {
            return Ok(Standing::Granted(permit));
        }
        let mut replaced = None;
        let mut wakes = Wakes::default();
        let mut look_at_once = false;
        if let Some(old) = inner.machine.waiter_mut(ticket) {
            if !old.will_wake(waker) {
                replaced = Some(std::mem::replace(old, waker.clone()));
            }
            if inner.machine.head() == Some(ticket) && inner.lookout.is_armed() {
                let now = self.clock.now();
                match inner.lookout.head_looks(now) {
                    Look::Open => self.drive(&mut inner, now, &mut wakes),
                    Look::Near => look_at_once = true,
                    Look::Far => {}
                }
            }
        }
        let standing = inner.standing(ticket);
        drop(inner);
        drop(replaced);
        wakes.wake();
        if look_at_once && matches!(standing, Ok(Standing::Queued { .. })) {
            // The opening is near: come back as soon as the executor has let others run.
            waker.wake_by_ref();
        }
        standing
    }

    /// A waiter leaves, granted or not.
    pub(crate) fn leave(&self, ticket: Ticket) {
        let mut inner = self.lock();
        if inner.machine.head() == Some(ticket) {
            // Whoever is first from now on has not been woken for the opening.
            inner.lookout.disarm();
        }
        let waker = inner.machine.cancel(ticket);
        self.settle(inner, None);
        drop(waker);
    }

    /// A task has ended. Returns what it used beyond its reservation.
    #[inline]
    pub(crate) fn complete(&self, permit: core::Permit, actual: Option<u64>) -> u64 {
        let mut inner = self.lock();
        let Reading { earliest, latest } = self.clock.read(&mut inner.fast);
        let excess = inner.machine.complete(permit, earliest, latest, actual);
        self.settle(inner, Some(earliest));
        excess
    }

    /// A task was dropped while it ran, or may have been.
    #[inline]
    pub(crate) fn abandon(&self, permit: core::Permit) {
        let mut inner = self.lock();
        let Reading { earliest, latest } = self.clock.read(&mut inner.fast);
        inner.machine.abandon(permit, earliest, latest);
        self.settle(inner, Some(earliest));
    }

    /// A task that has its permit will not be started.
    pub(crate) fn undo(&self, permit: core::Permit) {
        let mut inner = self.lock();
        inner.machine.undo(permit);
        self.settle(inner, None);
    }

    /// The other side says how much of a limit is in use.
    pub(crate) fn reconcile(&self, limit: usize, used: u64) -> u64 {
        let mut inner = self.lock();
        let now = self.clock.now();
        let added = inner.machine.reconcile(now, now, limit, used);
        self.settle(inner, Some(now));
        added
    }

    /// Whether a limiter made just now would decide the same from here on.
    #[cfg(feature = "keyed")]
    pub(crate) fn is_blank(&self) -> bool {
        self.lock().machine.is_blank(self.clock.now())
    }

    pub(crate) fn pause_until(&self, until: u64) {
        let mut inner = self.lock();
        inner.machine.pause_until(until);
        self.settle(inner, None);
    }

    pub(crate) fn close(&self) {
        self.lock().machine.close();
    }

    pub(crate) fn abort(&self) {
        let mut inner = self.lock();
        let aborted: Vec<Waker> = inner.machine.abort().collect();
        self.settle(inner, None);
        aborted.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().machine.is_closed()
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut inner = self.lock();
        let core::Stats { running, queued, completed, held, next_opening } =
            inner.machine.stats(self.clock.now());
        let next_opening = next_opening.and_then(|at| self.clock.to_instant(at));
        Stats { running, queued, completed, held, next_opening }
    }

    pub(crate) fn limits(&self) -> Vec<core::Limit> {
        self.lock().machine.config().limits.clone()
    }

    /// Whether nothing runs and nobody waits; else `waker` is woken, once, when that is so. `id` is
    /// the listener's place, `None` before it has one.
    pub(crate) fn poll_drained(&self, id: &mut Option<u64>, waker: &Waker) -> Poll<()> {
        let mut inner = self.lock();
        let now = self.clock.now();
        let mut replaced = None;
        let place = inner.drained.iter_mut().find(|(listener, _)| Some(*listener) == *id);
        if let Some((_, old)) = place {
            replaced = Some(std::mem::replace(old, waker.clone()));
        } else {
            let listener = inner.next_drained;
            inner.next_drained += 1;
            inner.drained.push((listener, waker.clone()));
            *id = Some(listener);
        }
        let mut wakes = Wakes::default();
        self.drive(&mut inner, now, &mut wakes);
        // Driving has emptied the list of listeners if it is so.
        let drained = inner.machine.is_drained();
        drop(inner);
        drop(replaced);
        wakes.wake();
        if drained { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(crate) fn forget_drained(&self, id: u64) {
        let mut inner = self.lock();
        let index = inner.drained.iter().position(|(listener, _)| *listener == id);
        let forgotten = index.map(|index| inner.drained.swap_remove(index));
        drop(inner);
        drop(forgotten);
    }

    /// After a change: lets it take effect on whoever waits. `now` where it was read already.
    #[inline]
    fn settle(&self, inner: MutexGuard<'_, Inner>, now: Option<u64>) {
        let nobody_waits = inner.machine.head().is_none() && inner.drained.is_empty();
        if !nobody_waits || inner.lookout.is_armed() {
            self.drive_and_wake(inner, now.unwrap_or_else(|| self.clock.now()));
        }
    }

    #[inline(never)]
    fn drive_and_wake(&self, mut inner: MutexGuard<'_, Inner>, now: u64) {
        let mut wakes = Wakes::default();
        self.drive(&mut inner, now, &mut wakes);
        drop(inner);
        wakes.wake();
    }

    /// Has the machine decide all it can, and arms the timer for the rest.
    #[inline]
    fn drive(&self, inner: &mut Inner, mut now: u64, wakes: &mut Wakes) {
        loop {
            match inner.machine.poll(now) {
                Decision::Grant { waiter, .. } => wakes.push(waiter),
                Decision::Accept { ticket } => {
                    wakes.extend(inner.machine.waiter_mut(ticket).cloned());
                }
                Decision::LookAgainAt(opening) => match self.arm(inner, opening, now, wakes) {
                    Poll::Ready(()) => now = self.clock.now(),
                    Poll::Pending => break,
                },
                Decision::WaitForCompletion | Decision::Idle => {
                    inner.lookout.disarm();
                    break;
                }
            }
        }
        if !inner.drained.is_empty() && inner.machine.is_drained() {
            wakes.extend(inner.drained.drain(..).map(|(_, waker)| waker));
        }
    }

    #[inline(never)]
    fn arm(&self, inner: &mut Inner, opening: u64, now: u64, wakes: &mut Wakes) -> Poll<()> {
        let head = inner.machine.head();
        let (look_at, wake_head) = inner.lookout.plan(opening, now, head.is_some());
        if let Some(head) = head.filter(|_| wake_head) {
            wakes.extend(inner.machine.waiter_mut(head).cloned());
        }
        // An instant later than the platform can say is one that nobody will live to see.
        let look_at = look_at.and_then(|at| self.clock.to_instant(at));
        look_at.map_or(Poll::Pending, |at| inner.lookout.set_timer(at))
    }

    /// The timer has come, early or late.
    fn look(&self) {
        let mut inner = self.lock();
        inner.lookout.timer_has_come();
        self.drive_and_wake(inner, self.clock.now());
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock but a bug; what it leaves behind is still the machine.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn standing(&mut self, ticket: Ticket) -> Result<Standing, AcquireError> {
        match self.machine.status(ticket) {
            TicketStatus::Queued { accepted } => Ok(Standing::Queued { ticket, accepted }),
            // It is out of the line and was not granted: only `abort` does that to a waiter.
            TicketStatus::Gone => Err(AcquireError::Aborted),
            TicketStatus::Granted => {
                let permit = self.machine.claim(ticket);
                permit.map(Standing::Granted).ok_or(AcquireError::Aborted)
            }
        }
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
    use std::time::Duration;

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
            Source::new(Some(Arc::new(AsIfReal(clock.clone())))),
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
            shared.lock().lookout.disarm();
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
