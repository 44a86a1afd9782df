//! The real clock's timer: one thread for the whole process, started by the first wait, that sleeps
//! until the earliest of all the times asked for.
//!
//! A thread of its own and the operating system's own wait have nanosecond resolution, need no
//! runtime, and depend on nobody's polling: the thread wakes the limiter itself, which looks, grants
//! and wakes whoever is first. (A runtime's timer wheel counts in whole milliseconds.)
//!
//! A child of a `fork` has none of its parent's threads, and its parent's lock may be held by one of them
//! for ever. So a process has alarms of its own, known by the process's id; what was set in the parent is
//! lost, and says so. A thread that the system refuses is asked for again by the next alarm.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::thread;
use std::time::Instant;

use super::TimerSet;
use super::process;

/// The alarms of one process.
struct TimerThread {
    process: u32,
    state: Mutex<State>,
    earlier: Condvar,
    /// Those of the child of a `fork` that this process is, if it is one.
    child: Next,
}

type Next = OnceLock<&'static TimerThread>;

#[derive(Default)]
struct State {
    pending: BTreeMap<Key, Waker>,
    has_thread: bool,
}

type Key = (Instant, u64);

/// A timer of the real clock.
#[derive(Default)]
pub(crate) struct ThreadTimer {
    set: Option<(&'static TimerThread, Key)>,
}

impl ThreadTimer {
    pub(super) fn set(&mut self, at: Instant, waker: &Waker) -> TimerSet {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);

        self.clear();
        if at <= Instant::now() {
            return TimerSet::Due;
        }
        let key = (at, NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let alarms = TimerThread::of_this_process();
        let mut state = alarms.lock();
        if !alarms.has_thread(&mut state) {
            return TimerSet::Unavailable;
        }
        state.pending.insert(key, waker.clone());
        let is_earliest = state.pending.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(state);
        if is_earliest {
            alarms.earlier.notify_one();
        }
        self.set = Some((alarms, key));
        TimerSet::Set
    }

    pub(super) fn clear(&mut self) {
        if let Some((alarms, key)) = self.set.take()
            && alarms.process == process::id()
        {
            let waker = alarms.lock().pending.remove(&key);
            drop(waker);
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.set.is_some_and(|(alarms, _)| alarms.process != process::id())
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

        let id = process::id();
        let mut next = &FIRST;
        loop {
            let alarms = *next.get_or_init(|| Box::leak(Box::new(Self::new(id))));
            if alarms.process == id && alarms.child.get().is_none() {
                return alarms;
            }
            next = &alarms.child;
        }
    }

    fn new(process: u32) -> Self {
        Self { process, state: Mutex::default(), earlier: Condvar::new(), child: OnceLock::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a thread to wake what is due; started, where there is none yet.
    fn has_thread(&'static self, state: &mut State) -> bool {
        #[cfg(test)]
        if tests::NO_THREAD.get() {
            return false;
        }
        if !state.has_thread {
            let thread = thread::Builder::new().name("rate-limiter-timer".into());
            state.has_thread = thread.spawn(|| self.run()).is_ok();
        }
        state.has_thread
    }

    /// The thread: wakes what is due, and sleeps until the next is.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            let Some(first) = state.pending.first_entry() else {
                state = self.earlier.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = Instant::now();
            let (at, _) = *first.key();
            if at <= now {
                let waker = first.remove();
                drop(state);
                // One limiter's bad waker must not stop the clock of all the others.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                state = self.lock();
            } else {
                let wait = self.earlier.wait_timeout(state, at - now);
                state = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::{Arc, mpsc};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;
    use crate::RateLimiter;

    thread_local! {
        /// Whether the system refuses this thread another one, as far as the alarms can tell.
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

    // Time is real here, and nothing depends on how fast the machine is: a time that has come before
    // the alarm could be set is told by the test itself.

    fn set(alarm: &mut ThreadTimer, at: Instant, sender: &mpsc::Sender<Instant>) {
        let waker = Waker::from(Arc::new(Tell(sender.clone())));
        if alarm.set(at, &waker) == TimerSet::Due {
            waker.wake();
        }
    }

    #[test]
    fn an_alarm_goes_off_once_and_not_before_its_time() {
        let (sender, woken) = mpsc::channel();
        for ms in [30, 0, 10, 20] {
            let at = Instant::now() + Duration::from_millis(ms);
            let mut alarm = ThreadTimer::default();
            set(&mut alarm, at, &sender);
            assert!(woken.recv().unwrap() >= at);
        }
        drop(sender);
        assert!(woken.recv().is_err(), "nobody holds a waker any more");
    }

    #[test]
    fn an_alarm_that_is_set_anew_or_cleared_forgets_its_old_time() {
        let (sender, woken) = mpsc::channel();
        let an_hour_from_now = Instant::now() + Duration::from_secs(3_600);
        let (mut moved, mut cleared) = (ThreadTimer::default(), ThreadTimer::default());
        set(&mut moved, an_hour_from_now, &sender);
        set(&mut cleared, an_hour_from_now, &sender);
        let mut dropped = ThreadTimer::default();
        set(&mut dropped, an_hour_from_now, &sender);
        cleared.clear();
        drop(dropped);
        set(&mut moved, Instant::now() + Duration::from_millis(5), &sender);
        drop(sender);
        assert!(woken.recv().is_ok());
        assert!(woken.recv().is_err(), "nobody holds a waker any more");
    }

    #[test]
    fn without_a_thread_the_first_waiter_looks_for_itself_and_nobody_else_overtakes_it() {
        let limiter = RateLimiter::new(1, Duration::from_millis(30)).unwrap();
        limiter.acquire_blocking().unwrap().complete();
        NO_THREAD.set(true);
        limiter.acquire_blocking().unwrap().complete();
        let mut alarm = ThreadTimer::default();
        let far = Instant::now() + Duration::from_secs(3_600);
        assert_eq!(alarm.set(far, Waker::noop()), TimerSet::Unavailable);
        NO_THREAD.set(false);
        limiter.acquire_blocking().unwrap().complete();
        assert_eq!(alarm.set(far, Waker::noop()), TimerSet::Set);
    }

    #[test]
    fn a_waker_that_panics_stops_nobody_elses_clock() {
        let at = Instant::now() + Duration::from_millis(5);
        let (mut bad, mut good) = (ThreadTimer::default(), ThreadTimer::default());
        let _ = bad.set(at, &Waker::from(Arc::new(Bad)));
        let (sender, woken) = mpsc::channel();
        set(&mut good, at + Duration::from_millis(5), &sender);
        assert!(woken.recv().is_ok());
    }
}
