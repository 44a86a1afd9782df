//! Polling by hand, and a limiter on a manual clock.

#![allow(dead_code, reason = "not every test file needs all of it")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use strict_rate_limiter::clock::ManualClock;
use strict_rate_limiter::{RateLimiter, RateLimiterBuilder};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const NS: Duration = Duration::from_nanos(1);

/// Counts how often it was woken.
#[derive(Default)]
pub(crate) struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future, polled by hand.
pub(crate) struct ByHand<F: Future> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
}

impl<F: Future> ByHand<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future: Box::pin(future), woken: Arc::default() }
    }

    /// Makes the future and polls it once; it must not be ready.
    pub(crate) fn waiting(future: F) -> Self {
        let mut future = Self::new(future);
        assert!(future.poll().is_none(), "it should have to wait");
        future
    }

    pub(crate) fn poll(&mut self) -> Option<F::Output> {
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Polls as an executor would: once for each time it was woken.
    pub(crate) fn poll_if_woken(&mut self) -> Option<F::Output> {
        if self.woken.0.swap(0, Ordering::SeqCst) > 0 { self.poll() } else { None }
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst) > 0
    }
}

/// The tasks that ran, in order.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<&'static str>>>);

impl Trace {
    pub(crate) fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    pub(crate) fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A limiter with these limits on a manual clock, and the settings of `set`.
pub(crate) fn limiter(
    limits: &[&str],
    set: impl FnOnce(RateLimiterBuilder) -> RateLimiterBuilder,
) -> (RateLimiter, ManualClock) {
    let clock = ManualClock::new();
    let limits = limits.iter().map(|limit| limit.parse().expect("a limit"));
    let builder = RateLimiter::builder().limits(limits).clock(clock.clone());
    (set(builder).build().expect("a valid configuration"), clock)
}

/// Lets a current-thread runtime do all its work.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
