//! `ratelimit set`: changes a shared limit for everything that runs under it.

use std::io::Write;

use strict_rate_limiter::ChangeError;
use strict_rate_limiter_shared::SharedRateLimiter;
use strict_rate_limiter_shared::folder::inspect;

use super::args::SetArgs;
use super::{find, text};
use crate::error::Error;
use crate::stdio;

/// Changes the limits, and prints what they were and are.
pub(crate) fn set(args: &SetArgs) -> Result<u8, Error> {
    let folder = find(&args.shared)?;
    let limiter = SharedRateLimiter::open(&folder)?;
    let before = inspect(&folder)?;
    let changed = || -> Result<(), ChangeError> {
        if !args.limits.is_empty() {
            limiter.set_limits(args.limits.iter().copied())?;
        }
        if let Some(tasks) = args.concurrency {
            limiter.set_concurrency(tasks.get())?;
        }
        Ok(())
    };
    changed().map_err(|error| match error {
        ChangeError::Store(error) => Error::Store(error),
        error => Error::Usage(error.to_string()),
    })?;
    let after = inspect(&folder)?;
    let shown = format!("was {}\nis  {}\n", text::settings(&before), text::settings(&after));
    stdio::output().write_all(shown.as_bytes()).map_err(Error::Output)?;
    Ok(0)
}
