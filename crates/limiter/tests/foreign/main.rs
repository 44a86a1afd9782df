//! Foreign code that panics loses no permit, no waiter and no wake-up, wherever it is called.
//!
//! One scenario is repeated for each call of foreign code (the clock, its timer, wakers, the recorder, the
//! subscriber). That call panics: once, twice in a row, or from then on until the panics stop. Afterwards
//! every permit has been returned, every waiter that did not panic itself was granted, and no window has
//! overflowed.

mod fuse;

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::Duration;

use fuse::{BadClock, BadRecorder, BadSubscriber, Blown};
use strict_rate_limiter::audit::{self, Record};
use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::{Limit, RateLimiter};

const MS: Duration = Duration::from_millis(1);
const LIMIT: &str = "3/10ms";
const GRACE: Duration = Duration::from_millis(4);

/// The variants of the scenario.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// The clock's timers wake late.
    wakes_late: bool,
    /// The limiter is aborted in the end.
    is_aborted: bool,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// One run of the scenario: one thread, tasks polled by hand when they are woken.
struct Run {
    clock: ManualClock,
    limiter: RateLimiter,
    /// `None` once it has ended.
    tasks: Vec<(Option<Task>, Arc<AtomicBool>)>,
    calls: Arc<Mutex<Vec<Record>>>,
    begin: std::time::Instant,
    kind: Kind,
    /// The number of tasks that a panic ended.
    panicked: usize,
}

/// A call to the protected system. It is recorded when it ends, from its start to its end.
struct Call {
    calls: Arc<Mutex<Vec<Record>>>,
    clock: ManualClock,
    begin: std::time::Instant,
    start: u64,
}

impl Call {
    fn start(run: &Run) -> impl FnOnce() -> Self + use<> {
        let (calls, clock, begin) = (Arc::clone(&run.calls), run.clock.clone(), run.begin);
        move || {
            let start = ns(clock.now() - begin);
            Self { calls, clock, begin, start }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let end = ns(self.clock.now() - self.begin);
        self.calls.lock().unwrap().push(Record { start: self.start, end, weight: 1 });
    }
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// A step that requests something: it may pass on a foreign panic.
fn ask<R>(step: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(answer) => Some(answer),
        Err(payload) if payload.is::<Blown>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// A step that gives something back: it never panics.
fn give_back(step: impl FnOnce()) {
    let done = catch_unwind(AssertUnwindSafe(step));
    assert!(done.is_ok(), "a call that gives something back passes no panic on");
}

impl Run {
    fn new(kind: Kind) -> Self {
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder()
            .limit(LIMIT.parse().unwrap())
            .concurrency(2)
            .abandon_grace(GRACE)
            .clock(BadClock(clock.clone(), kind.wakes_late))
            .build()
            .unwrap();
        let begin = clock.now();
        Self { clock, limiter, tasks: vec![], calls: Arc::default(), begin, kind, panicked: 0 }
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push((Some(Box::pin(task)), Arc::new(AtomicBool::new(true))));
        self.poll_woken();
    }

    /// A call through `run`, which takes no time.
    fn run(&mut self) {
        let (limiter, call) = (self.limiter.clone(), Call::start(self));
        self.spawn(async move { _ = limiter.run(async { drop(call()) }).await });
    }

    /// A call through `run` that never answers, until it is dropped.
    fn run_for_ever(&mut self) {
        let (limiter, call) = (self.limiter.clone(), Call::start(self));
        self.spawn(async move {
            let call = async {
                let _call = call();
                std::future::pending::<()>().await;
            };
            let _ = limiter.run(call).await;
        });
    }

    /// A call with a permit in hand.
    fn acquire(&mut self) {
        let (limiter, call) = (self.limiter.clone(), Call::start(self));
        self.spawn(async move {
            if let Ok(permit) = limiter.request().owned().acquire().await {
                drop(call());
                give_back(|| permit.complete());
            }
        });
    }

    /// A call with a deadline, which waits for room in the window and gives up first, or after.
    fn acquire_within(&mut self, wait: Duration) {
        let (limiter, call) = (self.limiter.clone(), Call::start(self));
        self.spawn(async move {
            if let Ok(permit) = limiter.request().owned().within(wait).acquire().await {
                drop(call());
                give_back(|| permit.complete());
            }
        });
    }

    /// Polls the tasks that were woken, until none is.
    fn poll_woken(&mut self) {
        for _ in 0..100 {
            let woken = |(task, woken): &(Option<Task>, Arc<AtomicBool>)| {
                task.is_some() && woken.load(Ordering::SeqCst)
            };
            let Some(index) = self.tasks.iter().position(woken) else { return };
            let (task, woken) = &mut self.tasks[index];
            woken.store(false, Ordering::SeqCst);
            let waker = fuse::waker(woken);
            let polled =
                ask(|| task.as_mut().unwrap().as_mut().poll(&mut Context::from_waker(&waker)));
            self.panicked += usize::from(polled.is_none());
            if polled.is_none_or(|polled| polled.is_ready()) {
                let over = task.take();
                give_back(|| drop(over));
            }
            // The executor's own waker, which the limiter does not use.
            let _ = ask(|| drop(waker));
        }
        // The head keeps looking while its opening is near, if the clock wakes late.
        assert!(self.kind.wakes_late, "a task keeps waking itself");
    }

    fn cancel(&mut self, index: usize) {
        let cancelled = self.tasks[index].0.take();
        give_back(|| drop(cancelled));
        self.poll_woken();
    }

    fn pass(&mut self, time: Duration) {
        // Timers wake the limiter, which passes no panic on.
        give_back(|| self.clock.advance(time));
        self.poll_woken();
    }

    /// The scenario, whatever panics meanwhile.
    fn scenario(&mut self) {
        let in_hand = ask(|| self.limiter.request().owned().try_acquire().ok()).flatten();
        let call = in_hand.as_ref().map(|_| Call::start(self)());
        self.run();
        self.run(); // Waits for room in the window.
        self.run_for_ever();
        self.acquire();
        self.pass(MS);
        drop(call);
        give_back(|| drop(in_hand)); // Abandoned: held for its grace.
        self.poll_woken();
        self.cancel(3); // From the middle of the queue, or granted.
        self.acquire_within(2 * MS);
        self.acquire_within(30 * MS);
        let _ = ask(|| self.limiter.stats());
        let _ = ask(|| self.limiter.try_acquire().map(drop));
        let _ = ask(|| self.limiter.pause_for(2 * MS));
        let _ = ask(|| self.limiter.pause_until(self.clock.now() + 3 * MS));
        self.acquire();
        for _ in 0..110 {
            // Past the moments at which a head is woken ahead of its opening, and looks.
            self.pass(MS / 10);
        }
        let reconciled = ask(|| self.limiter.reconcile(LIMIT.parse().unwrap(), 1));
        self.pass(5 * MS);
        self.cancel(2); // The call that never answers.
        if let Some(unused) = ask(|| self.limiter.request().owned().try_acquire().ok()).flatten() {
            give_back(|| unused.release_unused());
        }
        self.poll_woken();
        self.run();
        let limiter = self.limiter.clone();
        self.spawn(async move { limiter.drained().await });
        self.pass(MS * u32::from(reconciled.is_some()));
        if self.kind.is_aborted {
            self.run();
            give_back(|| self.limiter.abort());
            self.poll_woken();
        }
    }

    /// The panics have stopped: every task that did not panic gets its permit.
    fn check(mut self) {
        // The next reading of the clock times an end that could not be timed.
        let _ = self.limiter.stats();
        for _ in 0..20 {
            self.poll_woken();
            self.pass(11 * MS);
        }
        let waiting = self.tasks.iter().filter(|(task, _)| task.is_some()).count();
        assert_eq!(waiting, 0, "a waiter waits for ever");
        let stats = self.limiter.stats();
        assert_eq!((stats.running, stats.queued), (0, 0), "a permit or a waiter is lost");
        assert_eq!(stats.held[0].units, 0);
        assert_eq!(self.limiter.try_acquire().is_err(), self.kind.is_aborted);
        let limit: Limit = LIMIT.parse().unwrap();
        let audit = audit::check(&limit, &self.calls.lock().unwrap()).unwrap();
        assert!(audit.is_clean(), "a window overflows: {audit:?}");
    }
}

/// One run, with panics at `calls` calls from the `first` on. Returns the number of calls, and the name of the last
/// call that panicked.
fn run(first: u64, calls: u64, kind: Kind) -> (u64, &'static str) {
    let mut run = Run::new(kind);
    fuse::arm(first, calls);
    run.scenario();
    let (made, blown) = fuse::disarm();
    assert!(!blown.is_empty() || run.panicked == 0);
    run.check();
    (made, blown)
}

fn panics_everywhere(kind: Kind) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    for calls in [1, 2, u64::MAX] {
        for first in 0.. {
            let outcome = catch_unwind(AssertUnwindSafe(|| run(first, calls, kind)));
            let Ok((made, blown)) = outcome else {
                let (_, blown) = fuse::disarm();
                panic!("{calls} panics from {first} on, the last of {blown}; {kind:?}");
            };
            if made <= first {
                break;
            }
            seen.insert(blown);
        }
    }
    seen
}

#[test]
fn a_panic_in_any_call_of_foreign_code_loses_nothing() {
    let mut seen = BTreeSet::new();
    for (wakes_late, is_aborted) in [(false, false), (true, false), (false, true)] {
        let kind = Kind { wakes_late, is_aborted };
        metrics::with_local_recorder(&BadRecorder, || {
            tracing::subscriber::with_default(BadSubscriber, || {
                seen.extend(panics_everywhere(kind));
            });
        });
    }
    let all = [
        "Clock::instant_pair",
        "Clock::now_ns",
        "Counter::increment",
        "Gauge::decrement",
        "Gauge::increment",
        "Gauge::set",
        "Histogram::record",
        "Recorder::register_counter",
        "Recorder::register_gauge",
        "Recorder::register_histogram",
        "Subscriber::current_span",
        "Subscriber::enter",
        "Subscriber::exit",
        "Subscriber::new_span",
        "Subscriber::record",
        "Subscriber::try_close",
        "Timer::clear",
        "Timer::drop",
        "Timer::set",
        "Waker::clone",
        "Waker::drop",
        "Waker::wake",
        "Waker::wake_by_ref",
    ];
    assert_eq!(seen, BTreeSet::from(all));
}
