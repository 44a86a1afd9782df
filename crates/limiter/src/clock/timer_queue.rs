//! The timers of one clock, in the order of their times.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};

/// The timers of one clock: wakers in the order of their times, and for equal times in the order in which
/// they were set. For writers of clocks: each [`Timer`](super::Timer) has a [`TimerSlot`], and the clock
/// pops the due timers when its time moves.
///
/// A clock that the program moves:
///
/// ```
/// # use std::sync::{Arc, Mutex};
/// # use std::task::{Poll, Waker};
/// # use strict_rate_limiter::RateLimiter;
/// use strict_rate_limiter::clock::{Clock, Timer, TimerQueue, TimerSlot};
///
/// #[derive(Debug, Clone, Default)]
/// struct Steps(Arc<Mutex<(u64, TimerQueue)>>);
///
/// struct StepsTimer(Steps, TimerSlot);
///
/// impl Steps {
///     fn move_to(&self, ns: u64) {
///         self.0.lock().unwrap().0 = ns;
///         // The lock is released before each waker is woken: the waker reads the clock.
///         let next = || self.0.lock().unwrap().1.pop_due(ns);
///         std::iter::from_fn(next).for_each(Waker::wake);
///     }
/// }
///
/// impl Clock for Steps {
///     fn now_ns(&self) -> u64 {
///         self.0.lock().unwrap().0
///     }
///     fn timer(&self) -> Box<dyn Timer> {
///         Box::new(StepsTimer(self.clone(), TimerSlot::default()))
///     }
/// }
///
/// impl Timer for StepsTimer {
///     fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
///         let (now_ns, timers) = &mut *self.0.0.lock().unwrap();
///         timers.set(&mut self.1, at_ns, *now_ns, waker)
///     }
///     fn clear(&mut self) {
///         self.0.0.lock().unwrap().1.clear(&mut self.1);
///     }
/// }
///
/// impl Drop for StepsTimer {
///     fn drop(&mut self) {
///         self.clear();
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = Steps::default();
/// let limiter = RateLimiter::builder().limit("1/5ns".parse()?).clock(clock.clone()).build()?;
/// limiter.try_acquire()?.complete();
/// # let acquire = std::pin::pin!(limiter.acquire());
/// # let mut context = std::task::Context::from_waker(Waker::noop());
/// # assert!(std::future::Future::poll(acquire, &mut context).is_pending());
/// clock.move_to(6);
/// # assert_eq!(limiter.stats().running, 1, "the timer has granted");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct TimerQueue {
    timers: BTreeMap<Key, Waker>,
    next_id: u64,
}

/// A time, and a number that no other timer of the queue has.
type Key = (u64, u64);

/// The position of one timer in its [`TimerQueue`], if it is set. Belongs to one queue: used with another, it
/// may clear another timer. Dropping it leaves the timer set.
#[derive(Debug, Default)]
pub struct TimerSlot(Option<Key>);

impl TimerQueue {
    /// A queue without timers.
    pub const fn new() -> Self {
        Self { timers: BTreeMap::new(), next_id: 0 }
    }

    /// Sets the slot's timer, and replaces its earlier one. If `at_ns` has come by `now_ns`, sets nothing and
    /// returns [`Poll::Ready`].
    pub fn set(
        &mut self,
        slot: &mut TimerSlot,
        at_ns: u64,
        now_ns: u64,
        waker: &Waker,
    ) -> Poll<()> {
        drop(self.clear(slot));
        if at_ns <= now_ns {
            return Poll::Ready(());
        }
        let key = (at_ns, self.next_id);
        self.next_id += 1;
        self.timers.insert(key, waker.clone());
        slot.0 = Some(key);
        Poll::Pending
    }

    /// Removes the slot's timer and returns its waker. `None` if it is not set or was popped.
    pub fn clear(&mut self, slot: &mut TimerSlot) -> Option<Waker> {
        self.timers.remove(&slot.0.take()?)
    }

    /// The earliest time of all timers.
    pub fn next_ns(&self) -> Option<u64> {
        self.timers.first_key_value().map(|((at_ns, _), _)| *at_ns)
    }

    /// Removes the earliest timer if its time has come by `now_ns`. Release the queue's lock before you wake
    /// the waker.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<Waker> {
        let first = self.timers.first_entry()?;
        let (at_ns, _) = *first.key();
        (at_ns <= now_ns).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::task::Wake;

    use super::*;

    struct Numbered(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Numbered {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    /// A queue with one timer for each of these times, their slots, and the list of those that were woken.
    struct Fixture {
        queue: TimerQueue,
        slots: Vec<TimerSlot>,
        woken: Arc<Mutex<Vec<usize>>>,
    }

    impl Fixture {
        fn new(times: &[u64]) -> Self {
            let (mut queue, woken) = (TimerQueue::new(), Arc::default());
            let set = |(number, at_ns): (usize, &u64)| {
                let mut slot = TimerSlot::default();
                let waker = Waker::from(Arc::new(Numbered(number, Arc::clone(&woken))));
                assert_eq!(queue.set(&mut slot, *at_ns, 0, &waker), Poll::Pending);
                slot
            };
            let slots = times.iter().enumerate().map(set).collect();
            Self { queue, slots, woken }
        }

        fn woken_by(&mut self, now_ns: u64) -> Vec<usize> {
            while let Some(waker) = self.queue.pop_due(now_ns) {
                waker.wake();
            }
            std::mem::take(&mut self.woken.lock().unwrap())
        }
    }

    #[test]
    fn timers_come_in_the_order_of_their_times_and_not_before() {
        let mut timers = Fixture::new(&[30, 10, 20]);
        assert_eq!(timers.queue.next_ns(), Some(10));
        assert_eq!(timers.woken_by(9), []);
        assert_eq!(timers.woken_by(20), [1, 2]);
        assert_eq!(timers.queue.next_ns(), Some(30));
        assert_eq!(timers.woken_by(u64::MAX), [0]);
        assert_eq!(
            (timers.queue.next_ns(), timers.queue.pop_due(u64::MAX).is_none()),
            (None, true)
        );
    }

    #[test]
    fn timers_of_one_time_come_in_the_order_in_which_they_were_set() {
        let mut timers = Fixture::new(&[5, 5, 4, 5]);
        assert_eq!(timers.woken_by(5), [2, 0, 1, 3]);
    }

    #[test]
    fn a_timer_that_is_cleared_does_not_come_and_those_of_its_time_do() {
        let mut timers = Fixture::new(&[5, 5, 5]);
        assert!(timers.queue.clear(&mut timers.slots[1]).is_some());
        assert!(timers.queue.clear(&mut timers.slots[1]).is_none(), "once");
        assert_eq!(timers.woken_by(5), [0, 2]);
        assert!(timers.queue.clear(&mut timers.slots[0]).is_none(), "it has come");
    }

    #[test]
    fn a_timer_that_is_set_anew_forgets_its_old_time_even_where_the_new_one_has_come() {
        let mut timers = Fixture::new(&[5, 6]);
        let slot = &mut timers.slots[0];
        assert_eq!(timers.queue.set(slot, 9, 4, Waker::noop()), Poll::Pending);
        assert_eq!(timers.queue.next_ns(), Some(6));
        let slot = &mut timers.slots[1];
        assert_eq!(timers.queue.set(slot, 4, 4, Waker::noop()), Poll::Ready(()));
        assert_eq!(timers.queue.next_ns(), Some(9));
    }
}
