//! Foreign code that panics at one of its calls, or from one on: clocks, timers, wakers, recorders,
//! subscribers. All of it counts its calls on one fuse.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, RawWaker, RawWakerVTable, Waker};
use std::time::Instant;

use metrics::{Key, KeyName, Metadata, SharedString, Unit};
use strict_rate_limiter::clock::{Clock, ManualClock, Timer};
use tracing::span::{Attributes, Id, Record};
use tracing_core::span::Current;

/// The payload of foreign panics.
pub(crate) struct Blown;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// The first call that panics, and the first after it that does not.
    static BLOWS: Cell<(u64, u64)> = const { Cell::new((u64::MAX, u64::MAX)) };
    static LAST: Cell<&'static str> = const { Cell::new("") };
}

/// Panics at `calls` calls from the `first` on, counted from now.
pub(crate) fn arm(first: u64, calls: u64) {
    CALLS.set(0);
    LAST.set("");
    BLOWS.set((first, first.saturating_add(calls)));
}

/// The number of calls, and those that panicked.
pub(crate) fn disarm() -> (u64, &'static str) {
    BLOWS.set((u64::MAX, u64::MAX));
    (CALLS.get(), LAST.get())
}

fn foreign(call: &'static str) {
    foreign_or(call, || ());
}

/// A call that does its work before it panics.
fn foreign_or(call: &'static str, before: impl FnOnce()) {
    let this = CALLS.get();
    CALLS.set(this + 1);
    let (first, after) = BLOWS.get();
    if (first..after).contains(&this) {
        LAST.set(call);
        before();
        resume_unwind(Box::new(Blown));
    }
}

// --- A clock

#[derive(Debug)]
pub(crate) struct BadClock(pub(crate) ManualClock, pub(crate) bool);

struct BadTimer(Box<dyn Timer>);

impl Clock for BadClock {
    fn now_ns(&self) -> u64 {
        foreign("Clock::now_ns");
        self.0.now_ns()
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(BadTimer(self.0.timer()))
    }

    fn wakes_late(&self) -> bool {
        self.1
    }

    fn instant_pair(&self) -> Option<(Instant, u64)> {
        foreign("Clock::instant_pair");
        self.0.instant_pair()
    }
}

impl Timer for BadTimer {
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
        foreign("Timer::set");
        self.0.set(at_ns, waker)
    }

    fn clear(&mut self) {
        foreign("Timer::clear");
        self.0.clear();
    }
}

impl Drop for BadTimer {
    fn drop(&mut self) {
        foreign("Timer::drop");
    }
}

// --- A waker

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker that sets the flag even if the call panics.
pub(crate) fn waker(woken: &Arc<AtomicBool>) -> Waker {
    let pointer = Arc::into_raw(Arc::clone(woken));
    // SAFETY: the pointer is an `Arc`'s, of which the waker owns one count, and the flag is atomic.
    unsafe { Waker::new(pointer.cast(), &VTABLE) }
}

fn flag(pointer: *const ()) {
    // SAFETY: every waker owns one count of the `Arc`, so the flag is alive.
    unsafe { &*pointer.cast::<AtomicBool>() }.store(true, Ordering::SeqCst);
}

fn release(pointer: *const ()) {
    // SAFETY: the waker that this is called for owns one count and is gone.
    drop(unsafe { Arc::from_raw(pointer.cast::<AtomicBool>()) });
}

unsafe fn clone(pointer: *const ()) -> RawWaker {
    // A waker that cannot be cloned cannot be woken, so its task is polled again.
    foreign_or("Waker::clone", || flag(pointer));
    // SAFETY: the waker that is cloned owns one count, so there is an `Arc` to count.
    unsafe { Arc::increment_strong_count(pointer.cast::<AtomicBool>()) };
    RawWaker::new(pointer, &VTABLE)
}

unsafe fn wake(pointer: *const ()) {
    flag(pointer);
    release(pointer);
    foreign("Waker::wake");
}

unsafe fn wake_by_ref(pointer: *const ()) {
    flag(pointer);
    foreign("Waker::wake_by_ref");
}

unsafe fn drop_waker(pointer: *const ()) {
    release(pointer);
    foreign("Waker::drop");
}

// --- A recorder

pub(crate) struct BadRecorder;

struct BadMetric;

impl metrics::CounterFn for BadMetric {
    fn increment(&self, _: u64) {
        foreign("Counter::increment");
    }

    fn absolute(&self, _: u64) {}
}

impl metrics::GaugeFn for BadMetric {
    fn increment(&self, _: f64) {
        foreign("Gauge::increment");
    }

    fn decrement(&self, _: f64) {
        foreign("Gauge::decrement");
    }

    fn set(&self, _: f64) {
        foreign("Gauge::set");
    }
}

impl metrics::HistogramFn for BadMetric {
    fn record(&self, _: f64) {
        foreign("Histogram::record");
    }
}

impl metrics::Recorder for BadRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> metrics::Counter {
        foreign("Recorder::register_counter");
        metrics::Counter::from_arc(Arc::new(BadMetric))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        foreign("Recorder::register_gauge");
        metrics::Gauge::from_arc(Arc::new(BadMetric))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        foreign("Recorder::register_histogram");
        metrics::Histogram::from_arc(Arc::new(BadMetric))
    }
}

// --- A subscriber

pub(crate) struct BadSubscriber;

impl tracing::Subscriber for BadSubscriber {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        foreign("Subscriber::new_span");
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        foreign("Subscriber::record");
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &tracing::Event<'_>) {}

    fn enter(&self, _: &Id) {
        foreign("Subscriber::enter");
    }

    fn exit(&self, _: &Id) {
        foreign("Subscriber::exit");
    }

    fn clone_span(&self, id: &Id) -> Id {
        foreign("Subscriber::clone_span");
        id.clone()
    }

    fn try_close(&self, _: Id) -> bool {
        foreign("Subscriber::try_close");
        true
    }

    fn current_span(&self) -> Current {
        foreign("Subscriber::current_span");
        Current::none()
    }
}
