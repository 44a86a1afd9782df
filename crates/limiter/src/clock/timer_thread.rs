//! The real clock's timer: one thread for the whole process, started by the first wait, that sleeps
//! until the earliest of all timers.
//!
//! A thread with the operating system's own wait has nanosecond resolution and needs no runtime and no
//! polling: the thread wakes the limiter, which looks, grants and wakes the first waiter. (A runtime's
//! timer wheel counts in whole milliseconds.)
//!
//! A child of a `fork` has none of its parent's threads, and one of them may hold the parent's lock for
//! ever. So each process has a [`TimerThread`] of its own, known by the process's id. What was set in the
//! parent is lost, and [`ThreadTimer::is_lost`] says so. If the system refuses the thread, the next timer
//! that is set asks for it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use super::real::RealClock;
use super::{TimerQueue, TimerSet, TimerSlot};

/// The timers and the thread of one process.
struct TimerThread {
    process: u32,
    state: Mutex<State>,
    /// Notified when there is an earlier timer than the thread sleeps until.
    earlier: Condvar,
    /// Set in a child of that process, after a `fork`: the child's own timers.
    child: Next,
}

type Next = OnceLock<&'static TimerThread>;

#[derive(Default)]
struct State {
    timers: TimerQueue,
    has_thread: bool,
}

/// A timer of the real clock.
pub(crate) struct ThreadTimer {
    clock: RealClock,
    set: Option<(&'static TimerThread, TimerSlot)>,
}

impl ThreadTimer {
    pub(super) fn new(clock: RealClock) -> Self {
        Self { clock, set: None }
    }

    pub(super) fn set(&mut self, at_ns: u64, waker: &Waker) -> TimerSet {
        self.clear();
        let now_ns = self.clock.now_ns();
        if at_ns <= now_ns {
            return TimerSet::Due;
        }
        let thread = TimerThread::of_this_process();
        let mut state = thread.lock();
        if !thread.has_thread(&mut state, self.clock) {
            return TimerSet::Unavailable;
        }
        let is_earliest = state.timers.next_ns().is_none_or(|next_ns| at_ns < next_ns);
        let mut slot = TimerSlot::default();
        let set = state.timers.set(&mut slot, at_ns, now_ns, waker);
        drop(state);
        debug_assert_eq!(set, Poll::Pending);
        if is_earliest {
            thread.earlier.notify_one();
        }
        self.set = Some((thread, slot));
        TimerSet::Set
    }

    pub(super) fn clear(&mut self) {
        if let Some((thread, mut slot)) = self.set.take()
            && thread.process == process_id()
        {
            let waker = thread.lock().timers.clear(&mut slot);
            drop(waker);
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.set.as_ref().is_some_and(|(thread, _)| thread.process != process_id())
    }
}

impl Drop for ThreadTimer {
    fn drop(&mut self) {
        self.clear();
    }
}

impl TimerThread {
    fn of_this_process() -> &'static Self {
        static FIRST: Next = OnceLock::new();

        let id = process_id();
        let mut next = &FIRST;
        loop {
            let thread = *next.get_or_init(|| Box::leak(Box::new(Self::new(id))));
            if thread.process == id && thread.child.get().is_none() {
                return thread;
            }
            next = &thread.child;
        }
    }

    fn new(process: u32) -> Self {
        Self { process, state: Mutex::default(), earlier: Condvar::new(), child: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a thread. Starts it if there is none yet.
    fn has_thread(&'static self, state: &mut State, clock: RealClock) -> bool {
        #[cfg(test)]
        if tests::NO_THREAD.get() {
            return false;
        }
        if !state.has_thread {
            let thread = thread::Builder::new().name("rate-limiter-timer".into());
            state.has_thread = thread.spawn(move || self.run(clock)).is_ok();
        }
        state.has_thread
    }

    /// The thread: wakes the due wakers, and sleeps until the next time.
    fn run(&self, clock: RealClock) {
        let mut state = self.lock();
        loop {
            let Some(next_ns) = state.timers.next_ns() else {
                state = self.earlier.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now_ns = clock.now_ns();
            if let Some(waker) = state.timers.pop_due(now_ns) {
                drop(state);
                // A waker that panics must not stop the thread that wakes all the others.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                state = self.lock();
            } else {
                let wait = Duration::from_nanos(next_ns.saturating_sub(now_ns));
                let waited = self.earlier.wait_timeout(state, wait);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// A number that a child of a `fork` does not share with its parent.
fn process_id() -> u32 {
    // On other systems there is no `fork`, and asking may panic.
    if cfg!(unix) { std::process::id() } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::{Arc, mpsc};
    use std::task::Wake;
    use std::time::Instant;

    use strict_rate_limiter_core::limit::saturating_ns;

    use super::*;
    use crate::RateLimiter;

    thread_local! {
        /// Whether the system refuses this thread another one, as far as the timers can tell.
        pub(super) static NO_THREAD: Cell<bool> = const { Cell::new(false) };
    }

    struct Tell(mpsc::Sender<Instant>);

    impl Wake for Tell {
        fn wake(self: Arc<Self>) {
            self.0.send(Instant::now()).unwrap();
        }
    }

    /// Panics if it is woken.
    struct Bad;

    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }

    // Time is real here, but nothing depends on the machine's speed: if a time has come before the timer could
    // be set, the test wakes the waker.

    fn timer() -> ThreadTimer {
        ThreadTimer::new(RealClock::new())
    }

    fn set_for(timer: &mut ThreadTimer, at: Instant, waker: &Waker) -> TimerSet {
        let (begin, begin_ns) = timer.clock.instant_pair();
        timer.set(begin_ns + saturating_ns(at - begin), waker)
    }

    fn set(timer: &mut ThreadTimer, at: Instant, sender: &mpsc::Sender<Instant>) {
        let waker = Waker::from(Arc::new(Tell(sender.clone())));
        if set_for(timer, at, &waker) == TimerSet::Due {
            waker.wake();
        }
    }

    #[test]
    fn a_timer_comes_once_and_not_before_its_time() {
        let (sender, woken) = mpsc::channel();
        for ms in [30, 0, 10, 20] {
            let at = Instant::now() + Duration::from_millis(ms);
            let mut timer = timer();
            set(&mut timer, at, &sender);
            assert!(woken.recv().unwrap() >= at);
        }
        drop(sender);
        assert!(woken.recv().is_err(), "all wakers have been dropped");
    }

    #[test]
    fn a_timer_that_is_set_anew_or_cleared_forgets_its_old_time() {
        let (sender, woken) = mpsc::channel();
        let an_hour_from_now = Instant::now() + Duration::from_secs(3_600);
        let (mut moved, mut cleared) = (timer(), timer());
        set(&mut moved, an_hour_from_now, &sender);
        set(&mut cleared, an_hour_from_now, &sender);
        let mut dropped = timer();
        set(&mut dropped, an_hour_from_now, &sender);
        cleared.clear();
        drop(dropped);
        set(&mut moved, Instant::now() + Duration::from_millis(5), &sender);
        drop(sender);
        assert!(woken.recv().is_ok());
        assert!(woken.recv().is_err(), "all wakers have been dropped");
    }

    #[test]
    fn without_a_thread_the_first_waiter_looks_for_itself_and_nobody_else_overtakes_it() {
        let limiter = RateLimiter::new(1, Duration::from_millis(30)).unwrap();
        limiter.acquire_blocking().unwrap().complete();
        NO_THREAD.set(true);
        limiter.acquire_blocking().unwrap().complete();
        let mut timer = timer();
        let far = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(set_for(&mut timer, far, Waker::noop()), TimerSet::Unavailable);
        NO_THREAD.set(false);
        limiter.acquire_blocking().unwrap().complete();
        assert_eq!(set_for(&mut timer, far, Waker::noop()), TimerSet::Set);
    }

    #[test]
    fn a_waker_that_panics_stops_no_other_timer() {
        let at = Instant::now() + Duration::from_millis(5);
        let (mut bad, mut good) = (timer(), timer());
        let _ = set_for(&mut bad, at, &Waker::from(Arc::new(Bad)));
        let (sender, woken) = mpsc::channel();
        set(&mut good, at + Duration::from_millis(5), &sender);
        assert!(woken.recv().is_ok());
    }
}
