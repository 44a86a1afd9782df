//! Tokio's clock, which tests can pause.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::task::coop::{Unconstrained, unconstrained};
use tokio::time::{Sleep, sleep_until};

use super::{Clock, Timer};

/// Tokio's clock and timer, for programs and tests that live by them: with
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
}

struct TokioTimer {
    runtime: Handle,
    /// Out of tokio's cooperative budget: a task that has used up its own would have the waker
    /// woken on the spot, under the limiter's lock.
    sleep: Option<Pin<Box<Unconstrained<Sleep>>>>,
}

impl TokioClock {
    /// The clock of this runtime, which must have its time driver enabled.
    pub fn new(runtime: Handle) -> Self {
        Self { runtime }
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

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        let _in_runtime = self.runtime.enter();
        tokio::time::Instant::now().into_std()
    }

    fn timer(&self) -> Box<dyn Timer> {
        Box::new(TokioTimer { runtime: self.runtime.clone(), sleep: None })
    }
}

impl Timer for TokioTimer {
    fn set(&mut self, at: Instant, waker: &Waker) -> Poll<()> {
        let _in_runtime = self.runtime.enter();
        let sleep = self.sleep.insert(Box::pin(unconstrained(sleep_until(at.into()))));
        sleep.as_mut().poll(&mut Context::from_waker(waker))
    }

    fn clear(&mut self) {
        self.sleep = None;
    }
}
