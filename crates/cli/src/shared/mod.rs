//! Limits that several runs share (`--shared`), and the subcommands about them.
//!
//! A shared limit is a folder; `strict-rate-limiter-shared` decides. This opens it for `run` and `pipe`, and explains
//! what differs.

pub(crate) mod args;
pub(crate) mod forget;
mod help;
mod json;
mod nested;
pub(crate) mod set;
pub(crate) mod status;
mod text;
mod wait;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use strict_rate_limiter::RateLimiter;
use strict_rate_limiter_shared::folder::{self, Process};
use strict_rate_limiter_shared::{FolderError, SharedRateLimiter};

pub(crate) use wait::acquire;

use crate::args::{LimitArgs, RunArgs};
use crate::config::check_weights;
use crate::display::counted;
use crate::error::Error;
use crate::stdio;

/// Opens the shared limit of a run.
pub(crate) fn for_run(name: &str, args: &RunArgs) -> Result<RateLimiter, Error> {
    let folder = find_or_make(name, &args.limits)?;
    let at_once = args.concurrency.get();
    let mut builder = builder(folder, &args.limits).concurrency_if_new(at_once);
    if let Some(grace) = args.abandon_grace {
        builder = builder.abandon_grace(grace);
    }
    // If this process is killed, its commands run on, and so does what they hold.
    let limiter = builder.inherited_by_children().open()?;
    check_weights(args, &limiter.limits())?;
    let seen = folder::inspect(limiter.folder().path())?;
    nested::check(name, &seen)?;
    let allowed = seen.config.concurrency;
    if at_once > allowed {
        let shown = counted(allowed as u64, "task");
        return Err(Error::Usage(format!(
            "the shared limit `{name}` allows {shown} at once, in all processes together, and -j asks for \
             {at_once}: `ratelimit set {name} -j{at_once}` allows that to all, a lower -j bounds this run alone"
        )));
    }
    tell_wait(name, &limiter, &args.limits, args.quiet);
    Ok(RateLimiter::clone(&limiter))
}

/// Opens the shared limit of `pipe`, which has `at_once` lines unread at most.
pub(crate) fn for_pipe(
    name: &str,
    args: &LimitArgs,
    at_once: usize,
    quiet: bool,
) -> Result<RateLimiter, Error> {
    let folder = find_or_make(name, args)?;
    let limiter = builder(folder, args).concurrency_if_new(at_once).open()?;
    nested::check(name, &folder::inspect(limiter.folder().path())?)?;
    tell_wait(name, &limiter, args, quiet);
    Ok(RateLimiter::clone(&limiter))
}

/// The folder of a limit that is there already.
pub(crate) fn find(name: &str) -> Result<PathBuf, Error> {
    let folder = folder::find(name)?;
    match folder.try_exists() {
        Ok(false) => {
            let source = io::Error::new(
                io::ErrorKind::NotFound,
                "there is no such limit; `run` and `pipe` make it, with --shared",
            );
            Err(FolderError::Io { action: "open", path: folder, source }.into())
        }
        _ => Ok(folder),
    }
}

fn find_or_make(name: &str, args: &LimitArgs) -> Result<PathBuf, Error> {
    let path = folder::find(name)?;
    // Without limits there is nothing to make.
    if args.limits.is_empty() && !path.exists() {
        return Err(FolderError::NoLimits { path }.into());
    }
    Ok(path)
}

fn builder(
    folder: PathBuf,
    args: &LimitArgs,
) -> strict_rate_limiter_shared::SharedRateLimiterBuilder {
    let mut builder = SharedRateLimiter::builder(folder).limits(args.limits.iter().copied());
    if args.paced {
        builder = builder.paced();
    }
    if let Some(ppm) = args.clock_drift {
        builder = builder.clock_drift(ppm);
    }
    if args.shared.fresh { builder.fresh() } else { builder }
}

/// Says that a limit without a state counts as used up.
fn tell_wait(name: &str, limiter: &SharedRateLimiter, args: &LimitArgs, quiet: bool) {
    if quiet || args.shared.fresh || !limiter.folder().was_without_state() {
        return;
    }
    let opening = limiter.stats().next_opening;
    let wait = opening.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
    stdio::tell(format_args!(
        "nothing is known of what ran under `{name}` before, so its limits count as used up: the first task \
         waits {} (--fresh says that nothing ran)",
        text::long(wait)
    ));
}

/// What is left of a process with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    /// It has died, and something that it has started runs on.
    Orphaned,
    Gone,
}

impl State {
    fn of(process: &Process) -> Self {
        match (process.may_live_itself, process.may_live) {
            (true, _) => Self::Alive,
            (false, true) => Self::Orphaned,
            (false, false) => Self::Gone,
        }
    }
}
