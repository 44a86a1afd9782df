//! Pauses limiters when the server asks for it, and fails requests during pauses longer than `max_pause`.
//!
//! The limiter itself is paused for the whole time, so it grants nothing before. This module remembers which servers
//! asked for more than `max_pause`. Requests fail while the limiter's remaining pause is longer than that. So
//! resuming the limiter, here or directly, also ends the errors.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use reqwest_middleware::{Error, Result};
use strict_rate_limiter::OwnedPermit;
use strict_rate_limiter_hints::REFUSAL;
use tokio::sync::Notify;

use crate::limiters::Target;

/// The server asked for a longer pause than [`max_pause`](crate::RateLimit::max_pause). The request was not sent. No
/// request is sent until the pause is over or [`resume`](crate::RateLimit::resume) ends it.
///
/// Requests that would have to wait longer than `max_pause` fail at once with this error. Find it with
/// `downcast_ref` in [`reqwest_middleware::Error::Middleware`]. The response that asked for the pause is returned to
/// its caller, with this value among its `extensions`.
///
/// ```
/// use reqwest_middleware::Error;
/// use strict_rate_limiter_reqwest::PauseTooLong;
///
/// fn asked_for(error: &Error) -> Option<std::time::Duration> {
///     let Error::Middleware(error) = error else { return None };
///     error.downcast_ref::<PauseTooLong>().map(PauseTooLong::asked)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseTooLong {
    asked: RequestedPause,
    left: Duration,
    until: Option<SystemTime>,
    host: Option<String>,
}

/// The last second that HTTP dates can express.
const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);

/// A pause that the server asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestedPause {
    pub(crate) wait: Duration,
    pub(crate) header: &'static str,
}

/// The servers that asked for more than `max_pause`.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    too_long: Mutex<HashMap<Option<String>, RequestedPause>>,
    /// Notified when one is added.
    added: Notify,
}

impl Pauses {
    /// Pauses the limiter for the time that the server asks for. Returns the error for others if that is too long.
    pub(crate) fn pause(
        &self,
        target: &Target,
        asked: RequestedPause,
        max_pause: Duration,
    ) -> Option<PauseTooLong> {
        let is_longest = asked.wait >= target.limiter.paused_for();
        target.limiter.pause_for(asked.wait);
        if asked.wait <= max_pause {
            return None;
        }
        if is_longest {
            self.lock().insert(target.host.clone(), asked);
        }
        self.added.notify_waiters();
        Some(PauseTooLong::new(target, asked, asked.wait))
    }

    /// Waits for a permit. A pause that begins after the grant, but before this task runs, also holds the request
    /// back.
    ///
    /// # Cancel safety
    ///
    /// As that of `RateLimiter::acquire`.
    pub(crate) async fn acquire(
        &self,
        target: &Target,
        weight: u64,
        max_pause: Duration,
    ) -> Result<OwnedPermit> {
        loop {
            let permit = self.wait(target, weight, max_pause).await?;
            if target.limiter.paused_for().is_zero() {
                return Ok(permit);
            }
            permit.release_unused();
        }
    }

    async fn wait(&self, target: &Target, weight: u64, max_pause: Duration) -> Result<OwnedPermit> {
        let mut permit = pin!(target.limiter.request().weight(weight).owned().acquire());
        loop {
            // Register for notification before checking, so that no pause is missed.
            let mut added = pin!(self.added.notified());
            if let Some(error) = self.refused(target, max_pause) {
                return Err(Error::middleware(error));
            }
            let granted = poll_fn(|context| match permit.as_mut().poll(context) {
                Poll::Ready(permit) => Poll::Ready(Some(permit)),
                Poll::Pending => added.as_mut().poll(context).map(|()| None),
            });
            if let Some(permit) = granted.await {
                return permit.map_err(Error::middleware);
            }
        }
    }

    fn refused(&self, target: &Target, max_pause: Duration) -> Option<PauseTooLong> {
        let mut too_long = self.lock();
        let asked = *too_long.get(&target.host)?;
        let left = target.limiter.paused_for();
        if left.is_zero() {
            too_long.remove(&target.host);
        }
        (left > max_pause).then(|| PauseTooLong::new(target, asked, left))
    }

    /// Ends the pause.
    pub(crate) fn resume(&self, target: &Target) {
        self.lock().remove(&target.host);
        target.limiter.resume();
    }

    /// The hosts that asked for more than `max_pause`.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.lock().keys().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<String>, RequestedPause>> {
        // If a clock panics while the lock is held, the map is still valid.
        self.too_long.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PauseTooLong {
    fn new(target: &Target, asked: RequestedPause, left: Duration) -> Self {
        let ends = (asked.wait != Duration::MAX).then_some(left);
        let until = ends.and_then(|left| SystemTime::now().checked_add(left));
        Self { asked, left, until, host: target.host.clone() }
    }

    /// The pause that the server asked for, from its answer on. `Duration::MAX` means for ever.
    pub fn asked(&self) -> Duration {
        self.asked.wait
    }

    /// The remaining time of the pause when the error was created.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// The end of the pause by the wall clock, if it can express it.
    pub fn until(&self) -> Option<SystemTime> {
        self.until
    }

    /// The name of the header in lower case (`"ratelimit-reset"` for every header with a reset time). `"hint"` if a
    /// hook asked for the pause, `"refusal"` if a 429 or 503 stated no time.
    pub fn header(&self) -> &str {
        self.asked.header
    }

    /// The host, with [`RateLimit::per_host`](crate::RateLimit::per_host).
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

impl std::error::Error for PauseTooLong {}

impl std::fmt::Display for PauseTooLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let server = self.host.as_deref().unwrap_or("the server");
        match self.asked.header {
            REFUSAL => {
                write!(f, "{server} refused a request and did not say for how long: a pause")?;
            }
            header => write!(f, "{server} asked by `{header}` for a pause")?,
        }
        let end = SystemTime::UNIX_EPOCH + YEAR_9999;
        match self.until.filter(|until| (SystemTime::UNIX_EPOCH..end).contains(until)) {
            Some(until) => {
                let (seconds, until) = (self.asked.wait.as_secs(), httpdate::fmt_http_date(until));
                write!(f, " of {seconds} s, until {until}")?;
            }
            None => f.write_str(" that never ends")?,
        }
        f.write_str(
            ", longer than `max_pause`: nothing is sent before, unless `resume` ends the pause",
        )
    }
}
