//! The timer, the waiters and the clock together: the limiter works as with the real clock, but in manual time.

use std::sync::atomic::{AtomicUsize, Ordering};

use strict_rate_limiter_core::Config;

use super::*;
use crate::clock::{Clock, ManualClock, Timer};
use crate::wake_timer::HEAD_OVERDUE_NS;

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

/// A waiter in the queue.
struct Waiting {
    woken: Arc<Woken>,
    waker: Waker,
    ticket: Ticket,
}

impl Waiting {
    fn new(shared: &Inner) -> Self {
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        match shared.enter(1, Kind::Acquire, &waker) {
            Ok(Standing::Queued { ticket, .. }) => Self { woken, waker, ticket },
            _ => panic!("the window is full"),
        }
    }

    fn is_granted(&self, shared: &Inner) -> bool {
        matches!(shared.look_for(self.ticket, &self.waker), Ok(Standing::Granted(_)))
    }
}

/// When the head is woken, after the last task's end.
fn ahead(lead: Duration) -> Duration {
    (PER + NS).saturating_sub(lead)
}

/// A manual clock whose timers wake late, as the real one's do.
#[derive(Debug)]
struct AsIfReal(ManualClock);

impl Clock for AsIfReal {
    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn timer(&self) -> Box<dyn Timer> {
        self.0.timer()
    }

    fn wakes_late(&self) -> bool {
        true
    }
}

/// A full window of one task on a clock that wakes late, and the lead that it begins with.
fn full() -> (Arc<Inner>, ManualClock, Duration) {
    let limit = core::Limit::tasks(1, PER).unwrap();
    let clock = ManualClock::new();
    let machine = Machine::new(Config::new([limit])).unwrap();
    let shared = Inner::new(
        machine,
        Timeline::new(Some(Arc::new(AsIfReal(clock.clone()))), false),
        Name::new(None, &[limit], false),
    );
    let permit = shared.try_acquire(1).unwrap();
    shared.complete(permit, None);
    let lead = Duration::from_nanos(shared.lock().wake_timer.lead_ns());
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
    assert!(Duration::from_nanos(shared.lock().wake_timer.lead_ns()) < lead, "it came early");
}

#[test]
fn a_head_that_is_not_polled_is_granted_by_the_timer() {
    let (shared, clock, lead) = full();
    let head = Waiting::new(&shared);
    let behind = Waiting::new(&shared);
    clock.advance(ahead(lead));
    assert_eq!((head.woken.take(), behind.woken.take()), (1, 0));
    let overdue = Duration::from_nanos(HEAD_OVERDUE_NS);
    assert_eq!(clock.advance_to_next_timer(), Some(lead + overdue));
    assert_eq!(shared.stats().running, 1, "no waiter was polled");
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
fn a_timer_that_fires_at_any_time_does_no_harm() {
    let (shared, clock, lead) = full();
    let head = Waiting::new(&shared);
    let timer_comes = || {
        let _ = shared.lock().wake_timer.disarm();
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
