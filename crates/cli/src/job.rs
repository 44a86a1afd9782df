//! One item, from its first permit to its last try. Each try is a task under the limits.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use strict_rate_limiter::{AcquireError, OwnedPermit, RateLimiter};

use crate::error::{Error, exit};
use crate::exec::{Executor, Outcome};
use crate::items::Item;
use crate::log::{Log, LogRow};
use crate::ordered_output::TaskOutput;
use crate::shutdown::{Level, Shutdown};
use crate::spawn_backoff::SpawnBackoff;
use crate::stdio;

/// The longest wait before a retry, unless the first is longer.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// How long after the queue was full a permit is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The state shared by all jobs.
pub(crate) struct JobContext {
    pub(crate) limiter: RateLimiter,
    pub(crate) shutdown: Shutdown,
    pub(crate) log: Option<std::cell::RefCell<Log>>,
    pub(crate) log_path: std::path::PathBuf,
    pub(crate) executor: Executor,
    pub(crate) spawn_backoff: SpawnBackoff,
    pub(crate) retries: u32,
    pub(crate) retry_delay: Duration,
}

/// The outcome of an item.
#[derive(Debug)]
pub(crate) struct JobReport {
    pub(crate) item: Item,
    pub(crate) end: JobEnd,
    pub(crate) retries: u32,
    /// The exit code of the last try, and how long it took.
    pub(crate) code: i32,
    pub(crate) took: Duration,
    /// A message about it.
    pub(crate) messages: Vec<String>,
    pub(crate) output: TaskOutput,
    /// An error that stops the whole run.
    pub(crate) fatal: Option<Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobEnd {
    Ok,
    Failed,
    /// Its weight exceeds a limit, so it could never run.
    Refused,
    /// The run was stopped before it started.
    NotStarted,
}

/// Runs an item's command, and retries it if it fails. Each try is a task.
pub(crate) async fn run(context: &JobContext, item: Item, command: Vec<OsString>) -> JobReport {
    let mut report = JobReport {
        item,
        end: JobEnd::NotStarted,
        retries: 0,
        code: 0,
        took: Duration::ZERO,
        messages: vec![],
        output: TaskOutput::default(),
        fatal: None,
    };
    let mut busy_tries = 0;
    loop {
        let permit = match permit(context, report.item.weight).await {
            Some(Ok(permit)) => permit,
            Some(Err(AcquireError::Weight(error))) => {
                report.end = JobEnd::Refused;
                report.messages.push(error.to_string());
                return report;
            }
            Some(Err(AcquireError::Store(error))) => {
                report.fatal = Some(Error::Store(error));
                return report;
            }
            Some(Err(_)) | None => return report,
        };
        // Start nothing once the reader has gone.
        if stdio::reader_has_gone() {
            permit.release_unused();
            report.fatal = Some(Error::Output(io::ErrorKind::BrokenPipe.into()));
            return report;
        }
        let outcome = match context.executor.run(&command, &mut report.output).await {
            Ok(outcome) => outcome,
            Err(error) => {
                permit.release_unused();
                tokio::select! {
                    () = context.spawn_backoff.wait(&error, busy_tries, &context.executor.status_line) => {}
                    () = context.shutdown.reached(Level::Graceful) => return report,
                }
                busy_tries += 1;
                continue;
            }
        };
        if outcome.abandoned {
            drop(permit); // Its call may be half done: it has its grace.
        } else {
            permit.complete();
        }
        busy_tries = 0;
        context.spawn_backoff.process_ended();
        (report.code, report.took) = (outcome.code, outcome.end - outcome.start);
        if let Some(code) = outcome.interrupted {
            context.shutdown.interrupted(code);
        }
        let ok = outcome.code == 0;
        report.end = if ok { JobEnd::Ok } else { JobEnd::Failed };
        report.fatal = record(context, &report.item, &outcome).err();
        // A command that died of SIGPIPE has no other error.
        let is_cut_off = outcome.code == i32::from(exit::BROKEN_PIPE) && stdio::reader_has_gone();
        report.messages.extend(outcome.message.filter(|_| !is_cut_off));
        let again = !ok && report.retries < context.retries && report.fatal.is_none();
        if !again || context.shutdown.has_begun() {
            return report;
        }
        tokio::select! {
            () = tokio::time::sleep(delay(context.retry_delay, report.retries)) => {}
            () = context.shutdown.reached(Level::Graceful) => return report,
        }
        report.retries += 1;
    }
}

/// Waits for a permit. `None` if the run is stopped first.
async fn permit(context: &JobContext, weight: u64) -> Option<Result<OwnedPermit, AcquireError>> {
    loop {
        let permit = tokio::select! {
            biased;
            () = context.shutdown.reached(Level::Graceful) => return None,
            permit = context.limiter.request().weight(weight).owned().acquire() => permit,
        };
        if permit.as_ref().err() != Some(&AcquireError::Full) {
            return Some(permit);
        }
        // As many wait for a shared limit as may, in all processes together.
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN_AFTER) => {}
            () = context.shutdown.reached(Level::Graceful) => return None,
        }
    }
}

fn record(context: &JobContext, item: &Item, outcome: &Outcome) -> Result<(), Error> {
    let Some(log) = &context.log else { return Ok(()) };
    let row = LogRow {
        seq: item.seq,
        start: outcome.start,
        end: outcome.end,
        weight: item.weight,
        exit_code: outcome.code,
        input: &item.text,
    };
    log.borrow_mut()
        .write(&row)
        .map_err(|error| Error::Log { path: context.log_path.clone(), error: error.into() })
}

/// The delay before a retry, by the number of earlier retries.
fn delay(first: Duration, retries: u32) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(retries));
    doubled.min(RETRY_DELAY_MAX.max(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_or_the_first() {
        let s = Duration::from_secs;
        let delays: Vec<_> = (0..8).map(|retries| delay(s(1), retries).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delay(s(100), 40), s(100));
        assert_eq!(delay(Duration::ZERO, 3), Duration::ZERO);
    }
}
