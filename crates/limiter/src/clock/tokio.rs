//! Tokio's clock, which tests can pause.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use strict_rate_limiter_core::limit::saturating_ns;
use tokio::runtime::Handle;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Clock, Timer};

/// Tokio's clock and timer, for programs and tests that use tokio's time: with
/// `#[tokio::test(start_paused = true)]`, time passes as soon as everything waits for it.
///
/// Its timer has a resolution of 1 ms, which costs up to that much of every wait; the default clock
/// has none of that.
///
/// ```
/// use std::time::Duration;
/// use strict_rate_limiter::{RateLimiter, clock::TokioClock};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limiter = RateLimiter::builder()
///     .limit("1/1h".parse()?)
///     .clock(TokioClock::current())
///     .build()?;
/// drop(limiter.acquire().await?);
/// drop(limiter.acquire().await?); // An hour later; no time at all while paused.
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TokioClock {
    runtime: Handle,
    /// The origin of its nanoseconds, by the runtime's clock.
    begin: Instant,
}

struct TokioTimer {
    clock: TokioClock,
    /// Outside of tokio's cooperative budget. In a task that has used up its budget, polling a plain
    /// `Sleep` wakes the waker at once, which would be under the limiter's lock.
    sleep: Option<Pin<Box<Unconstrained<Sleep>>>>,
}

impl TokioClock {
    /// The clock of this runtime, which must have its time driver enabled.
    pub fn new(runtime: Handle) -> Self {
        let begin = now(&runtime);
        Self { runtime, begin }
    }

    /// The clock of the runtime that this is called in.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, as [`Handle::current`] does.
    #[track_caller]
    pub fn current() -> Self {
        Self::new(Handle::current())
    }
}

fn now(runtime: &Handle) -> Instant {
    let _in_runtime = runtime.enter();
    Instant::now()
}

impl Clock for TokioClock {
    fn now_ns(&self) -> u64 {
        saturating_ns(now(&self.runtime).saturating_duration_since(self.begin))
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(TokioTimer { clock: self.clone(), sleep: None })
    }

    fn instant_pair(&self) -> Option<(std::time::Instant, u64)> {
        Some((self.begin.into_std(), 0))
    }
}

impl Timer for TokioTimer {
    fn set(&mut self, at_ns: u64, waker: &Waker) -> Poll<()> {
        let TokioClock { runtime, begin } = &self.clock;
        let Some(at) = begin.checked_add(Duration::from_nanos(at_ns)) else {
            self.sleep = None;
            return Poll::Pending;
        };
        let _in_runtime = runtime.enter();
        let sleep = self.sleep.insert(Box::pin(unconstrained(sleep_until(at))));
        sleep.as_mut().poll(&mut Context::from_waker(waker))
    }

    fn clear(&mut self) {
        self.sleep = None;
    }
}
