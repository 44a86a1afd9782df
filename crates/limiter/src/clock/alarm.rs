//! The real clock's timer: one thread for the whole process, started by the first wait, that sleeps
//! until the earliest of all the times asked for.
//!
//! A thread of its own and the operating system's own wait have nanosecond resolution, need no
//! runtime, and depend on nobody's polling: the thread wakes the limiter itself, which looks, grants
//! and wakes whoever is first. (A runtime's timer wheel counts in whole milliseconds.)

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Instant;

use super::Timer;

#[derive(Default)]
struct Alarms {
    pending: Mutex<BTreeMap<(Instant, u64), Waker>>,
    earlier: Condvar,
}

/// A timer of the real clock.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    set: Option<(Instant, u64)>,
}

impl Timer for Alarm {
    fn set(&mut self, at: Instant, waker: &Waker) -> Poll<()> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);

        self.clear();
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let key = (at, NEXT_ID.fetch_add(1, Ordering::Relaxed));
        let alarms = alarms();
        let mut pending = alarms.lock();
        pending.insert(key, waker.clone());
        let is_earliest = pending.first_key_value().is_some_and(|(first, _)| *first == key);
        drop(pending);
        if is_earliest {
            alarms.earlier.notify_one();
        }
        self.set = Some(key);
        Poll::Pending
    }

    fn clear(&mut self) {
        if let Some(key) = self.set.take() {
            let waker = alarms().lock().remove(&key);
            drop(waker);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Instant, u64), Waker>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: wakes what is due, and sleeps until the next is.
    fn run(&self) {
        let mut pending = self.lock();
        loop {
            let Some(first) = pending.first_entry() else {
                pending = self.earlier.wait(pending).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = Instant::now();
            let (at, _) = *first.key();
            if at <= now {
                let waker = first.remove();
                drop(pending);
                // One limiter's bad waker must not stop the clock of all the others.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
                pending = self.lock();
            } else {
                let wait = self.earlier.wait_timeout(pending, at - now);
                pending = wait.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

fn alarms() -> &'static Alarms {
    static ALARMS: OnceLock<&'static Alarms> = OnceLock::new();
    ALARMS.get_or_init(|| {
        let alarms: &'static Alarms = Box::leak(Box::default());
        thread::Builder::new()
            .name("rate-limiter-timer".into())
            .spawn(|| alarms.run())
            .expect("the operating system refused a thread for the timer");
        alarms
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

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

    fn set(alarm: &mut Alarm, at: Instant, sender: &mpsc::Sender<Instant>) {
        let waker = Waker::from(Arc::new(Tell(sender.clone())));
        if alarm.set(at, &waker).is_ready() {
            waker.wake();
        }
    }

    #[test]
    fn an_alarm_goes_off_once_and_not_before_its_time() {
        let (sender, woken) = mpsc::channel();
        for ms in [30, 0, 10, 20] {
            let at = Instant::now() + Duration::from_millis(ms);
            let mut alarm = Alarm::default();
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
        let (mut moved, mut cleared) = (Alarm::default(), Alarm::default());
        set(&mut moved, an_hour_from_now, &sender);
        set(&mut cleared, an_hour_from_now, &sender);
        cleared.clear();
        set(&mut moved, Instant::now() + Duration::from_millis(5), &sender);
        drop(sender);
        assert!(woken.recv().is_ok());
        assert!(woken.recv().is_err(), "nobody holds a waker any more");
    }

    #[test]
    fn a_waker_that_panics_stops_nobody_elses_clock() {
        let at = Instant::now() + Duration::from_millis(5);
        let (mut bad, mut good) = (Alarm::default(), Alarm::default());
        let _ = bad.set(at, &Waker::from(Arc::new(Bad)));
        let (sender, woken) = mpsc::channel();
        set(&mut good, at + Duration::from_millis(5), &sender);
        assert!(woken.recv().is_ok());
    }
}
